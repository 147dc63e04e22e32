"""Whole components of a mask: clear those at the border, fill holes, remove small ones, keep the largest.

Foreground is 8-connected and background 4-connected, so that a closed line one pixel wide separates. Sums over components
are integers that are scattered to each component's key and gathered from there, without a synchronisation with the host.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from medsass.labels.components import components, numbered

GUARD = 16  # clearing the border must leave at least 1/GUARD of the foreground


@dataclass(frozen=True)
class Regions:
    """The components of a batch of masks of P pixels, each known by a key below K.

    Attributes:
        keys: (N, P) int64, the key of each pixel's component.
        areas: (N, K) int64, pixels of each component; 0 for a key without one.
        firsts: (N or 1, K) int64, the first pixel of each component.
        ground: the key of the pixels that belong to no component.
    """

    keys: torch.Tensor
    areas: torch.Tensor
    firsts: torch.Tensor
    ground: int

    def any(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return (N, K) bool: whether one of a component's pixels is set in `pixels` (N, H, W)."""
        keys = torch.where(pixels.flatten(1) > 0, self.keys, self.ground)
        return torch.zeros_like(self.areas, dtype=torch.bool).scatter_(1, keys, True)

    def ranks(self) -> torch.Tensor:
        """Return (N, K) int64, different for each component: higher the larger, and of equals the earlier."""
        return self.areas * self.keys.shape[1] - self.firsts

    def chosen(self, keep: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """Return a mask (N, H, W) uint8 of the components whose flag in `keep` (N, K) is set."""
        return (keep & (self.areas > 0)).gather(1, self.keys).view(shape).byte()


def regions(mask: torch.Tensor, connectivity: int) -> Regions:
    """Find the components of a mask (N, H, W) uint8. On the CPU keys are OpenCV's numbers, of which there are few."""
    if mask.device.type != "cpu":
        return by_index(mask, connectivity)
    found = [numbered(image, connectivity) for image in mask.numpy()]
    count = max(len(first) for _, first in found)
    areas = np.stack([np.bincount(labels.ravel(), minlength=count) for labels, _ in found])
    areas[:, 0] = 0
    firsts = np.stack([np.pad(first, (0, count - len(first))) for _, first in found])
    keys = np.stack([labels.ravel() for labels, _ in found])
    return Regions(torch.from_numpy(keys).long(), torch.from_numpy(areas).long(), torch.from_numpy(firsts).long(), 0)


def by_index(mask: torch.Tensor, connectivity: int) -> Regions:
    """Use pixel indices as keys, so that the number of components need not be known."""
    found = components(mask, connectivity).flatten(1).long()
    pixels = found.shape[1]
    keys = torch.where(found < 0, pixels, found)
    areas = found.new_zeros((len(found), pixels + 1)).scatter_add_(1, keys, (found >= 0).long())
    return Regions(keys, areas, torch.arange(pixels + 1, device=mask.device)[None], pixels)


def edge(outside: torch.Tensor) -> torch.Tensor:
    """Mark pixels, (N, H, W) uint8, with a neighbour (of eight) beyond the image or set in `outside` (N, H, W)."""
    padded = F.pad(outside, (1, 1, 1, 1), value=1)
    across = padded[:, :, :-2] | padded[:, :, 1:-1] | padded[:, :, 2:]
    return across[:, :-2] | across[:, 1:-1] | across[:, 2:]


def clear_border(mask: torch.Tensor, outside: torch.Tensor) -> torch.Tensor:
    """Remove components that touch the image's border, or that of the field of view, beyond which `outside` is set.

    The mask of an image that would keep less than 1/GUARD of its foreground stays unchanged.
    """
    found = regions(mask, 8)
    cleared = found.chosen(~found.any(edge(outside)), mask.shape)
    enough = cleared.sum((1, 2)) * GUARD >= mask.sum((1, 2))
    return torch.where(enough[:, None, None], cleared, mask)


def fill_holes(mask: torch.Tensor) -> torch.Tensor:
    """Fill the components of the background that do not touch the image's border."""
    found = regions(1 - mask, 4)
    return mask | found.chosen(~found.any(edge(torch.zeros_like(mask))), mask.shape)


def remove_small(mask: torch.Tensor, share: float) -> torch.Tensor:
    """Remove components of less than `share` of the image's pixels, but never the largest one."""
    found = regions(mask, 8)
    ranks, least = found.ranks(), math.ceil(share * mask[0].numel())
    return found.chosen((found.areas >= least) | (ranks == ranks.amax(1, keepdim=True)), mask.shape)


def keep_largest(mask: torch.Tensor, count: int) -> torch.Tensor:
    """Keep only the `count` largest components; of equal ones the first in scan order."""
    found = regions(mask, 8)
    ranks = found.ranks()
    last = ranks.topk(min(count, ranks.shape[1]), dim=1).values[:, -1:]
    return found.chosen(ranks >= last, mask.shape)
