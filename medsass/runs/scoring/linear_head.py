"""A linear head trained upon a frozen encoder's features: what `evaluate --protocol linear` and `probe` share."""

import copy
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from medsass.data.loading.loader import Batch, Loader
from medsass.data.shards import remote
from medsass.methods import optim
from medsass.methods.method import Regime
from medsass.runs.scoring import metrics

_MOST_BYTES = 1 << 30  # of features that are kept in memory

Pair = tuple[torch.Tensor, torch.Tensor]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Batches(Protocol):
    """Batches of (features, target) that can be gone through again and again; features are (N, C) or (N, C, h, w)."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Pair]: ...


@dataclass(frozen=True)
class Features:
    """`Batches` that `see` makes of a loader's images, each time anew. A batch that is left without samples is skipped."""

    loader: Loader
    see: Callable[[Batch], Pair]

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Pair]:
        for batch in self.loader:
            with torch.no_grad():
                features, target = self.see(batch)
            if len(target):
                yield features.float(), target


@dataclass(frozen=True)
class Training:
    """What a head learns from, and how: `regime.patience` counts epochs without a lower validation loss."""

    train: Batches
    val: Batches
    loss: Loss
    regime: Regime
    epochs: int


class Standardise(nn.Module):
    """(N, C, ...) -> the same, each channel less its mean and divided by its standard deviation.

    Both are constants, so what follows stays linear in the features. Encoders differ in scale by orders of magnitude;
    this way one learning rate serves them all (as in He et al. 2022, appendix A.1, whose normalisation goes by batches).
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, batches: Batches) -> None:
        super().__init__()
        mean, scale = _moments(batches)
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Standardised features, of the same shape."""
        shape = (-1, *[1] * (features.ndim - 2))
        return (features - self.mean.view(shape)) / self.scale.view(shape)


def _moments(batches: Batches) -> Pair:
    """Mean and standard deviation of each of C channels, float32, over all samples and positions."""
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for features, _ in batches:
        values = features.double().flatten(2).transpose(0, 1).flatten(1) if features.ndim > 2 else features.double().T
        count += values.shape[1]
        total, squares = total.to(values) + values.sum(1), squares.to(values) + values.square().sum(1)
    mean = total / count
    deviation = (squares / count - mean.square()).clamp_min(0).sqrt()
    return mean.float(), deviation.clamp_min(1e-5).float()  # a constant channel becomes 0, not noise


def freeze(encoder: nn.Module) -> nn.Module:
    """The encoder, in evaluation mode for good: no gradient, no batch statistics."""
    return encoder.eval().requires_grad_(False)


def check_depth(run: Path, shards: Path, facts: dict[str, Any]) -> None:
    """Raise `ValueError` where shards are of another depth than those that the run, of such facts, was trained on."""
    depth = remote.load(shards).depth
    if depth != facts["depth"]:
        raise ValueError(
            f"{run} was trained on {facts['depth']}-bit images, and {shards} holds {depth}-bit ones; "
            f"make shards with: medsass shard --depth {facts['depth']}"
        )


def cached(batches: Batches) -> Batches:
    """The same batches in memory, or as they were where they hold more than 1 GiB: then each pass computes them anew."""
    held: list[Pair] = []
    size = 0
    for pair in batches:
        size += sum(tensor.nbytes for tensor in pair)
        if size <= _MOST_BYTES:
            held.append(pair)
    return held if size <= _MOST_BYTES else batches


def fit(head: nn.Module, training: Training, report: Callable[[dict[str, Any]], None]) -> list[dict[str, Any]]:
    """Train `head` and leave it with the weights of the epoch of the lowest validation loss; returns a line an epoch:
    epoch, train_loss and val_loss, means over images. `report` is called with each.

    Raises `FloatingPointError` where the loss is no longer a finite number.
    """
    regime, steps = training.regime, training.epochs * len(training.train)
    device = next(head.parameters()).device.type
    optimizer = optim.build(head.parameters(), regime, device)
    numbers = itertools.count()

    def step(loss: torch.Tensor) -> None:
        optim.set_rate(optimizer, regime, next(numbers), steps)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    history: list[dict[str, Any]] = []
    best, state = 0, head.state_dict()
    while len(history) < training.epochs and not 0 < regime.patience <= len(history) - best:
        line: dict[str, Any] = {"epoch": len(history) + 1}
        line["train_loss"] = _pass(head, training.train, training.loss, step)
        if not math.isfinite(line["train_loss"]):
            raise FloatingPointError(
                f"the head's training loss is {line['train_loss']}: the learning rate {regime.lr:g} is too high, or the "
                "encoder's features are not finite"
            )
        with torch.no_grad():
            line["val_loss"] = _pass(head, training.val, training.loss, lambda _: None)
        history.append(line)
        report(line)
        if best_epoch(history) != best:
            best, state = line["epoch"], copy.deepcopy(head.state_dict())
    head.load_state_dict(state)
    return history


def best_epoch(history: list[dict[str, Any]]) -> int:
    """The epoch, counted from 1, whose weights `fit` keeps: the first with the lowest validation loss."""
    return int(min(history, key=lambda line: float(line["val_loss"]))["epoch"])


def _pass(head: nn.Module, batches: Batches, loss: Loss, step: Callable[[torch.Tensor], None]) -> float:
    """Mean over images of the loss; `step` is called with each batch's."""
    means = metrics.Means()
    for features, target in batches:
        value = loss(head(features), target)
        step(value)
        means.add({"loss": value.detach()}, len(target))
    return means.values("")["loss"]
