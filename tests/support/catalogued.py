"""Catalogs of folders of empty files: only names count."""

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from medsass.data.sharding.catalog import Catalog, Entry
from medsass.data.sharding.recipe import Images, Recipe

SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@dataclass(frozen=True)
class Found:
    entries: list[Entry]
    orphans: list[str]
    notes: list[str]


def find(source: Path, chosen: Recipe, group_by: str = "") -> Found:
    catalog = Catalog(sqlite3.connect(":memory:"))
    catalog.fill(source, chosen, group_by)
    ranks, entries = zip(*catalog.entries(), strict=True)
    assert ranks == tuple(range(len(catalog)))
    return Found(list(entries), list(catalog.orphans()), catalog.notes())


def plain(images: str = "**/*", masks: str = "", **more: object) -> Recipe:
    return Recipe("mine", (Images(images, masks),), splits=SHARES, **more)  # type: ignore[arg-type]


def by_image(source: Path, chosen: Recipe) -> dict[str, Entry]:
    return {entry.image: entry for entry in find(source, chosen).entries}


def masks(source: Path, chosen: Recipe) -> dict[str, tuple[str, ...]]:
    return {image: entry.masks for image, entry in by_image(source, chosen).items()}
