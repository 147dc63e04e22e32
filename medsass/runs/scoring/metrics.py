"""Scores of masks and of classes, each a function of counts; and the means that training logs."""

from dataclasses import dataclass, field
from typing import Any

import torch

from medsass.runs.distributed import ALONE, Ranks

SCORES = ("iou", "iou_dataset", "dice", "precision", "recall", "accuracy")


def count(prediction: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Count the pixels of two (N, H, W) masks in {0, 1} by outcome: (4, N) int64, TP, FP, FN and TN of each image."""
    prediction, truth = prediction.flatten(1).bool(), truth.flatten(1).bool()
    outcomes = (prediction & truth, prediction & ~truth, ~prediction & truth, ~prediction & ~truth)
    return torch.stack([outcome.sum(1) for outcome in outcomes])


def iou(counts: torch.Tensor) -> torch.Tensor:
    """Return TP / (TP + FP + FN), (N,); 1 where prediction and truth are both empty."""
    return _ratio(counts, counts[0], counts[:3].sum(0))


def scores(counts: torch.Tensor) -> dict[str, float]:
    """Return the means over images of IoU, Dice, precision, recall and accuracy, and the IoU of all pixels together.

    An image whose prediction and truth are both empty counts 1. Precision is 0 where nothing was predicted although there
    was something to find, recall 0 where something was predicted although there was nothing.
    """
    tp, fp, fn, tn = counts
    values = {
        "iou": iou(counts),
        "iou_dataset": iou(counts.sum(1, keepdim=True)),
        "dice": _ratio(counts, 2 * tp, 2 * tp + fp + fn),
        "precision": _ratio(counts, tp, tp + fp),
        "recall": _ratio(counts, tp, tp + fn),
        "accuracy": (tp + tn).double() / counts.sum(0),
    }
    return {name: float(values[name].mean()) for name in SCORES}


def _ratio(counts: torch.Tensor, part: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    both_empty = (counts[:3].sum(0) == 0).double()
    return torch.where(whole > 0, part.double() / whole.clamp_min(1), both_empty)


def confusion(prediction: torch.Tensor, truth: torch.Tensor, classes: int) -> torch.Tensor:
    """Count (N,) int64 class numbers into (K, K) int64: rows are true classes, columns predicted ones."""
    return torch.bincount(truth * classes + prediction, minlength=classes**2).view(classes, classes)


def class_scores(confusion: torch.Tensor) -> dict[str, Any]:
    """Return the scores of (K, K) counts: `recalls`, TP / (TP + FN) of each class, None where it has no image; `recall`,
    their mean, which is the balanced accuracy; and `accuracy`, the share of images that are right.
    """
    right, images = confusion.diagonal().double(), confusion.sum(1)
    recalls = [float(r / n) if n else None for r, n in zip(right, images, strict=True)]
    present = [value for value in recalls if value is not None]
    return {"recalls": recalls, "recall": sum(present) / len(present), "accuracy": float(right.sum() / images.sum())}


def spread(features: torch.Tensor) -> torch.Tensor:
    """Return a scalar: the standard deviation over the batch of each of the C components of (N, C) features scaled to length
    1, averaged over components, times the square root of C. Near 1 where directions are spread evenly, 0 where all have
    collapsed into one (Chen and He 2021, section 4.1, whose figure is not multiplied).
    """
    unit = torch.nn.functional.normalize(features.float(), dim=1)
    result: torch.Tensor = unit.std(0, unbiased=False).mean() * unit.shape[1] ** 0.5
    return result


@dataclass
class Means:
    """Means over images of scalars that arrive by batch; they stay on their device until they are read."""

    images: int = 0
    _totals: dict[str, torch.Tensor] = field(default_factory=dict)

    def add(self, scalars: dict[str, torch.Tensor], images: int) -> None:
        """Add a batch's scalars, each a mean over its `images`."""
        self.images += images
        for name, value in scalars.items():
            self._totals[name] = self._totals.get(name, 0) + value.double() * images

    def state(self, ranks: Ranks = ALONE) -> dict[str, Any]:
        """Return the state of all processes together, for `load`; waits for the device."""
        images, totals = 0, dict[str, float]()
        for number, part in ranks.gather((self.images, {name: float(total) for name, total in self._totals.items()})):
            images += number
            totals |= {name: totals.get(name, 0.0) + total for name, total in part.items()}
        return {"images": images, "totals": totals}

    def load(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        self.images = state["images"]
        self._totals = {name: torch.tensor(total, dtype=torch.float64) for name, total in state["totals"].items()}

    def values(self, prefix: str, ranks: Ranks = ALONE) -> dict[str, float]:
        """Return the means by name, each with `prefix`, over the images of all processes; waits for the device."""
        state = self.state(ranks)
        return {prefix + name: total / state["images"] for name, total in state["totals"].items()}
