"""`medsass label`: pseudo-labels of a folder of images, or of shards, as masks and a CSV of their thresholds."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from medsass import files
from medsass.config import LabelConfig, numbers
from medsass.data.formats import opening
from medsass.data.shards import manifest, remote, tar
from medsass.data.shards.manifest import Manifest
from medsass.labels import Labeler, Labels, refine
from medsass.runs import console, device, run_directory

CSV = "labels.csv"
_COLUMNS = ("mask", "source", "width", "height", "threshold", "separability", "foreground")


@dataclass(frozen=True)
class Item:
    """One image to label: what to call it, the file that its mask goes to, and its encoded bytes when asked."""

    name: str
    mask: Path
    path: Path | None = None
    data: bytes = b""

    def read(self, deep: bool) -> NDArray[Any]:
        """Its pixels, (H, W) or (H, W, 3) uint8; with `deep`, 16-bit gray stays (H, W) uint16. Raises `ValueError` or
        `OSError` where they cannot be read.
        """
        return opening.from_bytes(self.path.read_bytes() if self.path else self.data, deep).array


def label(config: LabelConfig) -> list[tuple[Path, str]]:
    """Write a mask (PNG, 0 and 255) for each image of `config.source` and `labels.csv` beside them.

    Masks of a folder take its images' relative paths, masks of shards, which may be at an address, are
    `<split>/<key>.png`. Images are labelled at their own size; Otsu and GHT find the threshold of 16-bit gray images in
    the file's own levels, unless a step of --refine comes before it. Returns those that could not be read, with the reason. Raises `ValueError` or `OSError` before
    anything is written where the source holds no image, two would write one mask, or a mask is there already.
    """
    where = device.resolve(config.device)
    run_directory.check_local(config.out, "OUT")
    dataset = _dataset(config.source)
    polarity = config.polarity if config.polarity != "recipe" else (dataset.polarity if dataset else "auto")
    steps = config.refine if config.refine != "recipe" else (dataset.refine if dataset else "")
    labeler = Labeler(config.method, polarity, numbers(config.ght, "--ght"), config.block_size, config.offset, steps)
    deep = not config.method.startswith("adaptive") and not refine.before(refine.parse(labeler.refine))
    total = sum(split.samples for split in dataset.splits.values()) if dataset else len(_images(config.source))
    _check(config, _names(config, dataset) if dataset else _of_folder(config))
    rows: list[tuple[object, ...]] = []
    failed: list[tuple[Path, str]] = []
    with console.progress("label", total) as bar:
        for item in _of_shards(config, dataset) if dataset else _of_folder(config):
            bar.advance(1)
            try:
                image = item.read(deep)
                labels = labeler(torch.from_numpy(np.require(image, requirements="W"))[None].to(where))
            except (ValueError, OSError) as error:
                failed.append((config.source / item.name, str(error)))
                continue
            rows.append(_write(item, labels, config))
    config.out.mkdir(parents=True, exist_ok=True)
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerows([_COLUMNS, *rows])
    files.write(config.out / CSV, text.getvalue())
    console.out.print(f"{len(rows)} masks and {CSV} in {config.out} ({config.method}, foreground {polarity})")
    return failed


def _dataset(source: Path) -> Manifest | None:
    """The manifest where `source` is shards, else None; an address is always one of shards."""
    return remote.load(source) if not files.is_local(source) or (source / manifest.NAME).is_file() else None


def _write(item: Item, labels: Labels, config: LabelConfig) -> tuple[object, ...]:
    mask = labels.mask[0].cpu().numpy()
    item.mask.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask * np.uint8(255)).save(item.mask)
    numbers = (f"{labels.threshold.item():g}", f"{labels.separability.item():.6f}", f"{mask.mean():.6f}")
    return item.mask.relative_to(config.out).as_posix(), item.name, mask.shape[1], mask.shape[0], *numbers


def _of_folder(config: LabelConfig) -> Iterator[Item]:
    for path in _images(config.source):
        relative = path.relative_to(config.source)
        yield Item(relative.as_posix(), (config.out / relative).with_suffix(".png"), path)


def _images(source: Path) -> list[Path]:
    if not source.is_dir():
        raise FileNotFoundError(f"{source}: no such folder; SOURCE is a folder of images or of shards")
    found = sorted(path for path in source.rglob("*") if path.suffix.lower() in opening.SUFFIXES and path.is_file())
    if not found:
        raise FileNotFoundError(f"{source}: no image in this folder; known: {', '.join(sorted(opening.SUFFIXES))}")
    return found


def _names(config: LabelConfig, dataset: Manifest) -> Iterator[Item]:
    """All items of shards without their bytes, from the indices: a few bytes a sample."""
    for name, split in dataset.splits.items():
        for shard in split.shards:
            with remote.local((config.source / shard.file).with_suffix(".idx")) as index:
                lines = index.read_text("utf-8").splitlines()[1:]
            for line in lines:
                key = line.split(" ")[3].partition(".")[0]
                yield Item(f"{shard.file}/{key}", config.out / name / f"{key}.png")


def _of_shards(config: LabelConfig, dataset: Manifest) -> Iterator[Item]:
    for name, split in dataset.splits.items():
        for shard in split.shards:
            with remote.local(config.source / shard.file) as path:
                for key, content in tar.read(path):
                    data = next(data for extension, data in content.items() if extension in tar.IMAGES)
                    yield Item(f"{shard.file}/{key}", config.out / name / f"{key}.png", data=data)


def _check(config: LabelConfig, items: Iterator[Item]) -> None:
    if (config.out / CSV).exists() and not config.overwrite:
        raise FileExistsError(f"{config.out / CSV} exists; choose another OUT, or replace it with --overwrite")
    masks: dict[Path, str] = {}
    for item in items:
        other = masks.setdefault(item.mask, item.name)
        if other != item.name:
            raise ValueError(f"{other} and {item.name} would both write {item.mask}; label them into different folders")
        if item.path and item.mask.resolve() == item.path.resolve():
            raise ValueError(f"{item.mask} is an input image and would be replaced by its mask; choose another OUT")
        if item.mask.exists() and not config.overwrite:
            raise FileExistsError(f"{item.mask} exists; choose another OUT, or replace it with --overwrite")
