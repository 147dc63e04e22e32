"""Opening and closing of masks with a disk. What lies outside of the image takes no part, as in OpenCV's morphology.

On the CPU OpenCV does it; elsewhere windows of each row are summed by differences of a running sum, one for each row of
the disk. The results are equal.
"""

import math
from collections.abc import Callable

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F


def opened(mask: torch.Tensor, radius: int) -> torch.Tensor:
    """(N, H, W) uint8: erosion, then dilation. What is narrower than the disk goes; an image that would keep nothing
    stays as it is.
    """
    result = dilated(eroded(mask, radius), radius)
    return torch.where(result.amax((1, 2), keepdim=True) > 0, result, mask)


def closed(mask: torch.Tensor, radius: int) -> torch.Tensor:
    """(N, H, W) uint8: dilation, then erosion. Gaps narrower than the disk close."""
    return eroded(dilated(mask, radius), radius)


def eroded(mask: torch.Tensor, radius: int) -> torch.Tensor:
    """(N, H, W) uint8 in {0, 1}: pixels around which the disk holds foreground alone, as far as the image goes."""
    return 1 - dilated(1 - mask, radius)


def dilated(mask: torch.Tensor, radius: int) -> torch.Tensor:
    """(N, H, W) uint8 in {0, 1}: pixels around which the disk holds foreground."""
    return _DILATED.get(mask.device.type, by_rows)(mask, radius)


def widths(radius: int) -> list[int]:
    """Half the width of each row of the disk dx^2 + dy^2 <= radius^2, its middle left out, from top to bottom."""
    return [math.isqrt(radius**2 - y**2) for y in range(-radius, radius + 1)]


def disk(radius: int) -> NDArray[np.uint8]:
    """(2 radius + 1, 2 radius + 1) uint8 in {0, 1}."""
    offsets = np.arange(-radius, radius + 1)
    return (offsets**2 + offsets[:, None] ** 2 <= radius**2).astype(np.uint8)


def by_rows(mask: torch.Tensor, radius: int) -> torch.Tensor:
    """`dilated` in operators of torch."""
    height, width = mask.shape[1:]
    padded = F.pad(mask, (radius,) * 4)
    sums = F.pad(padded.cumsum(2, dtype=torch.int32), (1, 0))
    result = torch.zeros_like(mask, dtype=torch.bool)
    for row, half in enumerate(widths(radius)):
        rows = sums[:, row : row + height]
        right, left = radius + half + 1, radius - half
        result |= rows[:, :, right : right + width] > rows[:, :, left : left + width]
    return result.byte()


def _by_opencv(mask: torch.Tensor, radius: int) -> torch.Tensor:
    element = disk(radius)
    return torch.from_numpy(np.stack([cv2.dilate(image, element) for image in mask.numpy()]))


_DILATED: dict[str, Callable[[torch.Tensor, int], torch.Tensor]] = {"cpu": _by_opencv}
