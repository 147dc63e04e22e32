"""Optimisers by name, and their schedules of learning rate and weight decay."""

import importlib
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from medsass.methods.method import Regime


def build(parameters: Iterable[nn.Parameter], regime: Regime, device: str) -> torch.optim.Optimizer:
    """Build the regime's optimiser, "adamw", "sgd" or "lars", for the parameters that require gradients.

    They are grouped by whether they are decayed, and whether they have a true attribute `constant`: then their learning
    rate is at its peak from the first step to the last.
    """
    groups: dict[tuple[bool, bool], dict[str, Any]] = {}
    for item in parameters:
        if item.requires_grad:
            decayed, fixed = regime.decay_norms or item.ndim > 1, getattr(item, "constant", False)
            weight_decay = regime.weight_decay if decayed else 0.0
            new: dict[str, Any] = {"params": [], "weight_decay": weight_decay, "constant": fixed}
            groups.setdefault((decayed, fixed), new)["params"].append(item)
    chosen, on_gpu = list(groups.values()), device == "cuda"
    if regime.optimizer == "sgd":
        return torch.optim.SGD(chosen, lr=regime.lr, momentum=regime.momentum, fused=on_gpu)
    if regime.optimizer == "lars":
        lars = importlib.import_module("lightly.utils.lars")  # there, because BYOL's heads are lightly's too
        optimizer: torch.optim.Optimizer = lars.LARS(chosen, lr=regime.lr, momentum=regime.momentum)
        return optimizer
    adamw = torch.optim.AdamW(chosen, lr=regime.lr, betas=regime.betas, fused=on_gpu, capturable=on_gpu)
    adamw._warned_capturable_if_run_uncaptured = True  # or torch warns at each first step
    return adamw


def set_rate(optimizer: torch.optim.Optimizer, regime: Regime, step: int, steps: int) -> float:
    """Set the learning rate of step `step`, counted from 0, of `steps`, and return it.

    It rises linearly from near 0 to its peak over the share `regime.warmup` of the steps, then falls by half a cosine to 0
    (Loshchilov and Hutter 2017, without restarts). On a GPU that of AdamW is a tensor on the device, which a recorded step
    reads at each replay; filling it does not wait.
    """
    rise = round(steps * regime.warmup)
    factor = (step + 1) / (rise + 1) if step < rise else cosine((step - rise) / max(1, steps - rise))
    rate = regime.lr * factor
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
    """Set the weight decay at `progress` in [0, 1], if the regime changes it (Caron et al. 2021, section 3.2)."""
    if regime.final_weight_decay is None:
        return
    value = regime.final_weight_decay + (regime.weight_decay - regime.final_weight_decay) * cosine(progress)
    for group in optimizer.param_groups:
        if group["weight_decay"]:
            group["weight_decay"] = value


def clip(parameters: Iterable[nn.Parameter], regime: Regime) -> None:
    """Scale each parameter's gradient to a norm of at most `regime.clip` (separately, as DINO's code does)."""
    if regime.clip:
        for item in parameters:
            if item.grad is not None:
                nn.utils.clip_grad_norm_(item, regime.clip)


def cosine(progress: float) -> float:
    """Return half a cosine, from 1 at progress 0 to 0 at progress 1."""
    return 0.5 * (1 + math.cos(math.pi * progress))
