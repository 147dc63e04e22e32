"""Losses between (N, 1, H, W) logits and (N, H, W) targets in {0, 1}: a function each, all to a scalar tensor.

TP, FP and FN are soft: sums over the whole batch of p y, p (1 - y) and (1 - p) y, with p = sigmoid(logit).
"""

from collections.abc import Callable

import segmentation_models_pytorch as smp
import torch
from torch.nn import functional as F

_tversky = smp.losses.TverskyLoss("binary", alpha=0.3, beta=0.7)  # smp: alpha weighs FP, beta FN
_focal = smp.losses.FocalLoss("binary", alpha=0.25, gamma=2.0)

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def tversky(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """1 - TP / (TP + 0.3 FP + 0.7 FN) (Salehi et al. 2017, with the weights of Abraham and Khan 2019).

    0 where the whole batch's target is empty: there is nothing to find, and no gradient.
    """
    return torch.as_tensor(_tversky(logits.float(), target.float().unsqueeze(1)))


def focal_tversky(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Tversky ** (1 / gamma) with gamma = 4 / 3 (Abraham and Khan 2019), the paper's loss.

    The power's slope is infinite at 0: below 1e-6 the loss is held there, with gradient 0 in place of NaN.
    """
    return tversky(logits, target).clamp_min(1e-6) ** 0.75


def focal(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean over pixels of -a (1 - q)^2 ln q, q the probability given to the true class, a = 0.25 for foreground and
    0.75 for background (Lin et al. 2017).
    """
    return torch.as_tensor(_focal(logits.float(), target.float().unsqueeze(1)))


def cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean over pixels of -ln q, q the probability given to the true class."""
    return F.binary_cross_entropy_with_logits(logits.float(), target.float().unsqueeze(1))


LOSSES: dict[str, Loss] = {
    "focal-tversky": focal_tversky,
    "tversky": tversky,
    "focal": focal,
    "cross-entropy": cross_entropy,
}
