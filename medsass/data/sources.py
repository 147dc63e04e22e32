"""Image and mask files -> 8-bit pixels: what a file may be, and what becomes of it.

Pillow reads the photographic formats, because it refuses truncated files where OpenCV paints the rest gray; tifffile
with imagecodecs reads TIFF; OpenCV only 16-bit colour PNG, which Pillow would cut to 8 bits unasked.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageOps

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".jp2", ".png", ".tif", ".tiff", ".webp"})

_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_STORED = {"JPEG": "jpg", "PNG": "png", "JPEG2000": "jp2"}  # Pillow's format -> suffix in a shard
_ORIENTATION = 0x0112  # EXIF
_CONVERSIONS = {  # Pillow's mode -> mode to read it in, and what to call that
    "1": ("L", "bilevel to gray"),
    "LA": ("L", "alpha dropped"),
    "P": ("RGB", "palette to RGB"),
    "PA": ("RGB", "palette to RGB"),
    "RGBA": ("RGB", "alpha dropped"),
    "RGBX": ("RGB", "alpha dropped"),
    "CMYK": ("RGB", "CMYK to RGB"),
    "YCbCr": ("RGB", "YCbCr to RGB"),
    "LAB": ("RGB", "LAB to RGB"),
}
_UPRIGHT: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {  # TIFF 6.0, tag 274: where row 0 and column 0 are
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}
_UNREADABLE: tuple[type[Exception], ...] = (
    OSError,
    SyntaxError,
    EOFError,
    LookupError,
    ValueError,
    RuntimeError,
    struct.error,
    zlib.error,
    tifffile.TiffFileError,
    Image.DecompressionBombError,
)


@dataclass(frozen=True)
class Pixels:
    """A decoded image: `array` (H, W) or (H, W, 3) uint8, and what was done to it ("" where nothing was)."""

    array: NDArray[np.uint8]
    converted: str = ""


def read_image(path: Path) -> Pixels:
    """The image in `path` as 8-bit gray or RGB, upright by its EXIF orientation.

    Palettes become RGB, CMYK and YCbCr become RGB, alpha is dropped, deeper pixels are mapped linearly from the image's
    own range to 0..255. Raises `ValueError` with the reason where the file is empty, truncated or not such an image.
    """
    return from_bytes(path.read_bytes())


def from_bytes(data: bytes) -> Pixels:
    """`read_image` for the bytes of a file."""
    array, converted = _decode(data)
    if array.dtype == np.uint8:
        return Pixels(np.ascontiguousarray(array, np.uint8), converted)
    return Pixels(to_8bit(array), ", ".join(filter(None, (converted, f"{array.dtype} to 8 bit"))))


def gray16_or_8bit(data: bytes, deep: bool) -> NDArray[Any]:
    """The pixels of a file: `from_bytes`, but with `deep` a 16-bit gray image stays (H, W) uint16."""
    array, _ = _decode(data)
    if array.dtype == np.uint8 or (deep and array.dtype == np.uint16 and array.ndim == 2):
        return np.ascontiguousarray(array)
    return to_8bit(array)


def _decode(data: bytes) -> tuple[NDArray[Any], str]:
    """Pixels as the file holds them, (H, W) or (H, W, 3) of any real dtype, and what was changed."""
    if not data:
        raise ValueError("empty file (0 bytes)")
    try:
        if data.startswith(_TIFF_MAGIC):
            return _from_tiff(data)
        if data.startswith(_PNG_MAGIC) and data[24:26] in (b"\x10\x02", b"\x10\x06"):  # bit depth 16, colour
            array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
            if array is None:
                raise ValueError("PNG data cannot be decoded")
            return _shaped(array[..., [2, 1, 0]])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                return _from_pillow(image)
    except _UNREADABLE as error:
        raise ValueError(_reason(error)) from error


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return "not an image file that can be read" if "cannot identify image file" in text else text


def storable(data: bytes) -> tuple[str, tuple[int, int]] | None:
    """Suffix and (height, width) where these bytes can go into a shard as they are: 8-bit gray or RGB JPEG, PNG or
    JPEG 2000 without transparency or rotation. Reads the header alone; None where the file must be re-encoded.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            suffix = _STORED.get(image.format or "")
            deep = image.format == "PNG" and data[24:25] != b"\x08"
            upright = image.getexif().get(_ORIENTATION, 1) == 1
            if suffix and image.mode in ("L", "RGB") and upright and not deep and "transparency" not in image.info:
                return suffix, (image.height, image.width)
    except (OSError, SyntaxError, ValueError, IndexError, Image.DecompressionBombError):
        pass  # the full reader says what is wrong
    return None


def _from_tiff(data: bytes) -> tuple[NDArray[Any], str]:
    """The one image of the file, or the largest of a pyramid. Gray and RGB of any depth by tifffile; palettes, CMYK and the like, which are 8-bit, by Pillow."""
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        if len(tiff.series[0]) > 1:
            raise ValueError(f"expected one gray (H, W) or colour (H, W, 3) image; got shape {tiff.series[0].shape}")
        page = tiff.pages.first
        if page.photometric.name not in ("MINISBLACK", "MINISWHITE", "RGB"):
            with Image.open(io.BytesIO(data)) as image:
                return _from_pillow(image)
        array = page.asarray()
        if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and array.ndim == 3:
            array = np.moveaxis(array, 0, -1)
        array, converted = _shaped(array)
        if page.photometric.name == "MINISWHITE":
            top = np.iinfo(array.dtype).max if array.dtype.kind == "u" else array.max()
            array, converted = top - array, "inverted (zero is white)"
        orientation = page.tags.get(_ORIENTATION)
        if orientation is not None and orientation.value in _UPRIGHT:
            array, converted = _UPRIGHT[orientation.value](array), "turned upright"
        if len(tiff.pages) > 1:
            converted = converted or "first of several images in the file"
    return np.ascontiguousarray(array), converted


def _from_pillow(image: Image.Image) -> tuple[NDArray[Any], str]:
    image.load()
    mode, turn = image.mode, image.getexif().get(_ORIENTATION, 1)
    upright = ImageOps.exif_transpose(image)
    if mode in ("L", "RGB"):
        return np.array(upright), "turned upright" if turn != 1 else ""
    if mode in _CONVERSIONS:
        target, what = _CONVERSIONS[mode]
        return np.array(upright.convert(target)), what
    return _shaped(np.array(upright))


def _shaped(array: NDArray[Any]) -> tuple[NDArray[Any], str]:
    """(H, W), (H, W, 1), (H, W, 3) or (H, W, 4) -> (H, W) or (H, W, 3). Raises `ValueError` for other shapes and types."""
    shape, converted = array.shape, ""
    if array.ndim == 3 and shape[-1] == 1:
        array = array[..., 0]
    elif array.ndim == 3 and shape[-1] == 4:
        array, converted = array[..., :3], "alpha dropped"
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] != 3) or array.size == 0:
        raise ValueError(f"expected one gray (H, W) or colour (H, W, 3) image; got shape {shape}")
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255), "bilevel to gray"
    if array.dtype.kind not in "uif":
        raise ValueError(f"pixels of type {array.dtype} are not supported")
    return array, converted


def to_8bit(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Linear map of the image's own [minimum, maximum], over all channels, to [0, 255], rounded. A constant image
    becomes 0. Raises `ValueError` where a value is not finite.
    """
    values = array.astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise ValueError("pixels hold values that are not finite (NaN or infinity)")
    scale = 255.0 / (high - low) if high > low else 0.0
    return np.rint((values - low) * scale).astype(np.uint8)


def read_mask(paths: list[Path], foreground: str) -> NDArray[np.uint8]:
    """(H, W) uint8 in {0, 1}: the union of the mask files. `foreground`: pixels "nonzero", or above "half" of the
    pixel type's range. A colour mask counts by its largest channel; numbered objects count whatever their depth.

    Raises `ValueError` naming the file that cannot be read or whose size differs from the first one's.
    """
    union: NDArray[np.uint8] | None = None
    for path in paths:
        try:
            array, _ = _decode(path.read_bytes())
        except ValueError as error:
            raise ValueError(f"mask {path.name}: {error}") from error
        level = 0.0 if foreground == "nonzero" else _half(array.dtype)
        mask = ((array.max(axis=2) if array.ndim == 3 else array) > level).astype(np.uint8)
        if union is not None and union.shape != mask.shape:
            raise ValueError(
                f"mask {path.name}: size {wxh(mask.shape)} differs from the other masks' {wxh(union.shape)}"
            )
        union = mask if union is None else union | mask
    if union is None:
        raise ValueError("no mask file")
    return union


def _half(dtype: np.dtype[Any]) -> float:
    return 0.5 if dtype.kind == "f" else float(np.iinfo(dtype).max // 2)


def wxh(shape: tuple[int, ...]) -> str:
    """An array's (H, W, ...) as people write it: "width x height"."""
    return f"{shape[1]}x{shape[0]}"
