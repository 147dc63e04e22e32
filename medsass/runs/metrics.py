"""Segmentation scores: counts of each image first, then every score a function of them."""

from dataclasses import dataclass

import torch

SCORES = ("iou", "iou_dataset", "dice", "precision", "recall", "accuracy")


@dataclass(frozen=True)
class Counts:
    """Pixels of each image by outcome: four (N,) int64 tensors."""

    tp: torch.Tensor
    fp: torch.Tensor
    fn: torch.Tensor
    tn: torch.Tensor


def count(prediction: torch.Tensor, truth: torch.Tensor) -> Counts:
    """Compare two (N, H, W) masks in {0, 1}."""
    prediction, truth = prediction.flatten(1).bool(), truth.flatten(1).bool()
    outcomes = (prediction & truth, prediction & ~truth, ~prediction & truth, ~prediction & ~truth)
    return Counts(*(outcome.sum(1) for outcome in outcomes))


def concatenate(parts: list[Counts]) -> Counts:
    """The counts of several batches as one."""
    return Counts(*(torch.cat([getattr(part, name).cpu() for part in parts]) for name in ("tp", "fp", "fn", "tn")))


def iou(c: Counts) -> torch.Tensor:
    """(N,) TP / (TP + FP + FN); 1 where prediction and truth are both empty."""
    return _ratio(c, c.tp, c.tp + c.fp + c.fn)


def scores(c: Counts) -> dict[str, float]:
    """Mean over images of IoU, Dice, precision, recall and accuracy, and the IoU of all pixels of the dataset together.

    An image whose prediction and truth are both empty counts 1. Precision is 0 where nothing was predicted though there
    was something to find, recall 0 where something was predicted though there was nothing.
    """
    total = Counts(c.tp.sum(), c.fp.sum(), c.fn.sum(), c.tn.sum())
    values = {
        "iou": iou(c),
        "iou_dataset": iou(total),
        "dice": _ratio(c, 2 * c.tp, 2 * c.tp + c.fp + c.fn),
        "precision": _ratio(c, c.tp, c.tp + c.fp),
        "recall": _ratio(c, c.tp, c.tp + c.fn),
        "accuracy": (c.tp + c.tn).double() / (c.tp + c.fp + c.fn + c.tn),
    }
    return {name: float(values[name].mean()) for name in SCORES}


def _ratio(c: Counts, part: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    both_empty = (c.tp + c.fp + c.fn == 0).double()
    return torch.where(whole > 0, part.double() / whole.clamp_min(1), both_empty)
