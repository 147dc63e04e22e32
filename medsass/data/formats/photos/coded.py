"""Photographic formats that Pillow does not read, or not exactly: JPEG-LS, lossless and 12-bit JPEG, JPEG XL, deep AVIF,
HEIC, PAM, and PGM and PPM of more than 8 bits, also in text.

imagecodecs decodes them, pillow-heif (where it is installed) HEIC. They are decoded as soon as they are opened, once
their header has shown that they are not too large.
"""

import importlib
import re
import struct
from collections.abc import Callable
from functools import partial
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from medsass.data.formats import geometry, kinds
from medsass.data.formats.choice import pick_channels
from medsass.data.formats.damage import DamagedError, UnreadableError, readable
from medsass.data.formats.geometry import Box
from medsass.data.formats.image import ImageFile, Selection, check_level, check_size
from medsass.data.formats.photos import jpeg
from medsass.data.formats.photos.plain import boxes

_HEIC = (b"heic", b"heix", b"heim", b"heis", b"mif1")
_COMMENT, _GAP = re.compile(rb"#[^\n\r]*"), rb"(?:\s|#[^\n\r]*[\n\r])+"
_PNM = re.compile(rb"P([2356])" + 3 * (_GAP + rb"(\d+)") + rb"(?:#[^\n\r]*)?\s")
_ROTATIONS = (1, 8, 3, 6)  # orientation for each number of quarter turns anticlockwise
_PAM = re.compile(rb"P7\n(.*?)ENDHDR\n", re.DOTALL)
_JXL_BITS = (9, 13, 18, 30)  # of a length in the header of JPEG XL


class Coded(ImageFile):
    """A decoded image: `array` (H, W) or (H, W, channels), whose values lie in 0 .. `top` unless that is None."""

    def __init__(self, array: NDArray[Any], view: Selection, top: int | None = None, turn: int = 1) -> None:
        check_level(view, 1)
        if array.ndim not in (2, 3):
            raise ValueError(f"an array of shape {array.shape}, not one image; save its images as files of their own")
        array = geometry.upright(array, turn)
        if view.raw and not view.channels and array.shape[2:] in ((2,), (4,)):
            array = geometry.without_alpha(array)
        count = array.shape[2] if array.ndim == 3 else 1
        opaque = {2: (0,), 4: (0, 1, 2)}.get(count) if not view.channels else None
        self._array, self._channels = array, opaque or pick_channels(view, count)
        super().__init__(array.shape[0], array.shape[1], len(self._channels) == 3, array.dtype, view)
        self._select(view, 1, animated=True)
        self.span, self.turn = (0.0, float(top)) if top else self.span, turn
        self.converted = ", ".join(["alpha dropped"] * bool(opaque) + ["turned upright"] * (turn != 1))

    def _decode(self, _frame: int, _box: Box, _level: int) -> NDArray[Any]:
        flat = self._array.ndim == 2
        return geometry.compose(self._channels, lambda i: self._array if flat else self._array[..., i])


def open_coded(data: bytes, view: Selection) -> Coded | None:
    """Open an image of one of these formats by its bytes; return None for another format.

    Raises:
        ValueError: where the file is damaged, too large, or HEIC without pillow-heif.
    """
    if data.startswith(jpeg.SOI):
        return _jpeg(data, view)
    if data.startswith((b"\xff\n", b"\0\0\0\x0cJXL ")):
        check_size(*_jxl_size(data))
        return Coded(_decoded(imagecodecs.jpegxl_decode, data), view)
    if data[4:8] == b"ftyp":
        return _heif(data, view)
    return _pnm(data, view) if data.startswith((b"P2", b"P3", b"P5", b"P6", b"P7")) else None


def is_coded(data: bytes) -> bool:
    """Return whether a JPEG file is of a sort that the decoders of photographs, and DALI, do not read."""
    marker, bits, *_ = _frame(data)
    return marker in (jpeg.LOSSLESS, jpeg.LS) or bits > 8


def is_lossy(data: bytes) -> bool:
    """Return whether a file is a JPEG or WebP that does not keep pixels exactly."""
    webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP" and b"VP8 " in data[12 : kinds.HEAD]
    return webp or (data.startswith(jpeg.SOI) and _frame(data)[0] not in (jpeg.LOSSLESS, jpeg.LS))


def _decoded(decode: Callable[[bytes], Any], data: bytes) -> NDArray[Any]:
    with readable():
        return np.asarray(decode(data))


def _frame(data: bytes) -> tuple[int, int, int, int, int]:
    """Return marker, bits, height and width of a JPEG's frame, and the orientation, from its header (ITU T.81,
    annex B); zeros where there is no frame.
    """
    turn = 1
    for marker, start, end in jpeg.segments(data):
        if marker in jpeg.FRAMES and len(data) >= start + 5:
            return marker, data[start], *struct.unpack_from(">HH", data, start + 1), turn
        if marker == jpeg.SOS:
            break
        if data.startswith(jpeg.EXIF, start):
            turn = jpeg.orientation(data[start:end])
    return 0, 0, 0, 0, 1


def _jpeg(data: bytes, view: Selection) -> Coded | None:
    if not is_coded(data):
        return None
    marker, bits, height, width, turn = _frame(data)
    check_size(height, width)
    if jpeg.EOI not in data:  # CharLS takes many seconds to find that out
        raise DamagedError("truncated: a JPEG file without an end")
    jpeg.check_pixels(data)
    decode = imagecodecs.jpegls_decode if marker == jpeg.LS else imagecodecs.jpeg8_decode
    return Coded(_decoded(decode, data), view, (1 << bits) - 1, turn)


def _jxl_size(data: bytes) -> tuple[int, int]:
    """Return height and width, or the larger of them twice, from the header of a JPEG XL codestream (ISO 18181-1, 9.2)."""
    at = data.find(b"\xff\n")
    bits = int.from_bytes(data[at + 2 : at + 14], "little")

    def take(count: int) -> int:
        nonlocal bits
        value, bits = bits & ((1 << count) - 1), bits >> count
        return value

    small = take(1)
    lengths = [(take(5) + 1) * 8 if small else take(_JXL_BITS[take(2)]) + 1]
    if take(3) == 0:  # no common aspect ratio, all of which are at most 2
        lengths.append((take(5) + 1) * 8 if small else take(_JXL_BITS[take(2)]) + 1)
    return lengths[0], lengths[-1]


def _heif(data: bytes, view: Selection) -> Coded | None:
    """Read AVIF of more than 8 bits, and HEIC, where the size is in the boxes named ispe (ISO 23008-12, 6.5.3)."""
    brands = data[8 : 8 + max(0, int.from_bytes(data[:4]) - 8)]
    heic = b"avif" not in brands and any(brand in brands for brand in _HEIC)
    at = data.find(b"av1C")
    if not heic and (at < 0 or len(data) < at + 7 or not data[at + 6] & 0x40):
        return None  # 8 bits, which Pillow reads
    for found in re.finditer(b"ispe", data[: 1 << 16]):
        if len(data) >= found.end() + 12:
            width, height = struct.unpack_from(">II", data, found.end() + 4)
            check_size(height, width)
    if not heic:
        top, turn = 4095 if data[at + 6] & 0x20 else 1023, _turn(data)
        return Coded(_decoded(imagecodecs.avif_decode, data), view, top, turn)
    try:
        pillow_heif = importlib.import_module("pillow_heif")
    except ImportError as error:
        raise ValueError("HEIC images need pillow-heif: pip install pillow-heif") from error
    return Coded(_decoded(partial(pillow_heif.open_heif, convert_hdr_to_8bit=False), data), view)


def _turn(data: bytes) -> int:
    """Return the orientation that the boxes of an AVIF image state (ISO 23008-12, 6.5.10), which its decoder leaves to others.

    Raises:
        UnreadableError: where they mirror it.
    """
    at = data.find(b"ipco")
    held = dict(boxes(data[at + 4 : max(at, 4) - 4 + int.from_bytes(data[max(at, 4) - 4 : at])]))
    if b"imir" in held:
        raise UnreadableError("an AVIF image of more than 8 bits that its header mirrors; save it as PNG or TIFF")
    return _ROTATIONS[held.get(b"irot", b"\0")[0] & 3]


def _pnm(data: bytes, view: Selection) -> Coded | None:
    """Read PAM, and PGM and PPM of more than 8 bits, as stored; other depths below 8 bits become 0..255, but of masks."""
    if match := _PNM.match(data):
        with readable():
            kind, width, height, top = (int(group) for group in match.groups())
        if top < 256:
            return None  # which Pillow reads
        count = 1 if kind in (2, 5) else 3
    elif match := _PAM.match(data):
        held = dict(line.split(None, 1) for line in match[1].splitlines() if len(line.split(None, 1)) == 2)
        with readable():
            width, height, count, top = (int(held[key]) for key in (b"WIDTH", b"HEIGHT", b"DEPTH", b"MAXVAL"))
    else:
        return None
    check_size(height, width)
    if not 0 < top < 65536 or min(width, height, count) < 1:
        raise DamagedError(f"damaged: a header of {width}x{height} pixels of {count} channels up to {top}")
    dtype = np.dtype(">u2" if top > 255 else "u1")
    if data[1:2] in b"23":
        return Coded(_text(data[match.end() :], (height, width, count), top), view, top)
    need, held_bytes = width * height * count * dtype.itemsize, len(data) - match.end()
    if held_bytes < need:
        raise DamagedError(f"truncated: {held_bytes:,} bytes of pixels of {need:,}")
    array = np.frombuffer(data, dtype, width * height * count, match.end()).reshape(height, width, count)
    array = array.astype(dtype.newbyteorder("="))
    if top < 255 and not view.raw:
        array = np.rint(array * (255 / top)).astype(np.uint8)
    return Coded(array[..., 0] if count == 1 else array, view, max(top, 255))


def _text(body: bytes, shape: tuple[int, int, int], top: int) -> NDArray[np.uint16]:
    """Return the values (H, W), or (H, W, 3) of colours, that a PGM or PPM file lists in text."""
    words, need = _COMMENT.sub(b" ", body).split(), int(np.prod(shape))
    if len(words) < need:
        raise DamagedError(f"truncated: {len(words):,} values of {need:,}")
    with readable():
        values = np.array(words[:need]).astype(np.int64)
    if values.min() < 0 or values.max() > top:
        raise DamagedError(f"damaged: values from {values.min()} to {values.max()}, and its header says 0 to {top}")
    return values.astype(np.uint16).reshape(shape[: 2 + (shape[2] > 1)])
