"""`medsass label`: pseudo-labels of a folder of images, or of shards, as masks and a CSV of their thresholds."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from medsass import files, foreign, temporary
from medsass.config import LabelConfig, numbers, refine
from medsass.data.formats import opening
from medsass.data.formats.image import ImageFile, Selection
from medsass.data.formats.volumes.volume import Volume
from medsass.data.shards import contents, remote, tar
from medsass.data.shards.manifest import Manifest
from medsass.labels import Labeler
from medsass.labels.cuda import Labels
from medsass.runs import console, device, preflight
from medsass.runs.image_files import CSV, Item
from medsass.text import cell

_COLUMNS = ("mask", "source", "frame", "width", "height", "threshold", "separability", "foreground")


def label(config: LabelConfig, found: tuple[Manifest | None, list[Item]] | None = None) -> list[tuple[Path, str]]:
    """Write a mask for each image of `config.source`, and `labels.csv` beside them: PNG, 0 and 255; for a volume a volume
    of the same geometry, 0 and 1; for a stack a TIFF of as many pages.

    Masks of a folder take the relative paths of its images; masks of shards, which may be at an address, are
    `<split>/<key>.png`. Images, and each slice of a volume, are labelled at their own size. Padding takes no part in the threshold and is background. Otsu and GHT find the threshold of 16-bit gray images in
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
    view, window = Selection(**config.selected()), config.bounds()
    rows: list[tuple[object, ...]] = []
    failed: list[tuple[Path, str]] = []
    config.out.mkdir(parents=True, exist_ok=True)
    with console.progress("label", total) as bar, temporary.scratch(config.out):
        for item in _in_tars(config, dataset) if dataset else images:
            bar.advance(1)
            try:
                with (
                    foreign.reading(item.name),
                    item.open(view) as file,
                ):
                    read = (opening.pixels(file, frame, deep, window) for frame in range(file.frames))
                    labels = [_labelled(labeler, pixels, where) for pixels in read]
                    masks = np.stack([each.mask[0].cpu().numpy() for each in labels])
                    content = _encoded(masks, file)
            except (ValueError, OSError) as error:
                failed.append((config.source / item.name, str(error)))
                continue
            item.mask.parent.mkdir(parents=True, exist_ok=True)
            files.check_new(item.mask, "OUT", config.overwrite)  # a tar file may hold other samples than its index
            files.write(item.mask, content)
            size = masks.shape[2], masks.shape[1]
            for frame, (each, mask) in enumerate(zip(labels, masks, strict=True)):
                measured = (f"{each.threshold.item():g}", f"{each.separability.item():.6f}", f"{mask.mean():.6f}")
                name = item.mask.relative_to(config.out).as_posix()
                rows.append((name, item.name, file.indices[frame], *size, *measured))
    text = io.StringIO(newline="")
    csv.writer(text).writerows([_COLUMNS, *([cell(value) for value in row] for row in rows)])
    files.write(config.out / CSV, text.getvalue())
    console.out.print(
        f"{len({row[0] for row in rows})} masks and {CSV} in {config.out} ({config.method}, foreground {polarity})"
    )
    return failed


def _labelled(labeler: Labeler, pixels: opening.Pixels, where: str) -> Labels:
    image = torch.from_numpy(np.require(pixels.array, requirements="W"))[None].to(where)
    if pixels.outside is None:
        return labeler(image)
    return labeler.within(image, torch.from_numpy(pixels.outside.view(np.uint8))[None].to(where))


def _encoded(masks: NDArray[np.uint8], file: ImageFile) -> bytes:
    """Return the file for the masks (n, h, w) of an image: a PNG, or for a volume or stack a file of its kind."""
    if file.stack:
        return file.encode(masks if isinstance(file, Volume) else masks * np.uint8(255))
    buffer = io.BytesIO()
    Image.fromarray(masks[0] * np.uint8(255)).save(buffer, "PNG")
    return buffer.getvalue()


def _in_tars(config: LabelConfig, dataset: Manifest) -> Iterator[Item]:
    for name, split in dataset.splits.items():
        for shard in split.shards:
            with remote.local(config.source / shard.file) as path:
                for key, content in tar.read(path):
                    data = contents.image(path, key, content)
                    yield Item(f"{shard.file}/{key}", config.out / name / f"{key}.png", data=data)
