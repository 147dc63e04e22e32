"""Files of images and masks -> pictures: which reader opens what, whatever a file is named.

The readers are `photos` (JPEG, PNG, BMP, WebP, JPEG 2000), `tiffs`, `slides`, `dicom` and `arrays` (NumPy). None of them
decodes more than MOST_PIXELS pixels at once, and none takes a file at its suffix where its content says something else.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medsass.data.formats import depth, jpegs, numpy_file, pngs, slide, tiff
from medsass.data.formats.depth import Foreground, mask_of, to_8bit
from medsass.data.formats.dicom import Dicom, is_dicom
from medsass.data.formats.geometry import Box
from medsass.data.formats.image import MOST_PIXELS, WHOLE_FILE, ImageFile, Selection, readable, wxh
from medsass.data.formats.photo import Photo, jpeg2000_depth, turn

__all__ = [
    "MOST_PIXELS",
    "SLIDES",
    "SUFFIXES",
    "ImageFile",
    "Pixels",
    "Selection",
    "from_bytes",
    "gray16_or_8bit",
    "mask_of",
    "open_image",
    "read_image",
    "read_mask",
    "storable",
    "to_8bit",
    "wxh",
]

SLIDES = slide.SUFFIXES
SUFFIXES = SLIDES | {".bmp", ".dcm", ".jp2", ".jpeg", ".jpg", ".npy", ".npz", ".png", ".tif", ".tiff", ".webp"}

_STORED = {"JPEG": "jpg", "PNG": "png", "JPEG2000": "jp2"}  # Pillow's format -> suffix in a shard
_PHOTOS = (b"\x89PNG", b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP", b"RIFF")  # beginnings of photographs
_HEAD = 132  # bytes in which every format can be told


@dataclass(frozen=True)
class Pixels:
    """A decoded image: `array` (H, W) or (H, W, 3) uint8, and what was done to it ("" where nothing was)."""

    array: NDArray[np.uint8]
    converted: str = ""


def open_image(path: Path, view: Selection = WHOLE_FILE, data: bytes | None = None) -> ImageFile:
    """The image file at `path`, open; close it, or use it in a `with` statement.

    data: the file's bytes, where they are at hand; then `path` only names it. Slides and NumPy files must be on this
    machine, because they are read in parts. Raises `ValueError` with the reason where the file is not an image that can
    be read as `view` asks, `OSError` where it cannot be opened, `ImportError` for DICOM without pydicom.
    """
    if data is None:
        with path.open("rb") as file:
            head = file.read(_HEAD)
            kind = _kind(head, path.suffix.lower())
            data = head + file.read() if kind == "photo" else None
    else:
        head = data[:_HEAD]
        kind = _kind(head, path.suffix.lower())
    if not head:
        raise ValueError("empty file (0 bytes)")
    if kind in ("array", "slide") and not (isinstance(path, Path) and path.is_file()):
        raise ValueError("slides, .npy and .npz files are read in parts and must be on this machine: copy them first")
    with readable():
        if kind == "array":
            return numpy_file.Array(path, view)
        if kind == "slide" or (kind == "tiff" and data is None):
            return slide.open_slide(path, view)
        if kind == "tiff":
            return tiff.open_tiff(path, view, data)
        if kind == "dicom":
            return Dicom(path if data is None else data, view)
        png = None if view.level or view.channels else pngs.plain(data or b"")
        return pngs.Png(data or b"", view, *png) if png else Photo(data or b"", view)


def _kind(head: bytes, suffix: str) -> str:
    """What a file is by its first bytes; its suffix counts for slides, which are TIFF, and DICOM without its mark."""
    if is_dicom(head):  # first: a DICOM file may begin as a TIFF file does
        return "dicom"
    if head.startswith((numpy_file.NPY_MAGIC, *numpy_file.ZIP_MAGIC)):
        return "array"
    if head.startswith(tiff.MAGIC):
        return "slide" if suffix in SLIDES else "tiff"
    if suffix == ".dcm" and not head.startswith(_PHOTOS):
        return "dicom"
    return "photo"


def read_image(path: Path) -> Pixels:
    """The image in `path` as 8-bit gray or RGB, upright by its orientation tag.

    Palettes, CMYK and YCbCr become RGB, alpha is dropped, deeper pixels are mapped linearly to 0..255 from the limits
    that the file states, or else from the image's own range. Raises `ValueError` with the reason where the file is
    empty, truncated or not one image.
    """
    with open_image(path) as picture:
        return _in_8bit(picture)


def from_bytes(data: bytes) -> Pixels:
    """`read_image` for the bytes of a file."""
    with open_image(Path(), data=data) as picture:
        return _in_8bit(picture)


def _in_8bit(picture: ImageFile) -> Pixels:
    array = _single(picture)
    if not depth.needs_scaling(array.dtype, 8):
        return Pixels(array, picture.converted)
    array = depth.scaled(array, depth.limits(picture, 0, "minmax"), 8)
    return Pixels(array, ", ".join(filter(None, (picture.converted, f"{picture.dtype} to 8 bit"))))


def _single(picture: ImageFile) -> NDArray[Any]:
    """The one image of a file. Raises `ValueError` where there are several."""
    array = picture.read()
    if picture.total > 1 and not isinstance(picture, Photo):
        shape = (picture.total, *array.shape)
        raise ValueError(f"expected one gray (H, W) or colour (H, W, 3) image; got shape {shape}")
    return array


def gray16_or_8bit(data: bytes, deep: bool) -> NDArray[Any]:
    """The pixels of a file: `from_bytes`, but with `deep` a 16-bit gray image stays (H, W) uint16."""
    with open_image(Path(), data=data) as picture:
        if deep and picture.dtype == np.uint16 and not picture.colour:
            return _single(picture)
        return _in_8bit(picture).array


def storable(data: bytes) -> tuple[str, tuple[int, int], str] | None:
    """Suffix, (height, width), and what decoding for training does, where these bytes can go into a shard as they are:
    8-bit gray or RGB JPEG, PNG or JPEG 2000 that is not rotated; PNG also with an alpha channel, which DALI drops as
    `open_image` does. Reads the header alone; None where the file must be re-encoded.
    """
    png = pngs.plain(data)
    if png:
        return "png", png[:2], "alpha dropped" if png[2] == 4 else ""
    jpeg = jpegs.plain(data)
    if jpeg:
        return "jpg", jpeg, ""
    try:
        with Image.open(io.BytesIO(data), formats=list(_STORED)) as image:
            suffix = _STORED.get(image.format or "")
            deep = (image.format == "PNG" and data[24:25] != b"\x08") or (
                image.format == "JPEG2000" and jpeg2000_depth(data)[0] != 8
            )
            plain = image.mode in ("L", "RGB") and not deep and "transparency" not in image.info
            if suffix and plain and turn(image, data) == 1:
                return suffix, (image.height, image.width), ""
    except (OSError, SyntaxError, ValueError, IndexError, Image.DecompressionBombError):
        pass  # the full reader says what is wrong
    return None


def read_mask(
    paths: Sequence[Path],
    foreground: Foreground = "binary",
    view: Selection = WHOLE_FILE,
    frame: int = 0,
    box: Box | None = None,
) -> NDArray[np.uint8]:
    """(h, w) uint8 in {0, 1}: the union of the mask files, or a box of it. `foreground` is that of `pixels.binary`.

    Raises `ValueError` naming the file that cannot be read or whose size differs from the first one's.
    """
    return mask_of(_opened(paths, view), foreground, frame, box)


def _opened(paths: Sequence[Path], view: Selection) -> Iterator[tuple[str, ImageFile]]:
    """The files with their names, each open until the next is taken."""
    for path in paths:
        try:
            picture = open_image(path, view)
        except ValueError as error:
            raise ValueError(f"mask {path.name}: {error}") from error
        with picture:
            yield path.name, picture
