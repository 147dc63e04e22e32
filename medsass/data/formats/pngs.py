"""The commonest PNG: 8 bits, gray, RGB or RGBA, not interlaced, upright. Read by libpng through imagecodecs.

It is as strict as Pillow (truncated data and wrong checksums are refused), half again as fast, and opening one costs next
to nothing, which counts for datasets with a mask file for each of an image's cells.
"""

import struct
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from medsass.data.formats.geometry import Box
from medsass.data.formats.image import ImageFile, Selection

_MAGIC = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 6: 4}  # colour type -> channels
_ELSEWHERE = (b"tRNS", b"acTL", b"eXIf", b"exif", b"xmp")  # transparency, animation, orientation: `photos` knows them


class Png(ImageFile):
    """The image in `data`, the bytes of a file for which `plain` gave (height, width, channels)."""

    def __init__(self, data: bytes, view: Selection, height: int, width: int, channels: int) -> None:
        super().__init__(height, width, channels > 1, np.dtype(np.uint8), view)
        self.converted = "alpha dropped" if channels == 4 else ""
        self.data = data

    def _decode(self, _frame: int, _box: Box, _level: int) -> NDArray[Any]:
        try:
            array = np.asarray(imagecodecs.png_decode(self.data))
        except RuntimeError as error:
            cut = "too small" in str(error)
            raise ValueError("truncated PNG file" if cut else f"broken PNG file: {error}") from error
        return array[..., :3] if array.ndim == 3 else array


def plain(data: bytes) -> tuple[int, int, int] | None:
    """(height, width, channels) where these bytes are such a PNG file by its header, else None."""
    if not data.startswith(_MAGIC) or data[12:16] != b"IHDR" or len(data) < 33:
        return None
    width, height, depth, kind, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    if depth != 8 or kind not in _CHANNELS or interlaced or any(name in data for name in _ELSEWHERE):
        return None
    return height, width, _CHANNELS[kind]
