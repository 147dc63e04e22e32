"""Plain PNG, JPEG and JPEG 2000 files (8 bits, upright, usual colours), told by their headers, which a shard can keep unchanged.

A dataset is often nothing but these. So their headers are read here without Pillow, and plain PNG is decoded by libpng through
imagecodecs: as strict as Pillow (truncated data and wrong checksums are refused), half again as fast, and opening one costs
next to nothing, which counts for datasets with a mask file for each of an image's cells. Flat pictures, such as masks, are
inflated and unfiltered here where their filters are simple: in a third of libpng's time.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from medsass.data.formats.damage import DamagedError, readable
from medsass.data.formats.geometry import Box
from medsass.data.formats.image import ImageFile, Selection
from medsass.data.formats.kinds import JPEG_MAGIC, PNG_MAGIC
from medsass.data.formats.photos import integrity, jpeg

EXIF = (b"eXIf", b"exif", b"xmp")  # without any of these a PNG says nothing of its orientation

CHANNELS = {0: 1, 2: 3, 6: 4}  # colour type of a plain PNG -> channels
COLOUR = 25  # byte of a PNG that holds its colour type
_FLAT = 16  # pixels for a byte of the file, from which on a picture is flat, as masks are
_SUB, _UP = 1, 2  # filters
_RARE = (b"tRNS", b"acTL", *EXIF)  # transparency, animation, orientation: left to Pillow
_EXIF, _ADOBE, _SEVERAL = 0xE1, 0xEE, 0xE2  # JPEG segments in which an orientation, other colours or images may be
_CODESTREAM = b"\xff\x4f\xff\x51"  # the first two markers of JPEG 2000, SOC and SIZ
_COLOURS: dict[int, set[int | None]] = {1: {17}, 3: {16, None}}  # by the number of components: gray; sRGB, or none
_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive JPEG frames, Huffman-coded


class Png(ImageFile):
    """A plain PNG in `data`, the bytes of a file for which `plain_png` gave (height, width, channels)."""

    def __init__(self, data: bytes, view: Selection, height: int, width: int, channels: int) -> None:
        super().__init__(height, width, channels > 1, np.dtype(np.uint8), view, samples=channels)
        self.converted = "alpha dropped" if channels == 4 else ""
        self.data, self._channels = data, channels
        self.sure: bool | None = None  # what `integrity.check_png` returns, where it is known

    def _decode(self, _frame: int, _box: Box, _level: int) -> NDArray[Any]:
        flat = len(self.data) * _FLAT < self.height * self.width
        array = self._by_rows() if flat else None
        if array is None:
            array = self._by_libpng()
        return array[..., :3] if array.shape[2:] == (4,) else array

    def _by_rows(self) -> NDArray[np.uint8] | None:
        """Decode and check the picture, if it is whole and no row has a filter that needs its neighbours one by one."""
        try:
            inflated, self.sure = integrity.inflate_png(self.data)
        except ValueError:  # libpng says what is wrong, and forgives more
            return None
        rows = np.frombuffer(inflated, np.uint8).reshape(self.height, -1)
        return unfiltered(rows, self._channels) if self.sure else None

    def _by_libpng(self) -> NDArray[Any]:
        try:
            with readable():
                return np.asarray(imagecodecs.png_decode(self.data))
        except DamagedError as error:
            if "too small" in str(error):
                raise DamagedError("truncated PNG file") from error
            raise


def unfiltered(rows: NDArray[np.uint8], channels: int) -> NDArray[np.uint8] | None:
    """Undo the filters of a PNG's rows (ISO/IEC 15948, 9.2).

    Args:
        rows: (h, 1 + w * channels) uint8, in each row first the number of its filter.
        channels: of a pixel.

    Returns:
        (h, w), or (h, w, channels) of several; None where a row has the filter Average or Paeth.
    """
    filters, height = rows[:, 0], len(rows)
    if filters.max() > _UP:
        return None
    pixels = rows[:, 1:] if channels == 1 else rows[:, 1:].reshape(height, -1, channels)
    left, above = filters == _SUB, filters == _UP
    if left.all():
        return np.asarray(imagecodecs.delta_decode(pixels, axis=1))
    if left.any():
        pixels = pixels.copy()
        pixels[left] = imagecodecs.delta_decode(pixels[left], axis=1)
    if above.any():  # such rows are sums of all from the last one that is not, as differences of sums from the top
        first = np.maximum.accumulate(np.where(above, 0, np.arange(height)))
        sums = np.concatenate([np.zeros_like(pixels[:1]), imagecodecs.delta_decode(pixels, axis=0)])
        pixels = sums[1:] - sums[first]
    return pixels


def plain_png(data: bytes) -> tuple[int, int, int] | None:
    """Return (height, width, channels) of a plain PNG (8 bits, gray, RGB or RGBA, not interlaced, upright), or None."""
    if not data.startswith(PNG_MAGIC) or data[12:16] != b"IHDR" or len(data) < 33:
        return None
    width, height, depth, kind, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    if depth != 8 or kind not in CHANNELS or interlaced or names(data, _RARE):
        return None
    return height, width, CHANNELS[kind]


def names(data: bytes, wanted: Sequence[bytes]) -> bool:
    """Return whether a PNG file holds one of `wanted` in any chunk but its pixels (IDAT): as a type, keyword or text."""
    at = len(PNG_MAGIC)
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4])  # length, type, content, checksum
        if data[at + 4 : at + 8] != b"IDAT":
            chunk = data[at:end]
            if any(name in chunk for name in wanted):
                return True
        at = end
    return False


def plain_jpeg(data: bytes) -> tuple[int, int] | None:
    """Return (height, width) of a plain JPEG by its header (ITU T.81, annex B), else None.

    Plain is 8 bits, gray or three components, Huffman-coded, with nothing that could turn it or change its colours.
    """
    if not data.startswith(JPEG_MAGIC):
        return None
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF or marker in jpeg.BARE:
            at += 1 if marker == 0xFF else 2
            continue
        if marker in _FRAMES:
            height, width = int.from_bytes(data[at + 5 : at + 7]), int.from_bytes(data[at + 7 : at + 9])
            common = data[at + 4] == 8 and data[at + 9] in (1, 3) and height and width
            return (height, width) if common else None
        named = data[at + 4 : at + 8]
        if (
            marker == _ADOBE
            or (marker == _EXIF and named == b"Exif")
            or (marker == _SEVERAL and named == b"MPF\0")
            or (0xC3 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC))
            or marker in (0xD9, 0xDA)
        ):
            return None
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return None


def usual_jpeg2000(data: bytes) -> bool:
    """Return whether all decoders give a JPEG 2000 file the same colours (ISO/IEC 15444-1, annexes A.5.1 and I.5).

    Its components are of one size, and it holds no palette and no definition of channels. Decoders differ in whether they convert
    colour spaces such as sYCC to RGB, and DALI refuses gray that is not said to be gray.
    """
    at = data.find(_CODESTREAM)
    count = int.from_bytes(data[at + 40 : at + 42])
    sizes = data[at + 42 : at + 42 + 3 * count]  # of each component its bits, and the columns and rows of a sample
    if at < 0 or any(sizes[1::3].strip(b"\1")) or any(sizes[2::3].strip(b"\1")):
        return False
    header = b"".join(content for kind, content in boxes(data[:at]) if kind == b"jp2h")
    held = list(boxes(header))
    named = (box for kind, box in held if kind == b"colr")
    spaces = {int.from_bytes(box[3:7]) if box[:1] == b"\1" else None for box in named} or {None}
    return spaces <= _COLOURS.get(count, set()) and not {b"pclr", b"cmap", b"cdef"} & {kind for kind, _ in held}


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield type and content of each box of a JPEG 2000, AVIF or HEIC file; of one that goes on behind `data`, what is held of it."""
    at = 0
    while at + 8 <= len(data):
        length, start = int.from_bytes(data[at : at + 4]), 8
        if length == 1:
            length, start = int.from_bytes(data[at + 8 : at + 16]), 16
        end = at + max(length, start) if length else len(data)
        yield data[at + 4 : at + 8], data[at + start : end]
        at = end
