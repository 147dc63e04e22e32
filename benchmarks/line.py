"""The whole line on real images: shard, train without labels, score. Shows what a user of a small machine gets, and how fast.

    python -m benchmarks.line [DATA]

DATA holds `dsb2018/` and `isic2017/` in their owners' layouts. Each row names the split that it scores: of ISIC 2017 the
validation split, because DATA lacks the masks of its test split. Training never sees a mask.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from benchmarks.support import result
from medsass.config import EvaluateConfig, ShardConfig, TrainConfig
from medsass.data.sharding import shard
from medsass.runs.scoring.evaluate import evaluate
from medsass.runs.training.train import train


@dataclass(frozen=True)
class Case:
    """A dataset, the epochs to train on it and the split to score."""

    recipe: str
    epochs: int
    split: str


CASES = (Case("dsb2018", 8, "test"), Case("isic2017", 3, "val"))


def run(case: Case, data: Path, folder: Path) -> dict[str, Any]:
    """Return a row: speed of sharding and training, and the scores of the network and of the bare labels."""
    shards, where = folder / f"{case.recipe}-shards", folder / f"{case.recipe}-run"
    start = monotonic()
    dataset = shard.write(ShardConfig(data / case.recipe, shards, recipe=case.recipe))
    sharded = monotonic() - start
    images = sum(split.samples for split in dataset.splits.values())
    start = monotonic()
    best = train(TrainConfig(shards, where, model="unet-resnet18", size=96, epochs=case.epochs, device="cpu"))
    trained = monotonic() - start
    scores = evaluate(EvaluateConfig(where, shards, split=case.split, device="cpu"))
    return {
        "dataset": case.recipe,
        "split": case.split,
        "images": scores["images"],
        "model": "unet-resnet18",
        "size": 96,
        "epochs": case.epochs,
        "iou": scores["iou"],
        "iou_dataset": scores["iou_dataset"],
        "dice": scores["dice"],
        "labels_iou": scores["labels"]["iou"],
        "labels_iou_dataset": scores["labels"]["iou_dataset"],
        "labels_dice": scores["labels"]["dice"],
        "shard_images_per_second": images / sharded,
        "train_images_per_second": best["images_per_second"],
        "train_seconds": trained,
    }


def main() -> None:
    """Run both cases and save the result."""
    data = result.data("line", [case.recipe for case in CASES])
    with tempfile.TemporaryDirectory() as folder:
        rows = [run(case, data, Path(folder)) for case in CASES]
    targets = [result.Target("DSB 2018 test IoU, 8 epochs at 96 x 96", "IoU", ">=", 0.60, rows[0]["iou"])]
    result.save("line", "cpu", rows, targets, {})


if __name__ == "__main__":
    main()
