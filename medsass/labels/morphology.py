"""Opening and closing of masks with a disk. Pixels outside of the image take no part, as in OpenCV's morphology.

The CPU uses OpenCV. Elsewhere windows of each row are summed as differences of a running sum, one for each row of the
disk. The results are equal.
"""

import math

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F


def opened(mask: torch.Tensor, radius: int) -> torch.Tensor:
    """Erode, then dilate masks (N, H, W) uint8 in {0, 1}, which removes what is narrower than the disk.

    The mask of an image that would become empty stays unchanged.
    """
    result = dilated(1 - dilated(1 - mask, radius), radius)
    return torch.where(result.amax((1, 2), keepdim=True) > 0, result, mask)


def closed(mask: torch.Tensor, radius: int) -> torch.Tensor:
    """Dilate, then erode masks (N, H, W) uint8 in {0, 1}, which closes gaps narrower than the disk."""
    return 1 - dilated(1 - dilated(mask, radius), radius)


def dilated(mask: torch.Tensor, radius: int) -> torch.Tensor:
    """Mark the pixels, (N, H, W) uint8 in {0, 1}, around which the disk holds foreground."""
    if mask.device.type != "cpu":
        return by_rows(mask, radius)
    element = disk(radius)
    return torch.from_numpy(np.stack([cv2.dilate(image, element) for image in mask.numpy()]))


def disk(radius: int) -> NDArray[np.uint8]:
    """Return the disk dx^2 + dy^2 <= radius^2 as (2 radius + 1, 2 radius + 1) uint8 in {0, 1}."""
    offsets = np.arange(-radius, radius + 1)
    return (offsets**2 + offsets[:, None] ** 2 <= radius**2).astype(np.uint8)


def by_rows(mask: torch.Tensor, radius: int) -> torch.Tensor:
    """Compute `dilated` in operators of torch."""
    height, width = mask.shape[1:]
    padded = F.pad(mask, (radius,) * 4)
    sums = F.pad(padded.cumsum(2, dtype=torch.int32), (1, 0))
    result = torch.zeros_like(mask, dtype=torch.bool)
    for row in range(2 * radius + 1):
        half = math.isqrt(radius**2 - (row - radius) ** 2)  # pixels of the disk's row on either side of its middle
        rows = sums[:, row : row + height]
        right, left = radius + half + 1, radius - half
        result |= rows[:, :, right : right + width] > rows[:, :, left : left + width]
    return result.byte()
