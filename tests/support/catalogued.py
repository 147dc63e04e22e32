"""Folders of empty files, and what the catalog finds in them, because only names count there."""

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from medsass.data.sharding.catalog import Catalog, Sample
from medsass.data.sharding.recipe import Images, Recipe

SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}


def make(folder: Path, *names: str) -> Path:
    """Create empty files."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@dataclass(frozen=True)
class Found:
    """Samples, masks without an image, and notes of a catalog."""

    samples: list[Sample]
    orphans: list[str]
    notes: list[str]


def find(source: Path, chosen: Recipe, group_by: str = "") -> Found:
    """Fill a catalog from `source` and return what it found."""
    made = Catalog(sqlite3.connect(":memory:"))
    made.fill(source, chosen, group_by)
    assert [rank for rank, _ in made.samples()] == list(range(len(made)))
    return Found([sample for _, sample in made.samples()], list(made.orphans()), made.notes())


def plain(images: str = "**/*", masks: str = "", **more: object) -> Recipe:
    """Return a recipe of one pattern with three splits."""
    return Recipe("mine", (Images(images, masks),), splits=SHARES, **more)  # type: ignore[arg-type]


def by_image(source: Path, chosen: Recipe) -> dict[str, Sample]:
    return {sample.image: sample for sample in find(source, chosen).samples}


def masks(source: Path, chosen: Recipe) -> dict[str, tuple[str, ...]]:
    return {image: sample.masks for image, sample in by_image(source, chosen).items()}
