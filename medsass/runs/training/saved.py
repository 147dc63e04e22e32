"""The state of a training as a checkpoint holds it: checked before any of it is used, because runs are passed on."""

import math
from collections.abc import Mapping
from typing import Any, NotRequired

import torch
from pydantic import ConfigDict, NonNegativeInt, PositiveInt, with_config
from typing_extensions import TypedDict

from medsass.config import schema
from medsass.models import checkpoint

_TYPED = ConfigDict(strict=True, extra="ignore")
_NUMBERS = ("lr", "weight_decay", "betas", "momentum", "eps")  # of a group of parameters


@with_config(_TYPED)
class _Means(TypedDict):
    images: NonNegativeInt
    totals: dict[str, float]


@with_config(_TYPED)
class _Numbers(TypedDict):
    """All but the tensors."""

    epoch: NonNegativeInt
    done: NonNegativeInt
    steps: PositiveInt
    means: _Means
    history: NotRequired[list[dict[str, float]]]


def problem(saved: Mapping[str, Any], model: Mapping[str, Any], optimizer: torch.optim.Optimizer, scaler: Any) -> str:
    """Return the first reason why a training cannot go on from `saved` (`Trainer.state`, with the history), "" if there is none.

    Args:
        saved: what last.pt holds.
        model: state of the method that would go on; weights must be of its names, shapes and types, and finite.
        optimizer: of that method's parameters.
        scaler: its gradient scaler's state.
    """
    try:
        schema.check_python(_Numbers, saved)
    except ValueError as error:
        return str(error)
    lines, epoch = saved.get("history"), saved["epoch"]
    if lines is not None and (
        [line.get("epoch") for line in lines] != list(range(1, len(lines) + 1)) or len(lines) != epoch
    ):
        return f"it is of {epoch} epochs, and its history of others"
    if any("val_loss" not in line or "seconds" not in line for line in lines or ()):
        return "its history lacks the losses"
    if saved["done"] > saved["steps"]:
        return f"it is at step {saved['done']} of {saved['steps']}"
    return (
        checkpoint.unlike(model, saved.get("model"), "model")
        or checkpoint.unlike(scaler, saved.get("scaler"), "scaler")
        or _optimizer(saved.get("optimizer"), optimizer)
    )


def _optimizer(saved: Any, optimizer: torch.optim.Optimizer) -> str:
    """Return what is wrong with an optimiser's state. Versions of torch differ in what they store beside the numbers."""
    weights = [item for group in optimizer.param_groups for item in group["params"]]
    own = optimizer.state_dict()["param_groups"]
    state, groups = (saved.get(name) if isinstance(saved, dict) else None for name in ("state", "param_groups"))
    if not isinstance(state, dict) or not isinstance(groups, list) or len(groups) != len(own):
        return "its optimiser is of another training"
    for wanted, group in zip(own, groups, strict=True):
        names = [name for name in _NUMBERS if name in wanted]
        if not isinstance(group, dict) or group.get("params") != wanted["params"]:
            return "its optimiser is of other weights"
        if not all(_finite(group.get(name)) for name in names):
            return f"its optimiser's {', '.join(names)} are not finite numbers"
    for number, held in state.items():
        if not isinstance(held, dict) or number not in range(len(weights)):
            return "its optimiser is of other weights"
        for name, value in held.items():
            like = weights[number].detach()
            like = like.float() if isinstance(value, torch.Tensor) and value.shape == like.shape else torch.zeros(())
            if value is not None and (reason := checkpoint.unlike(like, value, f"the optimiser's {name}")):
                return reason
    return ""


def _finite(value: Any) -> bool:
    """Tell whether these are one or more finite numbers."""
    if isinstance(value, torch.Tensor):
        return value.numel() == 1 and math.isfinite(value.item())
    if isinstance(value, (tuple, list)):
        return bool(value) and all(map(_finite, value))
    return isinstance(value, (int, float)) and math.isfinite(value)
