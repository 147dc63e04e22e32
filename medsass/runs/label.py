"""`medsass label`: pseudo-labels of a folder of images, or of shards, as masks and a CSV of their thresholds."""

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from medsass import files
from medsass.config import LabelConfig, numbers
from medsass.data.formats import opening
from medsass.data.shards import manifest, remote, tar
from medsass.data.shards.manifest import Manifest
from medsass.labels import Labeler, refine
from medsass.runs import console, device, image_files, run_directory

CSV = "labels.csv"
_COLUMNS = ("mask", "source", "width", "height", "threshold", "separability", "foreground")


@dataclass(frozen=True)
class Item:
    """An image to label: its name, the file for its mask, and its own file or, from a tar, its encoded bytes."""

    name: str
    mask: Path
    path: Path | None = None
    data: bytes = b""


def label(config: LabelConfig) -> list[tuple[Path, str]]:
    """Write a mask (PNG, 0 and 255) for each image of `config.source`, and `labels.csv` beside them.

    Masks of a folder take the relative paths of its images; masks of shards, which may be at an address, are
    `<split>/<key>.png`. Images are labelled at their own size. Otsu and GHT find the threshold of 16-bit gray images in
    the file's own levels, unless a step of --refine comes before it.

    Returns the images that could not be read, with the reason. Raises `ValueError` or `OSError`, before anything is
    written, where the source holds no image, two images would write one mask, or a mask exists already.
    """
    where = device.resolve(config.device)
    run_directory.check_local(config.out, "OUT")
    sharded = not files.is_local(config.source) or (config.source / manifest.NAME).is_file()
    dataset = remote.load(config.source) if sharded else None
    polarity = config.polarity if config.polarity != "recipe" else (dataset.recipe["polarity"] if dataset else "auto")
    steps = config.refine if config.refine != "recipe" else (dataset.recipe.get("refine", "") if dataset else "")
    labeler = Labeler(config.method, polarity, numbers(config.ght, "--ght"), config.block_size, config.offset, steps)
    deep = not config.method.startswith("adaptive") and not refine.before(refine.parse(labeler.refine))
    images = [] if dataset else list(_listed(config, None))
    _check(config, _listed(config, dataset) if dataset else images)
    total = sum(split.samples for split in dataset.splits.values()) if dataset else len(images)
    rows: list[tuple[object, ...]] = []
    failed: list[tuple[Path, str]] = []
    with console.progress("label", total) as bar:
        for item in _in_tars(config, dataset) if dataset else images:
            bar.advance(1)
            try:
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


def _listed(config: LabelConfig, dataset: Manifest | None) -> Iterator[Item]:
    """List the images of a folder, or those of shards without their bytes, from the indices: a few bytes a sample."""
    if not dataset:
        if not config.source.is_dir():
            raise FileNotFoundError(f"{config.source}: no such folder; SOURCE is a folder of images or of shards")
        for path in image_files.in_folder(config.source):
            name = path.relative_to(config.source)
            yield Item(name.as_posix(), (config.out / name).with_suffix(".png"), path)
        return
    for split, content in dataset.splits.items():
        for shard in content.shards:
            with remote.local((config.source / shard.file).with_suffix(".idx")) as index:
                lines = index.read_text("utf-8").splitlines()[1:]
            for line in lines:
                key = line.split(" ")[3].partition(".")[0]
                yield Item(f"{shard.file}/{key}", config.out / split / f"{key}.png")


def _in_tars(config: LabelConfig, dataset: Manifest) -> Iterator[Item]:
    for name, split in dataset.splits.items():
        for shard in split.shards:
            with remote.local(config.source / shard.file) as path:
                for key, content in tar.read(path):
                    data = next(data for extension, data in content.items() if extension in tar.IMAGES)
                    yield Item(f"{shard.file}/{key}", config.out / name / f"{key}.png", data=data)


def _check(config: LabelConfig, items: Iterable[Item]) -> None:
    """Raise `ValueError` or `FileExistsError` where an output would replace another one, an input or an existing file."""
    files.check_new(config.out / CSV, "OUT", config.overwrite)
    masks: dict[Path, str] = {}
    for item in items:
        other = masks.setdefault(item.mask, item.name)
        if other != item.name:
            raise ValueError(f"{other} and {item.name} would both write {item.mask}; label them into different folders")
        if item.path and item.mask.resolve() == item.path.resolve():
            raise ValueError(f"{item.mask} is an input image and would be replaced by its mask; choose another OUT")
        files.check_new(item.mask, "OUT", config.overwrite)
