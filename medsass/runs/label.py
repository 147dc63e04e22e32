"""`medsass label`: pseudo-labels of a folder of images, or of shards, as masks and a CSV of their thresholds."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from medsass import files, foreign
from medsass.config import LabelConfig, numbers, refine
from medsass.data.formats import opening
from medsass.data.shards import remote, tar
from medsass.data.shards.manifest import Manifest
from medsass.labels import Labeler
from medsass.runs import console, device, preflight
from medsass.runs.image_files import CSV, Item

_COLUMNS = ("mask", "source", "width", "height", "threshold", "separability", "foreground")


def label(config: LabelConfig, found: tuple[Manifest | None, list[Item]] | None = None) -> list[tuple[Path, str]]:
    """Write a mask (PNG, 0 and 255) for each image of `config.source`, and `labels.csv` beside them.

    Masks of a folder take the relative paths of its images; masks of shards, which may be at an address, are
    `<split>/<key>.png`. Images are labelled at their own size. Otsu and GHT find the threshold of 16-bit gray images in
    the file's own levels, unless a step of --refine comes before it.

    Returns the images that could not be read, with the reason. Raises `ValueError` or `OSError`, before anything is
    written, where the source holds no image, two images would write one mask, or a mask exists already. `found` is what
    `preflight.label` returned, if the caller has called it.
    """
    dataset, images = found or preflight.label(config)
    where = device.resolve(config.device)
    polarity = config.polarity if config.polarity != "recipe" else (dataset.recipe["polarity"] if dataset else "auto")
    steps = config.refine if config.refine != "recipe" else (dataset.recipe.get("refine", "") if dataset else "")
    labeler = Labeler(config.method, polarity, numbers(config.ght, "--ght"), config.block_size, config.offset, steps)
    deep = not config.method.startswith("adaptive") and not refine.before(refine.parse(labeler.refine))
    total = sum(split.samples for split in dataset.splits.values()) if dataset else len(images)
    rows: list[tuple[object, ...]] = []
    failed: list[tuple[Path, str]] = []
    with console.progress("label", total) as bar:
        for item in _in_tars(config, dataset) if dataset else images:
            bar.advance(1)
            try:
                with foreign.reading(item.name):
                    image = opening.from_bytes(item.path.read_bytes() if item.path else item.data, deep).array
                labels = labeler(torch.from_numpy(np.require(image, requirements="W"))[None].to(where))
            except (ValueError, OSError) as error:
                failed.append((config.source / item.name, str(error)))
                continue
            mask = labels.mask[0].cpu().numpy()
            item.mask.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask * np.uint8(255)).save(item.mask)
            measured = (f"{labels.threshold.item():g}", f"{labels.separability.item():.6f}", f"{mask.mean():.6f}")
            size = mask.shape[1], mask.shape[0]
            rows.append((item.mask.relative_to(config.out).as_posix(), item.name, *size, *measured))
    config.out.mkdir(parents=True, exist_ok=True)
    text = io.StringIO(newline="")
    csv.writer(text).writerows([_COLUMNS, *rows])
    files.write(config.out / CSV, text.getvalue())
    console.out.print(f"{len(rows)} masks and {CSV} in {config.out} ({config.method}, foreground {polarity})")
    return failed


def _in_tars(config: LabelConfig, dataset: Manifest) -> Iterator[Item]:
    for name, split in dataset.splits.items():
        for shard in split.shards:
            with remote.local(config.source / shard.file) as path:
                for key, content in tar.read(path):
                    data = next(data for extension, data in content.items() if extension in tar.IMAGES)
                    yield Item(f"{shard.file}/{key}", config.out / name / f"{key}.png", data=data)
