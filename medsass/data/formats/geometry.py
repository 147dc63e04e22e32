"""Boxes and tiles of large images, orientation tags, the composition of channels.

Tiles cover an image entirely and hold only its own pixels: the last row and column are moved back to end at its edge,
where they overlap their neighbours. An image smaller than a tile is one tile of its own size.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from medsass.data.formats.damage import DamagedError

ORIENTATION = 274  # the tag of EXIF and TIFF 6.0

_TURNS = {  # value of the tag -> rows run upwards, columns run leftwards, then rows and columns are swapped
    2: (False, True, False),
    3: (True, True, False),
    4: (True, False, False),
    5: (False, False, True),
    6: (True, False, True),
    7: (True, True, True),
    8: (False, True, True),
}
_UPRIGHT = (False, False, False)


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
    """Return the first pixels of the tiles along an axis of `length` pixels: every `stride`, the last at the edge."""
    last = max(0, length - tile)
    return [*range(0, last, stride), last]


def grid(height: int, width: int, tile: int, stride: int) -> Iterator[Box]:
    """Yield tiles of (tile, tile) pixels that cover an image of (height, width), row by row."""
    rows, columns = starts(height, tile, stride), starts(width, tile, stride)
    return (Box(y, x, min(tile, height), min(tile, width)) for y in rows for x in columns)


def foreground(small: NDArray[np.uint8], polarity: str) -> NDArray[np.uint8]:
    """Find tissue or objects in a reduced gray image by Otsu's threshold.

    Args:
        small: (h, w) uint8.
        polarity: "bright", "dark", or "auto": the class that holds less of the image's border.

    Returns:
        (h, w) uint8 in {0, 1}; all 0 for a constant image.
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
    """Return the share of foreground in `box` of an image of (height, width), by its reduced mask (h, w) in {0, 1}."""
    rows, columns = mask.shape[0] / height, mask.shape[1] / width
    top, left = int(box.y * rows), int(box.x * columns)
    bottom, right = round((box.y + box.height) * rows), round((box.x + box.width) * columns)
    return float(mask[top : max(bottom, top + 1), left : max(right, left + 1)].mean())


def known_orientation(value: object) -> int:
    """Return the value of the orientation tag, or 1 (upright) where it is none of 2 to 8."""
    value = value[0] if isinstance(value, bytes) and value else value  # of the type BYTE
    return value if isinstance(value, int) and value in _TURNS else 1


def swaps_axes(orientation: int) -> bool:
    """Return whether height and width of the file are width and height of the upright image."""
    return _TURNS.get(orientation, _UPRIGHT)[2]


def upright(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return an upright view of (H, W, ...) pixels as the file stores them."""
    up, left, swap = _TURNS.get(orientation, _UPRIGHT)
    array = array[:: -1 if up else 1, :: -1 if left else 1]
    return array.swapaxes(0, 1) if swap else array


def stored_box(box: Box, orientation: int, height: int, width: int) -> Box:
    """Return where the pixels of `box`, a box of the upright image, are in the file's image of (height, width)."""
    up, left, swap = _TURNS.get(orientation, _UPRIGHT)
    y, x, rows, columns = (box.x, box.y, box.width, box.height) if swap else (box.y, box.x, box.height, box.width)
    return Box(height - y - rows if up else y, width - x - columns if left else x, rows, columns)


def shows_alpha(parts: Iterable[NDArray[Any]]) -> bool:
    """Return whether a mask with alpha is in its alpha channel: where its gray or colours are all alike, and alpha is not.

    Args:
        parts: the mask, (h, w, 2) or (h, w, 4), or parts that cover it.

    Raises:
        ValueError: where pixels that alpha hides differ from the ground, so that the two say different things, and for no
            pixels.
    """
    lows, highs, darkest, hidden = [], [], [], []
    for part in parts:
        if not part.size:
            raise DamagedError(f"damaged: a mask of {part.shape[1]}x{part.shape[0]} pixels")
        brightest = part[..., :-1].max(axis=2)
        unseen = brightest[part[..., -1] == 0]
        lows.append(part.min(axis=(0, 1)))
        highs.append(part.max(axis=(0, 1)))
        darkest.append(brightest.min())
        hidden += [unseen.max()] if unseen.size else []
    low, high = np.min(lows, axis=0), np.max(highs, axis=0)
    if (low[:-1] == high[:-1]).all():
        return bool(low[-1] != high[-1] or not high[-1])
    if low[-1] != high[-1] and hidden and max(hidden) > min(darkest):
        raise ValueError("its colours and its alpha channel say different things; save the mask without alpha")
    return False


def without_alpha(array: NDArray[Any], by_alpha: bool | None = None) -> NDArray[Any]:
    """Return what a mask (h, w, 2) or (h, w, 4) with alpha shows: its gray (h, w) or colours (h, w, 3), or its alpha in their
    place.

    by_alpha: what `shows_alpha` says of the whole mask, where `array` is a part of it.
    """
    shown = shows_alpha([array]) if by_alpha is None else by_alpha
    count = array.shape[2] - 1
    found = np.repeat(array[..., -1:], count, axis=2) if shown else array[..., :-1]
    return found if count == 3 else found[..., 0]


def cut(axis: str, stack: int, y: int, x: int) -> tuple[int, int, int]:
    """Return which axes of a stored stack count its slices, their rows and their columns, cut along "z", "y" or "x".

    stack, y, x: the axes of the array that count the stored images, their rows and their columns.
    """
    cuts = {"z": (stack, y, x), "y": (y, stack, x), "x": (x, stack, y)}
    if (axis or "z") not in cuts:
        raise ValueError(f"axis must be z, y or x; got '{axis}'")
    return cuts[axis or "z"]


def compose(channels: tuple[int, ...], plane: Callable[[int], NDArray[Any]]) -> NDArray[Any]:
    """Return the image (h, w) of one channel or (h, w, 3) of three, where `plane(i)` gives channel i, -1 is black."""
    planes = {item: plane(item) for item in set(channels) if item >= 0}
    black = np.zeros_like(next(iter(planes.values())))
    return planes[channels[0]] if len(channels) == 1 else np.stack([planes.get(item, black) for item in channels], -1)


def reduced(array: NDArray[Any], start: int, length: int, size: int) -> tuple[NDArray[np.float64], int]:
    """Return what rows (n, ...) from row `start` of an image of `length` rows add to those of the image reduced to
    `size` rows by area averages (m, ...), and the first of these.
    """
    step = length / size
    first, last = int(start / step), min(int((start + len(array)) / step) + 1, size)
    ends = np.clip(np.arange(first, last + 1) * step - start, 0, len(array))
    whole = ends.astype(np.intp)
    sums = np.zeros((len(array) + 1, *array.shape[1:]))
    for i, row in enumerate(array):  # fifteen times as fast as numpy.cumsum along the first axis
        np.add(sums[i], row, out=sums[i + 1])
    shares = (ends - whole).reshape(-1, *[1] * (array.ndim - 1))
    return np.diff(sums[whole] + shares * array[np.minimum(whole, len(array) - 1)], axis=0) / step, first
