"""Losses between (N, 1, H, W) logits and (N, H, W) targets in [0, 1]: one function each, all to a scalar tensor.

The optional third argument, (N, H, W), weights each pixel in sums and means. TP, FP and FN are soft: sums over the whole
batch of p y, p (1 - y) and (1 - p) y, with p = sigmoid(logit). Where several processes share a batch, the sums are over
all of it, so that the loss does not depend on their number.
"""

from collections.abc import Callable

import segmentation_models_pytorch as smp
import torch
from torch.nn import functional as F

from medsass.methods import collective

_FP, _FN = 0.3, 0.7  # alpha and beta of Tversky
_focal = smp.losses.FocalLoss("binary", reduction="none", alpha=0.25, gamma=2.0)

Loss = Callable[..., torch.Tensor]


def tversky(logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
    """Return 1 - TP / (TP + 0.3 FP + 0.7 FN) (Salehi et al. 2017, with the weights of Abraham and Khan 2019).

    0 if the whole batch's target is empty: there is nothing to find, and no gradient.
    """
    p, y = logits.float().sigmoid().squeeze(1), target.float()
    maps = [item if weight is None else item * weight for item in (p * y, p, y)]
    both, found, wanted = collective.total(torch.stack([item.sum() for item in maps]))
    index = both / (both + _FP * (found - both) + _FN * (wanted - both)).clamp_min(1e-7)
    return torch.as_tensor((1 - index) * (wanted > 0))


def focal_tversky(logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
    """Return Tversky ** (1 / gamma) with gamma = 4 / 3 (Abraham and Khan 2019), the paper's loss.

    The power's slope is infinite at 0: the loss does not fall below 1e-6 ** 0.75, where its gradient is 0 and not NaN.
    """
    return tversky(logits, target, weight).clamp_min(1e-6) ** 0.75


def focal(logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
    """Return the mean over pixels of -a (1 - q)^2 ln q, with q the probability of the true class (Lin et al. 2017).

    a = 0.25 for foreground and 0.75 for background.
    """
    loss = torch.as_tensor(_focal(logits.float(), target.float().unsqueeze(1))).view(target.shape)
    return (loss if weight is None else loss * weight).mean()


def cross_entropy(logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
    """Return the mean over pixels of -ln q, with q the probability of the true class."""
    loss = F.binary_cross_entropy_with_logits(logits.float().squeeze(1), target.float(), reduction="none")
    return (loss if weight is None else loss * weight).mean()


LOSSES: dict[str, Loss] = {
    "focal-tversky": focal_tversky,
    "tversky": tversky,
    "focal": focal,
    "cross-entropy": cross_entropy,
}
