"""Large images in pieces: where the tiles are, and how much of each is foreground.

Tiles cover an image entirely and hold none but its own pixels: the last row and column are moved back to end at its
edge, where they overlap their neighbours. An image smaller than a tile is one tile of its own size.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Box:
    """A rectangle of an image in pixels: its first row `y` and column `x`, its `height` and `width`."""

    y: int
    x: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns of the box, to index an array with."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)


def starts(length: int, tile: int, stride: int) -> list[int]:
    """First pixels of the tiles along one axis of `length` pixels: every `stride`, the last moved back to the edge."""
    last = max(0, length - tile)
    return [*range(0, last, stride), last]


def grid(height: int, width: int, tile: int, stride: int) -> Iterator[Box]:
    """Tiles of (tile, tile) pixels that cover an image of (height, width), row by row."""
    rows, columns = starts(height, tile, stride), starts(width, tile, stride)
    return (Box(y, x, min(tile, height), min(tile, width)) for y in rows for x in columns)


def foreground(small: NDArray[np.uint8], polarity: str) -> NDArray[np.uint8]:
    """(h, w) uint8 in {0, 1}: tissue or objects of a reduced gray image (h, w) uint8, by Otsu's threshold.

    `polarity`: "bright", "dark", or "auto": the class that holds less of the image's border. A constant image has none.
    """
    level, _ = cv2.threshold(small, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    above = small > level
    if small.min() == small.max():
        return np.zeros_like(small)
    if polarity == "auto":
        inside = np.zeros(small.shape, bool)
        inside[1:-1, 1:-1] = True
        border = above[~inside]
        polarity = "dark" if 2 * int(border.sum()) > border.size else "bright"
    return (above if polarity == "bright" else ~above).astype(np.uint8)


def share(mask: NDArray[np.uint8], box: Box, height: int, width: int) -> float:
    """Share of foreground in `box` of an image of (height, width), seen in its reduced mask (h, w) in {0, 1}."""
    rows, columns = mask.shape[0] / height, mask.shape[1] / width
    top, left = int(box.y * rows), int(box.x * columns)
    bottom, right = round((box.y + box.height) * rows), round((box.x + box.width) * columns)
    return float(mask[top : max(bottom, top + 1), left : max(right, left + 1)].mean())
