"""Runs `medsass shard` on a dataset in its owners' layout, and reads what was written, counted and rejected."""

import json
import tarfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from medsass.config import ShardConfig
from medsass.data.sharding import shard
from medsass.data.sharding.catalog import listing
from medsass.data.shards.manifest import REJECTED, Manifest

Stored = dict[str, dict[str, Any]]


def written(source: Path, out: Path, recipe: str, **options: Any) -> tuple[Manifest, Stored]:
    """Shard a dataset and return its manifest and, by key, each sample's files (by tarfile), its `split` and its `meta`."""
    manifest = shard.write(ShardConfig(source, out, recipe=recipe, follow_links=True, **options))
    stored: Stored = {}
    for split in manifest.splits:
        for path in sorted(out.glob(f"{split}-*.tar")):
            with tarfile.open(path) as opened:
                for member in opened:
                    key, _, extension = member.name.partition(".")
                    data = opened.extractfile(member).read()  # type: ignore[union-attr]
                    stored.setdefault(key, {"split": split})[extension] = data
    for sample in stored.values():
        sample["meta"] = json.loads(sample["json"])
    return manifest, stored


def planned(source: Path, recipe: str, **options: Any) -> dict[str, int]:
    found = shard.plan(ShardConfig(source, source / "out", recipe=recipe, follow_links=True, **options))[0]
    assert found.rejected == 0
    return {name: split.samples for name, split in found.splits.items()}


def counts(stored: Stored) -> dict[str, int]:
    return dict(Counter(sample["split"] for sample in stored.values()))


def pixels(data: bytes) -> NDArray[Any]:
    """Decode by OpenCV to (H, W) or (H, W, 3) RGB of the file's own depth, without alpha."""
    array = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED))
    return array[..., 2::-1] if array.ndim == 3 else array


def rejected(out: Path) -> dict[str, str]:
    lines = [json.loads(line) for line in (out / REJECTED).read_text().splitlines()]
    return {item["file"]: item["reason"] for item in lines}


def linked(real: Path, source: Path, names: list[str]) -> Path:
    """Fill `source` with links to some files of a real dataset, and return it."""
    for name in names:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).symlink_to(real / name)
    return source


def pretend(monkeypatch: pytest.MonkeyPatch, names: Iterable[str]) -> None:
    """Let every source seem to hold files of these names, because creating tens of thousands takes long."""
    monkeypatch.setattr(listing.Listing, "_walk_local", lambda *_: ((name, 0, "") for name in names))
