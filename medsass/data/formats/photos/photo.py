"""Photographic formats: JPEG, PNG, BMP, WebP, JPEG 2000 and the like, decoded whole.

Pillow reads them, because it refuses truncated files where OpenCV paints the rest gray. It would cut 16-bit colour to 8
bits unasked: OpenCV reads such PNG, imagecodecs any JPEG 2000 of other than 8 bits.
"""

import io
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageMode

from medsass.data.formats import geometry
from medsass.data.formats.choice import pick_channels
from medsass.data.formats.damage import DamagedError, UnreadableError, readable
from medsass.data.formats.geometry import Box
from medsass.data.formats.image import ImageFile, Selection, check_level, check_size
from medsass.data.formats.kinds import PNG_MAGIC
from medsass.data.formats.mask import BRIGHT_ZERO, zero_is_bright
from medsass.data.formats.photos import codestream, jpeg, plain

FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")

_PNG_DEEP = {  # depth and colour type -> where OpenCV puts the channels
    b"\x10\x02": [2, 1, 0],
    b"\x10\x04": [0, 3],
    b"\x10\x06": [2, 1, 0, 3],
}
_SIZ = b"\xff\x4f\xff\x51"  # the markers that begin a JPEG 2000 codestream
_CHANNELS = {"LA": 2, "RGB": 3, "RGBA": 4, "RGBX": 4, "CMYK": 4}
_ALPHA = ("LA", "RGBA")
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


@dataclass(frozen=True)
class _Plan:
    """A way to decode a frame of a file: to (h, w) or (h, w, count) of `dtype` values in `span`. `converted` is as in ImageFile."""

    decode: Callable[[int], NDArray[Any]]
    count: int
    dtype: np.dtype[Any]
    converted: str = ""
    span: tuple[float, float] | None = None


class Photo(ImageFile):
    """The image in `data`, the bytes of a file: of an animation the first frame, unless others are asked for."""

    def __init__(self, data: bytes, view: Selection) -> None:
        check_level(view, 1)
        image = identify(data)
        plan = _gray_bmp(image, data)
        stored = view.raw or (view.mask and image.mode in _ALPHA)
        plan = plan or (_as_stored(image, data) if stored and not view.channels else None)
        plan = plan or _deep_png(data, view) or _other_jpeg2000(image, data, view) or _by_pillow(image, view)
        self._channels = pick_channels(view, plan.count) if view.channels else ()
        self._plan: _Plan | None = plan
        self._data = data
        turn = orientation(image, data)
        self._turn = 1 if image.format == "TIFF" else turn  # which Pillow turns by itself
        size = (image.width, image.height) if geometry.swaps_axes(self._turn) else (image.height, image.width)
        super().__init__(
            *size,
            len(view.channels) == 3 if view.channels else plan.count >= 3,
            plan.dtype,
            view,
            samples=max(plan.count, 4 if plan.count == 3 else 1),
        )
        self.span, self.turn = plan.span or self.span, turn
        first = self._select(view, _frames(image), animated=True)
        turned = "turned upright" if turn != 1 else ""
        self.converted = ", ".join(filter(None, (first, plan.converted, turned)))

    def _decode(self, frame: int, _box: Box, _level: int) -> NDArray[Any]:
        if self._plan is None:
            raise ValueError("the file has been closed")
        jpeg.check_pixels(self._data)
        array = self._plan.decode(frame)
        if self._channels:
            array = geometry.compose(self._channels, lambda i: array[..., i] if array.ndim == 3 else array)
        elif array.ndim == 3:
            array = array[..., :3] if array.shape[2] >= 3 else array[..., 0]
        return geometry.upright(array, self._turn).astype(self.dtype, copy=False)

    def close(self) -> None:
        """Close the file and forget the decoded frame."""
        super().close()
        self._plan, self._data = None, b""


def identify(data: bytes, formats: Sequence[str] = FORMATS) -> Image.Image:
    """Open an image by Pillow, of which `check_size` decides alone what is too large.

    `Image.open` would warn from half of that size on, which can be silenced for all threads only, and refuses larger
    images without telling their size.

    Raises:
        ValueError: for a damaged file, another format, or too many pixels to decode.
    """
    if data[:4] == b"RIFF" and (found := codestream.size(data)):  # its decoder takes memory as soon as it is opened
        check_size(*found[:2], 8)  # of the canvas, twice
    Image.preinit()  # the usual plugins; `init` imports all
    for name in formats:
        if name not in Image.OPEN:
            Image.init()
        factory, accepts = Image.OPEN[name]
        with readable():
            try:
                image = factory(io.BytesIO(data), "") if accepts is None or accepts(data[:16]) is True else None
            except (SyntaxError, IndexError, TypeError, struct.error):
                continue  # `Image.open` tries the next format too
        if image:
            check_size(image.height, image.width)
            return image
    raise DamagedError("not an image file that can be read")


def orientation(image: Image.Image, data: bytes) -> int:
    """Return the orientation (1 to 8) of an image opened from `data`. Decodes a PNG with metadata at its end."""
    if image.format == "PNG" and not plain.names(data, plain.EXIF):
        return 1
    with readable():
        if image.format in ("JPEG", "MPO"):  # by EXIF alone, as DALI and most viewers: Pillow takes XMP too
            return jpeg.orientation(image.info.get("exif", b""))
        return geometry.known_orientation(image.getexif().get(geometry.ORIENTATION))


def _frames(image: Image.Image) -> int:
    """Return the number of images in an animation; the others of an MPO file are previews and second views."""
    with readable():
        return 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))


def _as_stored(image: Image.Image, data: bytes) -> _Plan | None:
    """Plan for a mask whose stored values a picture would not show: indices, few bits or levels, alpha."""
    mode, (top, full) = image.mode, _ends(image, data)
    palette = np.asarray((image.getpalette("RGB") if mode == "P" else None) or [], np.uint8).reshape(-1, 3)
    gray = (
        image.format == "GIF" and mode == "P" and bool((palette == palette[:, :1]).all())
    )  # it has no other gray values
    deep = (image.format == "PNG" and data[24] == 16) or _is_other_jpeg2000(image, data)
    if deep or (mode not in ("1", "P", *_ALPHA) and top == full):
        return None

    def decode(frame: int) -> NDArray[Any]:
        with readable():
            image.seek(frame)
            image.load()
            array = np.asarray(image.convert("L") if gray else image)
        if image.mode != mode and not gray:
            raise UnreadableError(
                f"the palette's indices are known of the first frame alone, not of frame {frame}; save each as PNG"
            )
        if mode in _ALPHA:
            return geometry.without_alpha(array)
        return array if top == full else (array.astype(np.uint32) * top + full // 2) // full

    seen = BRIGHT_ZERO if zero_is_bright(palette) and not gray else ""
    return _Plan(decode, _CHANNELS.get(mode, 1), np.dtype(np.uint16 if full > 255 else np.uint8), seen)


def _gray_bmp(image: Image.Image, data: bytes) -> _Plan | None:
    """Plan for a BMP of 4 or 8 bits whose palette is black and white, or as many grays, of which Pillow mistakes the depth."""
    if image.format not in ("BMP", "DIB") or (image.mode, int.from_bytes(data[28:30], "little")) not in (
        ("1", 4),
        ("1", 8),
        ("L", 4),
    ):
        return None

    def decode(_frame: int) -> NDArray[Any]:
        with readable():
            array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
        if array is None:
            raise DamagedError("damaged BMP file")
        return np.asarray(array)

    return _Plan(decode, 1, np.dtype(np.uint8))


def _ends(image: Image.Image, data: bytes) -> tuple[int, int]:
    """Return the value that the file stores for white, and what Pillow makes of it."""
    if image.format == "PNG" and image.mode == "L" and data[25] == 0:
        return (1 << data[24]) - 1, 255
    tile = getattr(image, "tile", None) if image.format == "PPM" and image.mode != "1" else None
    if tile and tile[0][0] in ("ppm", "ppm_plain"):
        return int(tile[0][3][1]), 255
    return 255, 255


def _by_pillow(image: Image.Image, view: Selection) -> _Plan:
    raw = view.channels and image.mode in _CHANNELS  # all channels of the file can be chosen from
    mode, converted = (image.mode, "") if raw else _CONVERSIONS.get(image.mode, (image.mode, ""))
    several = _frames(image) > 1

    def decode(frame: int) -> NDArray[Any]:
        with readable():
            if several:
                image.seek(frame)
            image.load()
            image.info.pop("transparency", None)  # of a palette: converting to RGB would warn of it
            if image.mode == "P":
                _check_palette(image)
            return np.asarray(image if image.mode == mode else image.convert(mode))

    return _Plan(decode, _CHANNELS.get(mode, 1), np.dtype(ImageMode.getmode(mode).typestr), converted)


def _check_palette(image: Image.Image) -> None:
    """Raise `ValueError` where pixels have an index for which the palette has no colour, which decoders show black."""
    colours, last = len(image.getpalette() or ()) // 3, int(np.asarray(image).max(initial=0))
    if last >= colours:
        raise UnreadableError(
            f"pixels of colour {last}, and a palette of colours 0 to {colours - 1}; save it anew as RGB or gray"
        )


def _deep_png(data: bytes, view: Selection) -> _Plan | None:
    """Plan for a PNG of 16 bits in colour or with alpha."""
    order = _PNG_DEEP.get(data[24:26]) if data.startswith(PNG_MAGIC) else None
    if order is None:
        return None

    def decode(_frame: int) -> NDArray[Any]:
        with readable():
            array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
        if array is None:
            raise DamagedError("damaged PNG file")
        pixels = np.asarray(array)
        if order[0]:  # red and blue change places, without a copy of all
            blue = pixels[..., 0].copy()
            pixels[..., 0], pixels[..., 2] = pixels[..., 2], blue
            return pixels
        return pixels[..., order]

    return _opaque(_Plan(decode, len(order), np.dtype(np.uint16)), view)


def _is_other_jpeg2000(image: Image.Image, data: bytes) -> bool:
    """Return whether an image is JPEG 2000 of other than 8 bits, or signed, without a palette: Pillow changes its values."""
    bits, _, signed = jpeg2000_depth(data) if image.format == "JPEG2000" and image.mode != "P" else (8, 0, False)
    return bits not in (0, 8) or signed


def _other_jpeg2000(image: Image.Image, data: bytes, view: Selection) -> _Plan | None:
    """Plan for a JPEG 2000 image of other than 8 bits, of which fewer become 0..255, but of masks; or of signed values."""
    if not _is_other_jpeg2000(image, data):
        return None
    bits, count, signed = jpeg2000_depth(data)
    few = bits < 8 and not signed and not view.raw

    def decode(_frame: int) -> NDArray[Any]:
        with readable():
            array = np.asarray(imagecodecs.jpeg2k_decode(data))
        return np.rint(array * (255 / ((1 << bits) - 1))).astype(np.uint8) if few else array

    half = float(1 << bits - 1)
    dtype = np.dtype(f"{'i' if signed else 'u'}{1 if bits <= 8 else 2 if bits <= 16 else 4}")
    span = (-half, half - 1) if signed else (0.0, 2 * half - 1) if bits > 8 else None
    return _opaque(_Plan(decode, count, dtype, f"{bits} bit to 8 bit" * few, span), view)


def _opaque(plan: _Plan, view: Selection) -> _Plan:
    """Return the plan without alpha, where the file has one and channels are not chosen; of a mask with what it shows."""
    if plan.count not in (2, 4) or view.channels:
        return plan
    if not view.mask:
        return replace(plan, converted=", ".join(filter(None, (plan.converted, "alpha dropped"))))
    return replace(plan, decode=lambda frame: geometry.without_alpha(plan.decode(frame)), count=plan.count - 1)


def jpeg2000_depth(data: bytes) -> tuple[int, int, bool]:
    """Return bits of the first component, number of components and whether they are signed; zeros if unknown."""
    at = data.find(_SIZ)
    if at < 0 or len(data) < at + 43:
        return 0, 0, False
    (count,) = struct.unpack_from(">H", data, at + 40)
    depth = data[at + 42]
    return (depth & 127) + 1, count, depth > 127
