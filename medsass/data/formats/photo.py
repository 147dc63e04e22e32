"""Photographic formats: JPEG, PNG, BMP, WebP, JPEG 2000 and the like, decoded whole.

Pillow reads them, because it refuses truncated files where OpenCV paints the rest gray. It would cut 16-bit colour to 8
bits unasked: OpenCV reads such PNG, imagecodecs any JPEG 2000 of more than 8 bits.
"""

import io
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageMode

from medsass.data.formats import channels, orientation
from medsass.data.formats.geometry import Box
from medsass.data.formats.image import ImageFile, Selection, check_level, check_size

FORMATS = ("BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PNG_DEEP = {  # depth and colour type -> where OpenCV puts the channels
    b"\x10\x02": [2, 1, 0],
    b"\x10\x04": [0, 3],
    b"\x10\x06": [2, 1, 0, 3],
}
_PNG_EXIF = (b"eXIf", b"exif", b"xmp")  # without any of these the file says nothing of its orientation
_SIZ = b"\xff\x4f\xff\x51"  # the markers that begin a JPEG 2000 codestream
_CHANNELS = {"LA": 2, "RGB": 3, "RGBA": 4, "RGBX": 4, "CMYK": 4}
_CONVERSIONS = {  # Pillow's mode -> mode to read it in, and what to call that
    "1": ("L", "bilevel to gray"),
    "LA": ("L", "alpha dropped"),
    "La": ("L", "alpha dropped"),
    "P": ("RGB", "palette to RGB"),
    "PA": ("RGB", "palette to RGB"),
    "RGBA": ("RGB", "alpha dropped"),
    "RGBa": ("RGB", "alpha dropped"),
    "RGBX": ("RGB", "alpha dropped"),
    "CMYK": ("RGB", "CMYK to RGB"),
    "YCbCr": ("RGB", "YCbCr to RGB"),
    "LAB": ("RGB", "LAB to RGB"),
    "HSV": ("RGB", "HSV to RGB"),
}

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # check_size decides; threads share filters


@dataclass(frozen=True)
class _Plan:
    """How a file is decoded: to (h, w) or (h, w, count) of `dtype` whose values lie in `span`, and what that changes."""

    decode: Callable[[], NDArray[Any]]
    count: int
    dtype: np.dtype[Any]
    converted: str = ""
    span: tuple[float, float] | None = None


class Photo(ImageFile):
    """The image in `data`, the bytes of a file; of several frames the first. Raises what `readable` knows."""

    def __init__(self, data: bytes, view: Selection) -> None:
        check_level(view, 1)
        _check_webp(data)
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        except Image.DecompressionBombError:
            _check_bomb(data)
            raise
        check_size(image.height, image.width)
        plan = _deep_png(data, view) or _deep_jpeg2000(image, data, view) or _by_pillow(image, view)
        if view.channels:
            channels.check(view.channels, plan.count)
        self._plan: _Plan | None = plan
        self._channels, self._turn = view.channels, turn(image, data)
        size = (image.width, image.height) if orientation.swaps(self._turn) else (image.height, image.width)
        super().__init__(*size, len(view.channels) == 3 if view.channels else plan.count >= 3, plan.dtype, view)
        self.span = plan.span or self.span
        self.total = 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))
        first = f"first of {self.total} frames" if self.total > 1 else ""
        turned = "turned upright" if self._turn != 1 else ""
        self.converted = ", ".join(filter(None, (first, plan.converted, turned)))

    def _decode(self, _frame: int, _box: Box, _level: int) -> NDArray[Any]:
        if self._plan is None:
            raise ValueError("the file has been closed")
        array = self._plan.decode()
        if self._channels:
            array = channels.composed(self._channels, lambda i: array[..., i] if array.ndim == 3 else array)
        elif array.ndim == 3:
            array = array[..., :3] if array.shape[2] >= 3 else array[..., 0]
        return orientation.upright(array, self._turn).astype(self.dtype, copy=False)

    def close(self) -> None:
        """Close the file and forget the decoded frame."""
        super().close()
        self._plan = None


def _by_pillow(image: Image.Image, view: Selection) -> _Plan:
    raw = view.channels and image.mode in _CHANNELS  # all channels of the file can be chosen from
    mode, converted = (image.mode, "") if raw else _CONVERSIONS.get(image.mode, (image.mode, ""))

    def decode() -> NDArray[Any]:
        image.load()
        image.info.pop("transparency", None)  # of a palette: converting to RGB would warn of it
        return np.asarray(image if image.mode == mode else image.convert(mode))

    return _Plan(decode, _CHANNELS.get(mode, 1), np.dtype(ImageMode.getmode(mode).typestr), converted)


def _deep_png(data: bytes, view: Selection) -> _Plan | None:
    """A PNG of 16 bits in colour or with alpha."""
    order = _PNG_DEEP.get(data[24:26]) if data.startswith(_PNG_MAGIC) else None
    if order is None:
        return None

    def decode() -> NDArray[Any]:
        array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
        if array is None:
            raise ValueError("PNG data cannot be decoded")
        return np.asarray(array)[..., order]

    alpha = len(order) in (2, 4) and not view.channels
    return _Plan(decode, len(order), np.dtype(np.uint16), "alpha dropped" if alpha else "")


def _deep_jpeg2000(image: Image.Image, data: bytes, view: Selection) -> _Plan | None:
    """A JPEG 2000 image of more than 8 bits."""
    bits, count, signed = jpeg2000_depth(data) if image.format == "JPEG2000" else (0, 0, False)
    if bits <= 8:
        return None
    half = float(1 << bits - 1)
    dtype = np.dtype(f"{'i' if signed else 'u'}{2 if bits <= 16 else 4}")
    alpha = "alpha dropped" if count in (2, 4) and not view.channels else ""
    span = (-half, half - 1) if signed else (0.0, 2 * half - 1)
    return _Plan(lambda: np.asarray(imagecodecs.jpeg2k_decode(data)), count, dtype, alpha, span)


def turn(image: Image.Image, data: bytes) -> int:
    """The orientation (1 to 8) that an image opened from `data` names. Decodes a PNG that holds metadata at its end."""
    if image.format == "TIFF":  # Pillow turns it by itself
        return 1
    if image.format == "PNG" and not any(name in data for name in _PNG_EXIF):
        return 1
    return orientation.known(image.getexif().get(orientation.TAG))


def jpeg2000_depth(data: bytes) -> tuple[int, int, bool]:
    """Bits of the first component, number of components and whether they are signed, of JPEG 2000; zeros if unknown."""
    at = data.find(_SIZ)
    if at < 0 or len(data) < at + 43:
        return 0, 0, False
    (count,) = struct.unpack_from(">H", data, at + 40)
    depth = data[at + 42]
    return (depth & 127) + 1, count, depth > 127


def _check_webp(data: bytes) -> None:
    """Raise `ValueError` where a WebP file is too large: its decoder takes memory for it as soon as it is opened."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        return
    if data[12:16] == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    elif data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    check_size(height, width)


def _check_bomb(data: bytes) -> None:
    """Raise `ValueError` with the size of an image that is too large for `Image.open`, which does not tell it."""
    for name in FORMATS:
        factory, accept = Image.OPEN[name]
        if accept is None or accept(data[:16]) is True:
            image = factory(io.BytesIO(data), "")
            check_size(image.height, image.width)
