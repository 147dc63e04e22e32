"""A linear head trained upon a frozen encoder's features, for `evaluate --protocol linear` and `probe`."""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from medsass.data.loading.loader import Batch, Loader
from medsass.methods import optim
from medsass.methods.method import Regime
from medsass.runs import console
from medsass.runs.scoring import metrics

_MOST_BYTES = 1 << 30  # most features that are kept in memory

Pair = tuple[torch.Tensor, torch.Tensor]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Features:
    """Batches that `see` computes from a loader's images in each pass. A batch left without samples is skipped."""

    loader: Loader
    see: Callable[[Batch], Pair]

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Pair]:
        with console.progress(f"features of {self.loader.config.split}", self.loader.samples) as bar:
            for batch in self.loader:
                with torch.no_grad():
                    features, target = self.see(batch)
                if len(target):
                    yield features.float(), target
                bar.advance(len(batch.images))


Batches = Features | list[Pair]  # of features (N, C) or (N, C, h, w) and target


@dataclass(frozen=True)
class Training:
    """Data, loss and optimisation of a head. `regime.patience` counts epochs without a lower validation loss."""

    train: Batches
    val: Batches
    loss: Loss
    regime: Regime
    epochs: int


class Standardise(nn.Module):
    """Standardisation of features (N, C, ...): each channel minus its mean, divided by its standard deviation, both over all
    samples and positions of the batches it is made from.

    Both are constants, so that the head stays linear in the features. Encoders differ in scale by orders of magnitude;
    this way one learning rate serves them all (as in He et al. 2022, appendix A.1, which normalises by batch).
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, batches: Batches) -> None:
        super().__init__()
        count, total, squares = 0, torch.zeros(()), torch.zeros(())
        for features, _ in batches:
            many = features.double()
            values = many.flatten(2).transpose(0, 1).flatten(1) if many.ndim > 2 else many.T  # (C, samples)
            count += values.shape[1]
            total, squares = total.to(values) + values.sum(1), squares.to(values) + values.square().sum(1)
        mean = total / count
        deviation = (squares / count - mean.square()).clamp_min(0).sqrt()
        self.register_buffer("mean", mean.float())
        self.register_buffer("scale", deviation.clamp_min(1e-5).float())  # a constant channel becomes 0, not noise

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return standardised features of the same shape."""
        shape = (-1, *[1] * (features.ndim - 2))
        return (features - self.mean.view(shape)) / self.scale.view(shape)


def cached(batches: Batches) -> Batches:
    """Hold the batches in memory, or return them unchanged where they exceed 1 GiB: then each pass computes them anew."""
    held, size = list[Pair](), 0
    for pair in batches:
        size += sum(tensor.nbytes for tensor in pair)
        if size <= _MOST_BYTES:
            held.append(pair)
    return held if size <= _MOST_BYTES else batches


def fit(head: nn.Module, training: Training, report: Callable[[dict[str, Any]], None]) -> list[dict[str, Any]]:
    """Train `head` and leave it with the weights of the epoch with the lowest validation loss.

    Returns a line per epoch, with which `report` is called too: epoch, train_loss and val_loss, means over images.
    Raises `FloatingPointError` where the loss is no longer a finite number.
    """
    regime, number = training.regime, 0
    optimizer = optim.build(head.parameters(), regime, next(head.parameters()).device.type)
    history: list[dict[str, Any]] = []
    best, state = 0, head.state_dict()
    while len(history) < training.epochs and not 0 < regime.patience <= len(history) - best:
        line: dict[str, Any] = {"epoch": len(history) + 1}
        for name, batches in (("train_loss", training.train), ("val_loss", training.val)):
            means, learns = metrics.Means(), name == "train_loss"
            for features, target in batches:
                with torch.set_grad_enabled(learns):
                    loss = training.loss(head(features), target)
                if learns:
                    optim.set_rate(optimizer, regime, number, training.epochs * len(batches))
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    number += 1
                means.add({name: loss.detach()}, len(target))
            line |= means.values("")
            if not math.isfinite(line["train_loss"]):
                raise FloatingPointError(
                    f"the head's training loss is {line['train_loss']}: the learning rate {regime.lr:g} is too high, or "
                    "the encoder's features are not finite"
                )
        history.append(line)
        report(line)
        if best_epoch(history) != best:
            best, state = line["epoch"], copy.deepcopy(head.state_dict())
    head.load_state_dict(state)
    return history


def best_epoch(history: list[dict[str, Any]]) -> int:
    """Return the epoch, counted from 1, whose weights `fit` keeps: the first with the lowest validation loss."""
    return int(min(history, key=lambda line: float(line["val_loss"]))["epoch"])
