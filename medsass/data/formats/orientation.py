"""How an image file lies: the orientation tag 274 of EXIF and TIFF 6.0, and what it does to pixels and boxes."""

from typing import Any

from numpy.typing import NDArray

from medsass.data.formats.geometry import Box

TAG = 274

_TURNS = {  # value of the tag -> rows run upwards, columns run leftwards, then rows and columns are swapped
    2: (False, True, False),
    3: (True, True, False),
    4: (True, False, False),
    5: (False, False, True),
    6: (True, False, True),
    7: (True, True, True),
    8: (False, True, True),
}


def known(value: object) -> int:
    """The tag's `value` where it says that the image must be turned, else 1: upright."""
    return value if isinstance(value, int) and value in _TURNS else 1


def swaps(orientation: int) -> bool:
    """True where height and width of the file are width and height of the upright image."""
    return orientation in (5, 6, 7, 8)


def upright(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """(H, W, ...) pixels as the file holds them -> a view of them that stands upright."""
    up, left, swap = _TURNS.get(orientation, (False, False, False))
    array = array[:: -1 if up else 1, :: -1 if left else 1]
    return array.swapaxes(0, 1) if swap else array


def lying(box: Box, orientation: int, height: int, width: int) -> Box:
    """`box` of the upright image -> the same pixels as a box of the file's image of (height, width)."""
    up, left, swap = _TURNS.get(orientation, (False, False, False))
    y, x, rows, columns = (box.x, box.y, box.width, box.height) if swap else (box.y, box.x, box.height, box.width)
    return Box(height - y - rows if up else y, width - x - columns if left else x, rows, columns)
