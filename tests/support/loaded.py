"""Loaders for tests, and comparisons of their batches."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch

from medsass.data.loading.loader import Augment, Batch, Loader, LoaderConfig, View


def config(shards: Path, **changes: object) -> LoaderConfig:
    options = {"split": "train", "size": 32, "batch_size": 8, "masks": True, "info": True, "threads": 1}
    return LoaderConfig(shards, **{**options, **changes})  # type: ignore[arg-type]


def keys(batches: Iterable[Batch]) -> list[str]:
    return [info["key"] for batch in batches for info in batch.info]


def same(left: list[Batch], right: list[Batch]) -> bool:
    return len(left) == len(right) and all(
        torch.equal(a.images.int(), b.images.int()) and torch.equal(a.masks, b.masks) and a.info == b.info  # type: ignore[arg-type]
        for a, b in zip(left, right, strict=True)
    )


def cloned(batches: Loader) -> list[list[torch.Tensor]]:
    """Return the views of each batch as int32."""
    return [[view.int() for view in batch.views] for batch in batches]


BYOL = Augment(
    area=(0.08, 1.0), vertical=False, jitter=0.4, hue=36.0, saturation=0.2, jitter_chance=0.8, gray=0.2, blur=1.0
)
FURTHER = (View(32, replace(BYOL, blur=0.1, solarize=0.2)), View(16, replace(BYOL, area=(0.05, 0.4))), View(24))

ALL = {"augment": BYOL, "more": (View(20, replace(BYOL, crop=0.5)), View(24)), "masks": True, "info": True}


def assert_same(one: Batch, other: Batch) -> None:
    for a, b in zip(one.views, other.views, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a.int(), b.int())
    assert (one.masks is None) == (other.masks is None)
    assert one.masks is None or torch.equal(one.masks, other.masks)  # type: ignore[arg-type]
    assert (one.keys, one.info, one.share) == (other.keys, other.info, other.share)
