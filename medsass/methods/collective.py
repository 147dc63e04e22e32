"""Sums over the processes of a training, for losses over the whole batch. With one process they do nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import distributed

_alone = ContextVar("alone", default=False)


@contextmanager
def apart() -> Iterator[None]:
    """Compute on this process alone while the block runs, where the others do not take part."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def total(values: torch.Tensor) -> torch.Tensor:
    """Return the sum of `values` over all processes; gradients flow back to each of them."""
    if not _several():
        return values
    result: torch.Tensor = _Total.apply(values)
    return result


def mean(values: torch.Tensor) -> torch.Tensor:
    """Return the mean of `values` over all processes, without gradients."""
    return total(values.detach()) / distributed.get_world_size() if _several() else values


class _Total(torch.autograd.Function):
    """A sum over processes. The gradient of each summand is the sum of the gradients of all sums."""

    @staticmethod
    def forward(_ctx: Any, values: torch.Tensor) -> torch.Tensor:
        values = values.clone()
        distributed.all_reduce(values)
        return values

    @staticmethod
    def backward(_ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return total(gradient)


def _several() -> bool:
    if _alone.get():
        return False
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
