"""Optimisers by name, and what changes of them from step to step."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from medsass.methods.lightly import import_lightly
from medsass.methods.method import Regime


def _adamw(groups: list[dict[str, Any]], regime: Regime, device: str) -> torch.optim.Optimizer:
    on_gpu = device == "cuda"
    made = torch.optim.AdamW(groups, lr=regime.lr, betas=regime.betas, fused=on_gpu, capturable=on_gpu)
    made._warned_capturable_if_run_uncaptured = True  # it would, at each first step
    return made


def _sgd(groups: list[dict[str, Any]], regime: Regime, device: str) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=regime.lr, momentum=regime.momentum, fused=device == "cuda")


def _lars(groups: list[dict[str, Any]], regime: Regime, device: str) -> torch.optim.Optimizer:  # noqa: ARG001
    optimizer: torch.optim.Optimizer = import_lightly("utils.lars").LARS(groups, lr=regime.lr, momentum=regime.momentum)
    return optimizer


OPTIMIZERS: dict[str, Callable[[list[dict[str, Any]], Regime, str], torch.optim.Optimizer]] = {
    "adamw": _adamw,
    "sgd": _sgd,
    "lars": _lars,
}


def constant(module: nn.Module) -> nn.Module:
    """Mark the module's parameters: their learning rate stays at its peak from the first step to the last."""
    for item in module.parameters():
        item.constant = True  # type: ignore[attr-defined]
    return module


def build(parameters: Iterable[nn.Parameter], regime: Regime, device: str) -> torch.optim.Optimizer:
    """The regime's optimiser of the parameters that require gradients, grouped by whether they are decayed and whether
    their learning rate is `constant`.
    """
    groups: dict[tuple[bool, bool], dict[str, Any]] = {}
    for item in parameters:
        if item.requires_grad:
            decayed, fixed = regime.decay_norms or item.ndim > 1, getattr(item, "constant", False)
            weight_decay = regime.weight_decay if decayed else 0.0
            new: dict[str, Any] = {"params": [], "weight_decay": weight_decay, "constant": fixed}
            groups.setdefault((decayed, fixed), new)["params"].append(item)
    return OPTIMIZERS[regime.optimizer](list(groups.values()), regime, device)


def set_rate(optimizer: torch.optim.Optimizer, regime: Regime, step: int, steps: int) -> float:
    """Set the learning rate of step `step`, counted from 0, of `steps`, and return it: a warm-up and half a cosine.

    AdamW's is a number in the GPU's memory there, which a recorded step reads anew; it is filled without waiting.
    """
    rate = regime.lr * warmup_cosine(steps, regime.warmup)(step)
    for group in optimizer.param_groups:
        value = regime.lr if group["constant"] else rate
        device = group["params"][0].device
        if not (device.type == "cuda" and group.get("capturable")):
            group["lr"] = value
        elif isinstance(group["lr"], torch.Tensor) and group["lr"].device == device:
            group["lr"].fill_(value)
        else:
            group["lr"] = torch.full((), value, device=device)
    return rate


def decay(optimizer: torch.optim.Optimizer, regime: Regime, progress: float) -> None:
    """Set the weight decay at `progress` in [0, 1], where the regime changes it (Caron et al. 2021, section 3.2)."""
    if regime.final_weight_decay is None:
        return
    value = regime.final_weight_decay + (regime.weight_decay - regime.final_weight_decay) * cosine(progress)
    for group in optimizer.param_groups:
        if group["weight_decay"]:
            group["weight_decay"] = value


def clip(parameters: Iterable[nn.Parameter], regime: Regime) -> None:
    """Scale each parameter's gradient so that its norm is at most `regime.clip` (each by itself, as DINO's code does)."""
    if regime.clip:
        for item in parameters:
            if item.grad is not None:
                nn.utils.clip_grad_norm_(item, regime.clip)


def cosine(progress: float) -> float:
    """Half a cosine from 1 at progress 0 to 0 at progress 1."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def warmup_cosine(steps: int, warmup: float) -> Callable[[int], float]:
    """Factor of the learning rate at each step: linear from near 0 to 1 over the first share `warmup` of `steps`, then
    half a cosine down to 0 (Loshchilov and Hutter 2017, without restarts).
    """
    rise = round(steps * warmup)

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / (rise + 1)
        return cosine((step - rise) / max(1, steps - rise))

    return factor
