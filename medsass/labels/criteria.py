"""Plausibility of masks without ground truth: one number an image, (N,) float32 in [0, 1], higher is better.

Args of every criterion:
    gray: (N, H, W) float32 gray levels.
    mask: (N, H, W) uint8 in {0, 1}. A mask of a single class says nothing about an image and scores 0, except by `frame`.
"""

import math
from collections.abc import Callable

import torch
from torch.nn import functional as F

from medsass.labels.regions import regions

# The foreground's share of the image: implausible below, plausible from, plausible to, implausible above.
SHARES = (0.002, 0.02, 0.5, 0.8)

Criterion = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def overlap(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the IoU of two batches of masks, 1 where both masks are empty."""
    one, other = a > 0, b > 0
    union = (one | other).sum((1, 2))
    return torch.where(union > 0, (one & other).sum((1, 2)) / union.clamp_min(1), 1.0)


def separation(gray: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return between-class over total variance of the gray levels, the classes being this mask's (Otsu 1979, eta)."""
    y = mask.float()
    share, mean = y.mean((1, 2)), gray.mean((1, 2))
    inside = (gray * y).mean((1, 2))
    between = (mean * share - inside) ** 2 / (share * (1 - share)).clamp_min(1e-9)
    return (between / gray.var((1, 2), correction=0).clamp_min(1e-9)).clamp(0, 1) * _has_both(mask)


def contrast(gray: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return how steep the gray levels are along the mask's outline.

    This is the mean rank of the gradient's length (Sobel) of the outline's pixels among all pixels of the image, as a
    share; equal lengths share their mean rank. An outline drawn at random has 1/2, as a classifier's area under the ROC
    curve (Hanley and McNeil 1982).
    """
    g = F.pad(gray[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    rows, columns = g[:, :-2] + 2 * g[:, 1:-1] + g[:, 2:], g[:, :, :-2] + 2 * g[:, :, 1:-1] + g[:, :, 2:]
    steep = torch.hypot(rows[:, :, 2:] - rows[:, :, :-2], columns[:, 2:] - columns[:, :-2]).flatten(1)
    ordered = steep.sort(1).values
    ranks = (torch.searchsorted(ordered, steep) + torch.searchsorted(ordered, steep, right=True) - 1).float() / 2
    ranks /= steep.shape[1] - 1
    line = outline(mask).flatten(1).float()
    return (ranks * line).sum(1) / line.sum(1).clamp_min(1) * _has_both(mask)


def size(gray: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:  # noqa: ARG001
    """Return how plausible the foreground's share of the image is.

    1 from 2 % to half of the image, falling to 0 at 0.2 % (in the logarithm of the share) and at 80 %.
    """
    least, few, many, most = SHARES
    share = mask.float().mean((1, 2))
    low = (share.clamp_min(1e-9).log() - math.log(least)) / (math.log(few) - math.log(least))
    return torch.minimum(low, (most - share) / (most - many)).clamp(0, 1)


def compactness(gray: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:  # noqa: ARG001
    """Return the components' mean 4 pi A / P^2 (Cox 1927), weighted by area: 1 for a disk, at most 1.

    The perimeter P is pi / 4 times the number of pixel sides that a component shares with the background (the image's
    border is none), which is right on average over directions.
    """
    y = F.pad(mask[:, None].float(), (1, 1, 1, 1), mode="replicate")[:, 0].int()
    around = y[:, :-2, 1:-1] + y[:, 2:, 1:-1] + y[:, 1:-1, :-2] + y[:, 1:-1, 2:]
    sides = (y[:, 1:-1, 1:-1] * (4 - around)).flatten(1).long()
    found = regions(mask, 8)
    perimeter = torch.zeros_like(found.areas).scatter_add_(1, found.keys, sides).float() * (math.pi / 4)
    area = found.areas.float()
    each = (4 * math.pi * area / perimeter.clamp_min(1e-9) ** 2).clamp_max(1)
    return (each * area).sum(1) / area.sum(1).clamp_min(1) * _has_both(mask)


def frame(gray: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:  # noqa: ARG001
    """Return 1, or less by as much as the foreground's share of the image's border exceeds its share of the image.

    What runs along the border is seldom what was photographed.
    """
    y = mask.float()
    border = torch.cat([y[:, 0], y[:, -1], y[:, 1:-1, 0], y[:, 1:-1, -1]], 1).mean(1)
    return 1 - (border - y.mean((1, 2))).clamp_min(0)


CRITERIA: dict[str, Criterion] = {item.__name__: item for item in (separation, contrast, size, compactness, frame)}


def agreement(masks: torch.Tensor) -> torch.Tensor:
    """Return the mean IoU, (C, N) float32, of each of C ways to label N images with the others, by their `masks` (C, N, H, W).

    It is the vote, the simplest relative of STAPLE (Warfield et al. 2004, introduction).
    """
    flat = masks.flatten(2).float().transpose(0, 1)
    both = flat @ flat.transpose(1, 2)
    area = flat.sum(2)
    union = area[:, :, None] + area[:, None, :] - both
    iou = torch.where(union > 0, both / union.clamp_min(1), 1.0)
    return ((iou.sum(2) - iou.diagonal(dim1=1, dim2=2)) / max(1, masks.shape[0] - 1)).T


def outline(mask: torch.Tensor) -> torch.Tensor:
    """Return (N, H, W) bool: the pixels on both sides of the mask's edge; the image's border is no edge."""
    y = F.pad(mask[:, None].float(), (1, 1, 1, 1), mode="replicate")
    return (F.max_pool2d(y, 3, 1) > -F.max_pool2d(-y, 3, 1))[:, 0]


def _has_both(mask: torch.Tensor) -> torch.Tensor:
    """Return (N,) float32: 1 where a mask has both classes, else 0."""
    y = mask.flatten(1)
    return (y.amax(1) > y.amin(1)).float()
