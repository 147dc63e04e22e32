"""Open image files by the reader of their content, whatever they are named, and read them as 8 bits.

No reader decodes more than MOST_PIXELS pixels at once, or what takes more memory than `medsass.budget` allows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsass import budget
from medsass.data.formats import depth, kinds, slide, tiff
from medsass.data.formats.arrays import hdf5, numpy_file, zarr_file
from medsass.data.formats.damage import DamagedError
from medsass.data.formats.dicom.opening import open_dicom
from medsass.data.formats.image import WHOLE_FILE, ImageFile, Selection
from medsass.data.formats.photos import coded, integrity, photo, plain
from medsass.data.formats.virtual_slide import VirtualSlide
from medsass.data.formats.volumes import itk, nifti

_VOLUMES: dict[str, Callable[[Path, Selection], ImageFile]] = {"nifti": nifti.Nifti, "nrrd": itk.Nrrd, "meta": itk.Meta}
_USUAL = "; leave it out, or save it as PNG, TIFF or NIfTI"
_STORED = {"JPEG": "jpg", "PNG": "png", "JPEG2000": "jp2"}  # Pillow's format -> suffix in a shard
_HINTS = {
    ".npy": "; it holds pickled Python objects, not an array of numbers",
    ".vsi": "; export it as OME-TIFF, by QuPath or bfconvert",
    ".img": "; its header must lie beside it: open that",
}
_HINTS |= dict.fromkeys((".cr2", ".cr3", ".nef", ".arw", ".dng"), " (a camera's raw data); save it as TIFF")


@dataclass(frozen=True)
class Pixels:
    """A decoded image: `array`, (H, W) or (H, W, 3) uint8 or deep (H, W) uint16, how it was converted, or "", and which
    pixels are padding (H, W), None where none is.
    """

    array: NDArray[Any]
    converted: str = ""
    outside: NDArray[np.bool_] | None = None


def open_image(path: Path, view: Selection = WHOLE_FILE, data: bytes | None = None) -> ImageFile:
    """Open an image file; close it, or use it in a `with` statement.

    Args:
        path: where the file is. Slides, volumes and NumPy files must be on this machine, because they are read in parts.
        view: the part of the file that is the image.
        data: the file's bytes, where they are at hand; then `path` only names it.

    Raises:
        ValueError: with the reason, where the file is not an image that can be read as `view` asks.
        OSError: where it cannot be opened.
    """
    kind, data = _look(path, data)
    if kind in kinds.IN_PARTS and not (isinstance(path, Path) and path.exists()):
        raise ValueError(f"this kind of file ({kind}) is read in parts and must be on this machine: copy it first")
    if kind == "volume":
        with path.open("rb") as file:
            head = file.read(kinds.HEAD)
        packed = nifti.Nifti if head.startswith(kinds.GZIP) else None  # which says what is wrong with it
        reader = _VOLUMES.get(kinds.volume(head) or kinds.volume(head, path.suffix.lower()), packed)
        if reader is None:
            raise DamagedError("not a volume, by its content")
        return reader(path, view)
    if kind == "hdf5":
        return hdf5.Hdf5(path, view)
    if kind == "zarr":
        return zarr_file.open_zarr(path, view)
    if kind == "openslide":
        return VirtualSlide(path, view)
    if kind == "array":
        return numpy_file.Array(path, view)
    if kind == "slide" or (kind == "tiff" and data is None):
        return slide.open_slide(path, view)
    if kind == "tiff":
        return tiff.open_tiff(path, view, data)
    if kind == "dicom":
        return open_dicom(path if data is None else data, view)
    if kind != "photo":
        raise ValueError(f"not an image file that can be read{_HINTS.get(path.suffix.lower(), _USUAL)}")
    return open_photo(data or b"", view)


def _look(path: Path, data: bytes | None) -> tuple[str, bytes | None]:
    """Return the kind of a file, and its bytes where they are at hand or needed whole."""
    if data is not None:
        head, kind = data, kinds.kind(data[: kinds.HEAD], path)
    else:
        try:
            with path.open("rb") as file:
                head = file.read(kinds.HEAD)
                kind = kinds.kind(head, path)
                if kind == "photo":
                    budget.check(path.stat().st_size, "reading its bytes")
                data = head + file.read() if kind == "photo" else None
        except IsADirectoryError:
            return "zarr" if kinds.is_zarr(path) else "", None
    if not head:
        raise DamagedError("empty file (0 bytes)")
    return kind, data


def open_photo(data: bytes, view: Selection) -> ImageFile:
    """Open a photograph by its bytes. Raises `ValueError` as `open_image` does."""
    if data.startswith(kinds.PNG_MAGIC):
        integrity.check_surplus(data)
    png = None if view.level or view.channels or isinstance(view.frames, int) else plain.plain_png(data)
    if png and not (view.mask and png[2] == 4):  # a mask may be in its alpha
        return plain.Png(data, view, *png)
    return coded.open_coded(data, view) or photo.Photo(data, view)


def from_bytes(data: bytes, deep: bool = False) -> Pixels:
    """Decode the bytes of a file that holds one image, as `pixels` does.

    Raises:
        ValueError: with the reason, where the file is empty, truncated or not one image.
    """
    with open_image(Path(), data=data) as picture:
        if picture.frames > 1:
            shape = (picture.frames, *picture.read().shape)
            raise ValueError(f"expected one gray (H, W) or colour (H, W, 3) image; got shape {shape}")
        return pixels(picture, deep=deep)


def pixels(picture: ImageFile, frame: int = 0, deep: bool = False, window: depth.Limits | None = None) -> Pixels:
    """Read a frame as 8-bit gray or RGB, upright by its orientation tag.

    Palettes, CMYK and YCbCr become RGB, alpha is dropped, deeper pixels are mapped linearly to 0..255 from the `window`, the
    limits that the file states, or else the image's own range; with `deep` a 16-bit gray image stays (H, W) uint16.

    Raises:
        ValueError: where the frame cannot be decoded.
    """
    array, outside = picture.read(frame), None
    if picture.padding is not None and not picture.colour:
        found = depth.outside(array, picture.padding)
        outside = found if found.any() else None
    kept = deep and window is None and array.dtype == np.uint16 and array.ndim == 2
    if kept or not depth.needs_scaling(picture, 8, window):
        return Pixels(array, picture.converted, outside)
    array = depth.scaled(array, depth.limits(picture, frame, "minmax", window), 8, picture.padding)
    deeper = f"{picture.dtype} to 8 bit" if picture.dtype != array.dtype else ""
    return Pixels(array, ", ".join(filter(None, (picture.converted, deeper))), outside)


def storable(data: bytes) -> tuple[str, tuple[int, int], str] | None:
    """Return suffix, (height, width) and what decoding for training does, of a file that a shard can keep unchanged.

    That is an 8-bit gray or RGB (not sYCC) JPEG, PNG or JPEG 2000 that is not rotated; PNG also with an alpha channel, which DALI
    drops as `open_image` does. Reads the header alone; None where the file must be re-encoded.
    """
    png = plain.plain_png(data)
    if png:
        return "png", png[:2], "alpha dropped" if png[2] == 4 else ""
    jpeg = plain.plain_jpeg(data)
    if jpeg:
        return "jpg", jpeg, ""
    try:
        image = photo.identify(data, list(_STORED))
        usual = image.mode in ("L", "RGB") and "transparency" not in image.info
        if image.format == "PNG":
            usual = usual and data[24:25] == b"\x08"
        if image.format == "JPEG":
            usual = usual and not coded.is_coded(data)
        if image.format == "JPEG2000":
            usual = usual and photo.jpeg2000_depth(data)[::2] == (8, False) and plain.usual_jpeg2000(data)
        if image.format in _STORED and usual and photo.orientation(image, data) == 1:
            return _STORED[image.format], (image.height, image.width), ""
    except ValueError:
        pass  # the full reader says what is wrong
    return None
