"""Folders of empty files, and what the catalog finds in them, because only names count there."""

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from medsass.data.sharding.catalog.catalog import Catalog
from medsass.data.sharding.catalog.entry import Entry
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
    """Entries, masks without an image, and notes of a catalog."""

    entries: list[Entry]
    orphans: list[str]
    notes: list[str]


def find(source: Path, chosen: Recipe, group_by: str = "") -> Found:
    """Fill a catalog from `source` and return what it found."""
    catalog = Catalog(sqlite3.connect(":memory:"))
    catalog.fill(source, chosen, group_by)
    ranks, entries = zip(*catalog.entries(), strict=True)
    assert list(ranks) == list(range(sum(catalog.counts().values())))
    return Found(list(entries), list(catalog.orphans()), catalog.notes())


def plain(images: str = "**/*", masks: str = "", **more: object) -> Recipe:
    """Return a recipe of one pattern with three splits."""
    return Recipe("mine", (Images(images, masks),), splits=SHARES, **more)  # type: ignore[arg-type]


def by_image(source: Path, chosen: Recipe) -> dict[str, Entry]:
    return {entry.image: entry for entry in find(source, chosen).entries}


def masks(source: Path, chosen: Recipe) -> dict[str, tuple[str, ...]]:
    return {image: entry.masks for image, entry in by_image(source, chosen).items()}
