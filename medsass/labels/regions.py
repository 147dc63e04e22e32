"""What is done to whole components of a mask: those at the border, holes, small ones, all but the largest.

Foreground is 8-connected and background 4-connected, so that a closed line one pixel wide separates. Sums over components
are integers that are scattered to a component's first pixel and gathered from there, without a look from the host.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from medsass.labels.components import components, numbered

GUARD = 16  # clearing the border must leave at least one in so many foreground pixels


@dataclass(frozen=True)
class Regions:
    """The components of a batch of masks of P pixels, by keys below K. keys: (N, P) int64, of each pixel's component.
    areas: (N, K) int64, the component's pixels, 0 for what is none. firsts: (N or 1, K) int64, the component's first pixel.
    ground: the key of the pixels that are of none.
    """

    keys: torch.Tensor
    areas: torch.Tensor
    firsts: torch.Tensor
    ground: int

    def any(self, pixels: torch.Tensor) -> torch.Tensor:
        """(N, K) bool: whether one of a component's pixels is among `pixels` (N, H, W)."""
        keys = torch.where(pixels.flatten(1) > 0, self.keys, self.ground)
        return torch.zeros_like(self.areas, dtype=torch.bool).scatter_(1, keys, True)

    def ranks(self) -> torch.Tensor:
        """(N, K) int64, of components all different: the larger, and of equals the earlier, the higher."""
        return self.areas * self.keys.shape[1] - self.firsts

    def chosen(self, keep: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """The pixels of components whose flag of `keep` (N, K) is set, as a mask (N, H, W) uint8."""
        return (keep & (self.areas > 0)).gather(1, self.keys).view(shape).byte()


def regions(mask: torch.Tensor, connectivity: int) -> Regions:
    """The components of a mask (N, H, W) uint8."""
    return _REGIONS.get(mask.device.type, by_index)(mask, connectivity)


def by_index(mask: torch.Tensor, connectivity: int) -> Regions:
    """Keys are indices of pixels: nothing has to be known of how many components there are."""
    found = components(mask, connectivity).flatten(1).long()
    pixels = found.shape[1]
    keys = torch.where(found < 0, pixels, found)
    areas = found.new_zeros((len(found), pixels + 1)).scatter_add_(1, keys, (found >= 0).long())
    return Regions(keys, areas, torch.arange(pixels + 1, device=mask.device)[None], pixels)


def _by_number(mask: torch.Tensor, connectivity: int) -> Regions:
    """Keys are OpenCV's numbers, of which there are few."""
    found = [numbered(image, connectivity) for image in mask.numpy()]
    count = max(len(first) for _, first in found)
    areas = np.stack([np.bincount(labels.ravel(), minlength=count) for labels, _ in found])
    areas[:, 0] = 0
    firsts = np.stack([np.pad(first, (0, count - len(first))) for _, first in found])
    keys = np.stack([labels.ravel() for labels, _ in found])
    return Regions(torch.from_numpy(keys).long(), torch.from_numpy(areas).long(), torch.from_numpy(firsts).long(), 0)


_REGIONS: dict[str, Callable[[torch.Tensor, int], Regions]] = {"cpu": _by_number}


def edge(outside: torch.Tensor) -> torch.Tensor:
    """(N, H, W) uint8: pixels of which one of the eight neighbours is not of the image or is in `outside` (N, H, W)."""
    padded = F.pad(outside, (1, 1, 1, 1), value=1)
    across = padded[:, :, :-2] | padded[:, :, 1:-1] | padded[:, :, 2:]
    return across[:, :-2] | across[:, 1:-1] | across[:, 2:]


def clear_border(mask: torch.Tensor, outside: torch.Tensor) -> torch.Tensor:
    """Without the components that touch the border of the image, or of the field of view where `outside` (N, H, W) marks
    what is not of it. The mask of an image that would keep less than 1/GUARD of its foreground stays as it is.
    """
    found = regions(mask, 8)
    cleared = found.chosen(~found.any(edge(outside)), mask.shape)
    left, before = _count(cleared), _count(mask)
    return torch.where((left * GUARD >= before)[:, None, None], cleared, mask)


def fill_holes(mask: torch.Tensor) -> torch.Tensor:
    """With the components of the ground that do not touch the image's border filled."""
    found = regions(1 - mask, 4)
    return mask | found.chosen(~found.any(edge(torch.zeros_like(mask))), mask.shape)


def remove_small(mask: torch.Tensor, share: float) -> torch.Tensor:
    """Without components of less than `share` of the image's pixels; the largest one always stays."""
    found = regions(mask, 8)
    ranks, least = found.ranks(), math.ceil(share * mask[0].numel())
    return found.chosen((found.areas >= least) | (ranks == ranks.amax(1, keepdim=True)), mask.shape)


def keep_largest(mask: torch.Tensor, count: int) -> torch.Tensor:
    """The `count` largest components alone, of equal ones the first in scan order."""
    found = regions(mask, 8)
    ranks = found.ranks()
    last = ranks.topk(min(count, ranks.shape[1]), dim=1).values[:, -1:]
    return found.chosen(ranks >= last, mask.shape)


def _count(mask: torch.Tensor) -> torch.Tensor:
    return mask.sum((1, 2), dtype=torch.int64)
