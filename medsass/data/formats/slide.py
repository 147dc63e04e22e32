"""Slides: tiled pyramids, read by cuCIM where it can be used and trusted, else by tifffile. The pixels are the same.

cuCIM never returns if it is imported after torch, has no reader for NDPI, and fills what it cannot decode of a JPEG
slide with whatever the memory held. So it must first agree with tifffile, and tiles that are damaged go to tifffile,
which says what is wrong.
"""

import importlib
import sys
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from medsass.data.formats.damage import readable
from medsass.data.formats.geometry import Box
from medsass.data.formats.image import ImageFile, Selection
from medsass.data.formats.photos import jpeg
from medsass.data.formats.tiff import Tiff, open_tiff
from medsass.data.formats.virtual_slide import VirtualSlide

_SAMPLE = 64  # pixels of each side of the region that both readers decode at first


def open_slide(path: Path, view: Selection) -> ImageFile:
    """Open the slide at `path`. Raises `ValueError` as `open_tiff` does.

    cuCIM reads single RGB images of 8 bits in compressed tiles, as slide scanners write them, where it can be used.
    """
    picture = open_tiff(path, view)
    if not isinstance(picture, Tiff):
        return picture
    if picture.tiff.is_bif:  # its tiles overlap, which tifffile does not mend
        picture.close()
        return VirtualSlide(path, view)
    page, levels = picture.page, len(picture.levels)
    usual = picture.colour and picture.dtype == np.uint8 and picture.total == 1 and not picture.converted
    scanned = picture.tiff.is_svs or (levels > 1 and not picture.tiff.is_ndpi)
    compressed = page.is_tiled and page.compression != 1
    if not (usual and scanned and compressed) or picture.per_channel or (reader := _cucim()) is None:
        return picture
    try:
        slide = Slide(picture.tiff, view, path, reader(str(path)))
        if slide.agrees():
            return slide
    except (RuntimeError, ValueError, OSError):
        pass  # not a file for cuCIM
    return picture


class Slide(Tiff):
    """A slide of 8-bit RGB whose regions cuCIM reads."""

    def __init__(self, tiff: "tifffile.TiffFile", view: Selection, path: Path, reader: Any) -> None:
        super().__init__(tiff, view, path)
        self._reader, self._sound = reader, set[tuple[int, int]]()
        self._scales = [float(scale) for scale in reader.resolutions["level_downsamples"]]
        tiff.filehandle.set_lock(True)

    def agrees(self) -> bool:
        """Return whether cuCIM sees the same levels, and the same pixels where they are not all alike."""
        if [tuple(size[::-1]) for size in self._reader.resolutions["level_dimensions"]] != list(self.levels):
            return False
        height, width = min(_SAMPLE, self.height), min(_SAMPLE, self.width)
        for share in (0.5, 0.25, 0.75):
            box = Box(int((self.height - height) * share), int((self.width - width) * share), height, width)
            truth = super()._decode(0, box, self.level)
            if not np.array_equal(self._by_cucim(box, self.level), truth):
                return False
            if truth.min() < truth.max():
                return True
        return True

    def _decode(self, frame: int, box: Box, level: int) -> NDArray[Any]:
        if self._is_sound(box, level):
            try:
                return self._by_cucim(box, level)
            except RuntimeError:
                pass  # tifffile says what is wrong
        return super()._decode(frame, box, level)

    def _by_cucim(self, box: Box, level: int) -> NDArray[Any]:
        # cuCIM takes places of level 0 and rounds them down to pixels of the level: the middle of a pixel is safe
        place = tuple(int((at + 0.5) * self._scales[level]) for at in (box.x, box.y))
        array = np.asarray(self._reader.read_region(place, (box.width, box.height), level=level))
        if array.shape != (box.height, box.width, 3):
            raise RuntimeError(f"cuCIM returned pixels of shape {array.shape}")
        return array

    def _is_sound(self, box: Box, level: int) -> bool:
        """Return whether all tiles of a region are JPEG or JPEG 2000 that can be decoded to the end."""
        page = self.series.levels[level].keyframe
        height, width, across = page.tilelength, page.tilewidth, page.chunked[1]
        rows = range(box.y // height, (box.y + box.height - 1) // height + 1)
        columns = range(box.x // width, (box.x + box.width - 1) // width + 1)
        tiles = {(level, row * across + column) for row in rows for column in columns} - self._sound
        for _, index in tiles:
            with readable(), self.tiff.filehandle.lock:
                self.tiff.filehandle.seek(page.dataoffsets[index])
                data = self.tiff.filehandle.read(page.databytecounts[index])
            if not _can_be_decoded(data, page.jpegtables or b""):
                return False
        self._sound |= tiles
        return True


def _can_be_decoded(data: bytes, tables: bytes) -> bool:
    """Return whether `data` begins a JPEG 2000 codestream, or is JPEG with a frame before its scan and whole pixel data."""
    if data.startswith(b"\xff\x4f\xff\x51"):
        return True
    header = [segment.marker for segment in takewhile(lambda one: one.marker != jpeg.SOS, jpeg.segments(data))]
    if not data.startswith(jpeg.SOI) or not any(0xC0 <= marker <= 0xC2 for marker in header):
        return False
    with suppress(ValueError):
        jpeg.check_pixels(data, tables)
        return True
    return False


def _cucim() -> Any | None:
    """Return cuCIM's reader, or None where it is missing or must not be imported."""
    if "torch" in sys.modules and "cucim" not in sys.modules:
        return None
    try:
        return importlib.import_module("cucim").CuImage
    except (ImportError, OSError, AttributeError):
        return None
