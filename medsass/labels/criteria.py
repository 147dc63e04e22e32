"""How plausible masks look without the truth: of a batch one number an image, (N,) float32 in [0, 1], higher is better.

gray: (N, H, W) float32 gray levels. mask: (N, H, W) uint8 in {0, 1}. A mask that is empty or all over says nothing of an
image: it scores 0 by all of them but `frame`.
"""

import math
from collections.abc import Callable

import torch
from torch.nn import functional as F

from medsass.labels.regions import regions

SHARES = (
    0.002,
    0.02,
    0.5,
    0.8,
)  # foreground's share of the image: implausible below, plausible from, to, implausible above

Criterion = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def overlap(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """IoU of two masks, 1 where both are empty."""
    one, other = a > 0, b > 0
    union = (one | other).sum((1, 2))
    return torch.where(union > 0, (one & other).sum((1, 2)) / union.clamp_min(1), 1.0)


def separation(gray: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Between-class over total variance of the gray levels of foreground and ground (Otsu 1979, eta), of this very mask."""
    y = mask.float()
    share, mean = y.mean((1, 2)), gray.mean((1, 2))
    inside = (gray * y).mean((1, 2))
    between = (mean * share - inside) ** 2 / (share * (1 - share)).clamp_min(1e-9)
    return (between / gray.var((1, 2), correction=0).clamp_min(1e-9)).clamp(0, 1) * _said(mask)


def contrast(gray: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """How steep the gray levels are where the mask ends: the mean rank of the gradient's length (Sobel) of the pixels along
    its outline among all pixels of the image, as a share; equal lengths share their mean rank. 1/2 of an outline drawn at
    random; what the area under the ROC curve is to a classifier (Hanley and McNeil 1982).
    """
    steep = _gradient(gray).flatten(1)
    ordered = steep.sort(1).values
    ranks = (torch.searchsorted(ordered, steep) + torch.searchsorted(ordered, steep, right=True) - 1).float() / 2
    ranks /= steep.shape[1] - 1
    line = outline(mask).flatten(1).float()
    return (ranks * line).sum(1) / line.sum(1).clamp_min(1) * _said(mask)


def size(gray: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:  # noqa: ARG001
    """Whether foreground takes a plausible share of the image: 1 from 2 % to half of it, falling to 0 at 0.2 % (in the
    logarithm of the share) and at 80 %.
    """
    least, few, many, most = SHARES
    share = mask.float().mean((1, 2))
    low = (share.clamp_min(1e-9).log() - math.log(least)) / (math.log(few) - math.log(least))
    return torch.minimum(low, (most - share) / (most - many)).clamp(0, 1)


def compactness(gray: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:  # noqa: ARG001
    """4 pi A / P^2 of each component (Cox 1927), 1 of a disk, at most 1; their mean, weighted by area. The perimeter P is
    pi / 4 times the number of pixel sides between it and the ground, which is right on the average over directions.
    """
    found = regions(mask, 8)
    sides = torch.zeros_like(found.areas).scatter_add_(1, found.keys, _sides(mask).flatten(1).long())
    area, perimeter = found.areas.float(), sides.float() * (math.pi / 4)
    each = (4 * math.pi * area / perimeter.clamp_min(1e-9) ** 2).clamp_max(1)
    return (each * area).sum(1) / area.sum(1).clamp_min(1) * _said(mask)


def frame(gray: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:  # noqa: ARG001
    """1, less by how much more of the image's frame is foreground than of the image: what runs along the frame is seldom
    what was photographed.
    """
    y = mask.float()
    border = torch.cat([y[:, 0], y[:, -1], y[:, 1:-1, 0], y[:, 1:-1, -1]], 1).mean(1)
    return 1 - (border - y.mean((1, 2))).clamp_min(0)


CRITERIA: dict[str, Criterion] = {
    "separation": separation,
    "contrast": contrast,
    "size": size,
    "compactness": compactness,
    "frame": frame,
}


def agreement(masks: torch.Tensor) -> torch.Tensor:
    """(C, N) float32 of C ways to label N images, masks (C, N, H, W): the mean IoU of each with the others, as in the
    simplest of STAPLE's kin, the vote (Warfield et al. 2004, introduction).
    """
    flat = masks.flatten(2).float().transpose(0, 1)
    both = flat @ flat.transpose(1, 2)
    area = flat.sum(2)
    union = area[:, :, None] + area[:, None, :] - both
    iou = torch.where(union > 0, both / union.clamp_min(1), 1.0)
    count = masks.shape[0]
    return ((iou.sum(2) - iou.diagonal(dim1=1, dim2=2)) / max(1, count - 1)).T


def outline(mask: torch.Tensor) -> torch.Tensor:
    """(N, H, W) bool: pixels on both sides of the mask's border, the image's own border apart."""
    y = F.pad(mask[:, None].float(), (1, 1, 1, 1), mode="replicate")
    return (F.max_pool2d(y, 3, 1) > -F.max_pool2d(-y, 3, 1))[:, 0]


def _sides(mask: torch.Tensor) -> torch.Tensor:
    """(N, H, W) int32: of each foreground pixel the sides that it shares with the ground; the image's border is none."""
    y = F.pad(mask[:, None].float(), (1, 1, 1, 1), mode="replicate")[:, 0].int()
    middle = y[:, 1:-1, 1:-1]
    around = y[:, :-2, 1:-1] + y[:, 2:, 1:-1] + y[:, 1:-1, :-2] + y[:, 1:-1, 2:]
    return middle * (4 - around)


def _gradient(gray: torch.Tensor) -> torch.Tensor:
    g = F.pad(gray[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    rows, columns = g[:, :-2] + 2 * g[:, 1:-1] + g[:, 2:], g[:, :, :-2] + 2 * g[:, :, 1:-1] + g[:, :, 2:]
    return torch.hypot(rows[:, :, 2:] - rows[:, :, :-2], columns[:, 2:] - columns[:, :-2])


def _said(mask: torch.Tensor) -> torch.Tensor:
    """1 where a mask has both classes, else 0."""
    y = mask.flatten(1)
    return (y.amax(1) > y.amin(1)).float()
