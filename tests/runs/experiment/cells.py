"""Scores of cells that were never run, with means and deviations that a test can work out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from medsass.config import plain
from medsass.runs.experiment import grid
from medsass.runs.experiment.grid import COORDINATES, Cell, Grid

GRID = """
title = "Made"
numbers = "numbers.toml"
[datasets.skin]
shards = "skin"
paper = "ISIC-2017"
differs = "the validation split"
[datasets.cells]
shards = "cells"
train = { epochs = 3 }
[defaults]
epochs = 6
size = 64
seed = [0, 1, 2]
[[runs]]
dataset = ["skin", "cells"]
model = ["unet-resnet50", "unet-resnet18"]
method = ["medsass", "supervised", "byol", "dino"]
[[runs]]
dataset = "skin"
model = "unet-resnet50"
labels = ["ght", "otsu"]
[[runs]]
dataset = "skin"
model = "unet-resnet50"
loss = ["cross-entropy", "focal-tversky"]
[evaluate]
probe = ["skin"]
"""
NUMBERS = """
[standard]
labels = "otsu"
loss = "focal-tversky"
epochs = 50
batch_size = 16
size = 224
seeds = 5
[[numbers]]
table = "1"
method = "byol"
model = "unet-resnet50"
protocol = "paper"
values = { ISIC-2017 = [0.2412, 0.002], X-Ray = [0.2185, 0.008] }
[[numbers]]
table = "3"
method = "medsass"
model = "unet-resnet50"
protocol = "network"
values = { ISIC-2017 = [0.4847, 0.0277] }
[[numbers]]
table = "4"
method = "medsass"
model = "unet-resnet50"
protocol = "network"
values = { ISIC-2017 = [0.4847, 0.5] }
"""

Ious = Callable[[Cell, str], float]


def load(folder: Path) -> Grid:
    """The grid above."""
    (folder / "grid.toml").write_text(GRID)
    (folder / "numbers.toml").write_text(NUMBERS)
    return grid.load(folder / "grid.toml")


def record(cell: Cell, ious: Ious) -> dict[str, Any]:
    """Scores of a cell: `ious(cell, protocol)`, bare labels 0.9, everything foreground 0.25."""
    c = cell.config
    protocols = ("paper", "linear") if c.method not in ("medsass", "supervised") else ("network", "paper", "linear")
    return {
        "dataset": cell.dataset,
        **{name: getattr(c, name) for name in COORDINATES},
        "train": plain(c),
        "protocols": {name: {"iou": ious(cell, name), "accuracy": 0.75} for name in protocols},
        "bare": {"iou": 0.9},
        "everything": {"iou": 0.25},
        "probe": {"recall": 0.5 + c.seed / 10},
    }


def plainly(cell: Cell, protocol: str) -> float:
    """An IoU that differs by method, protocol and seed: seeds 0, 1 and 2 give x - 0.01, x and x + 0.01."""
    base = {"medsass": 0.5, "supervised": 0.7, "byol": 0.3, "dino": 0.2}[cell.config.method]
    return base + {"network": 0.1, "paper": -0.1, "linear": 0.0}[protocol] + (cell.config.seed - 1) / 100
