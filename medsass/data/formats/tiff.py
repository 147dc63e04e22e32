"""TIFF and what is built on it (OME, ImageJ, BigTIFF, NDPI, SVS): frames, channels, pyramid levels, regions.

tifffile reads it. Uncompressed files are memory-mapped, tiled and striped ones are read in regions through zarr; a
compressed file of a single strip is decoded whole. The first series of a file is the image: the labels and overviews
of slides are others.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from medsass.data.formats import channels, orientation
from medsass.data.formats.geometry import Box
from medsass.data.formats.image import MOST_PIXELS, ImageFile, Selection, check_level, check_size
from medsass.data.formats.photo import Photo

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_JPEG = (6, 7, 33003, 33004, 33005, 34712)  # compressions whose YCbCr the decoder turns into RGB, or `_ycbcr` does
_APERIO_YCBCR = 33003  # JPEG 2000 that does not say that it is YCbCr
_PLAIN = ("MINISBLACK", "MINISWHITE", "RGB", "PALETTE")
_ALPHA = (1, 2)  # kinds of extra samples
_FOREIGN = ("ndpi", "svs", "scn", "ome", "philips", "bif")  # their other series are labels, overviews and the like


def open_tiff(path: Path, view: Selection, data: bytes | None = None) -> ImageFile:
    """The image of a TIFF file, in `data` or at `path`. Raises what `readable` knows."""
    source = path if data is None else data
    tiff = tifffile.TiffFile(io.BytesIO(source) if isinstance(source, bytes) else source)
    try:
        return Tiff(tiff, view, source)
    except _Rare:
        tiff.close()
        return Photo(source if isinstance(source, bytes) else source.read_bytes(), view)
    except BaseException:
        tiff.close()
        raise


class _Rare(Exception):  # noqa: N818 - not an error of the file
    """A colour model that Pillow knows and tifffile does not."""


class Tiff(ImageFile):
    """The first series of an open TIFF file, or of an SCN file, which holds the overview first, the largest."""

    def __init__(self, tiff: "tifffile.TiffFile", view: Selection, source: Path | bytes) -> None:
        self.tiff, self._source, self._arrays = tiff, source, dict[int, Any]()
        series = max(tiff.series, key=lambda one: one.size) if tiff.is_scn else tiff.series[0]
        check_level(view, len(series.levels))
        self.series, part = series, series.levels[view.level]
        self.page = page = part.keyframe
        if part.dtype is None or not {"Y", "X"} <= set(part.axes):
            raise ValueError(f"expected images; got axes {part.axes} of shape {part.shape}")
        self._place(part.axes, part.shape, view)
        self._model = _model(page)
        self._turn = orientation.known(page.tags.valueof(orientation.TAG, 1))
        colour, notes = self._choose(page, view, part.shape)
        self._invert = _photometric(page) == "MINISWHITE"
        self._bits = int(page.bitspersample) if part.dtype.kind in "bu" else 0
        shallow = self._model == "gray" and 0 < self._bits < 8
        dtype = np.dtype(np.uint8) if part.dtype.kind == "b" or self._model != "gray" else part.dtype
        contiguous = self._is_mappable(part)
        self._flat = (part.shape[self._y], part.shape[self._x])
        swap = orientation.swaps(self._turn)
        super().__init__(
            *(self._flat[::-1] if swap else self._flat), colour, dtype, view, streams=contiguous or _divided(page)
        )
        first, second = (self._x, self._y) if swap else (self._y, self._x)
        self.levels = tuple((one.shape[first], one.shape[second]) for one in series.levels)
        grain = (1, self._flat[1]) if contiguous else _grain(page)
        self._grain = (grain[1], grain[0]) if swap else grain
        self.total = int(np.prod([part.shape[axis] for axis in self._counted], dtype=np.int64))
        self.frames = self.total if view.frames == "all" else 1
        if 8 < self._bits < part.dtype.itemsize * 8:
            self.span = (0.0, float((1 << self._bits) - 1))
        _check_end(page, tiff.filehandle.size)
        notes += [f"{self._bits} bit to 8 bit" if self._bits > 1 else "bilevel to gray"] if shallow else []
        notes += ["inverted (zero is white)" if self._invert else "", "turned upright" if self._turn != 1 else ""]
        self.converted = ", ".join(filter(None, [self._left_out(), *notes]))

    def _left_out(self) -> str:
        """What of the file is not read, in words."""
        if self.total > self.frames:
            return f"first of {self.total} frames"
        others = len(self.tiff.series) > 1 and not any(getattr(self.tiff, f"is_{name}") for name in _FOREIGN)
        return "first of several images in the file" if others else ""

    def _place(self, axes: str, shape: tuple[int, ...], view: Selection) -> None:
        """Find what each axis is: rows, columns, samples or channels, and the others, which count frames."""
        self._y, self._x = axes.index("Y"), axes.index("X")
        self._counted = [axis for axis in range(len(axes)) if axis not in (self._y, self._x)]
        at = axes.find("S") if "S" in axes else axes.find("C")
        if at < 0 and len(self._counted) == 1 and view.frames == "first" and max(view.channels, default=0) > 0:
            at = self._counted[0]  # pages of one file that the recipe says are channels
        self._channel = at if at >= 0 else None
        if self._channel is not None:
            self._counted.remove(self._channel)
        self._sizes = tuple(shape[axis] for axis in self._counted)

    def _choose(self, page: Any, view: Selection, shape: tuple[int, ...]) -> tuple[bool, list[str]]:
        """Settle which channels are read; whether that is colour, and what to call it."""
        count, notes = (shape[self._channel] if self._channel is not None else 1), []
        if self._model != "gray":
            count, notes = 3, [f"{self._model} to RGB"] if self._model != "YCbCr" else []
        if view.channels:
            channels.check(view.channels, count)
            self._channels = view.channels
        elif count in (1, 3):
            self._channels = tuple(range(count))
        elif _photometric(page) == "RGB" and count == 4:
            self._channels, notes = (0, 1, 2), [*notes, "alpha dropped"]
        elif count == 2 and page.samplesperpixel == 2 and tuple(page.extrasamples)[:1] in [(kind,) for kind in _ALPHA]:
            self._channels, notes = (0,), [*notes, "alpha dropped"]
        else:
            raise channels.needed(count)
        return len(self._channels) == 3, notes

    def _decode(self, frame: int, box: Box, level: int) -> NDArray[Any]:
        shape = self.series.levels[level].shape
        height, width = shape[self._y], shape[self._x]
        box, index = orientation.lying(box, self._turn, height, width), list[Any]([slice(None)] * len(shape))
        index[self._y], index[self._x] = box.slices
        for axis, at in zip(self._counted, np.unravel_index(frame, self._sizes) if self._sizes else (), strict=True):
            index[axis] = int(at)
        array = self._stored(level, (box.height, box.width) == (height, width))
        if self._model != "gray":
            pixels = self._coloured(np.asarray(array[tuple(index)]))
            pixels = (
                channels.composed(self._channels, lambda i: pixels[..., i]) if self._channels != (0, 1, 2) else pixels
            )
        elif self._channel is None:
            pixels = self._natural(np.asarray(array[tuple(index)]))
        elif self._channel > self._x:
            samples = self._natural(np.asarray(array[tuple(index)]))
            whole = self._channels == tuple(range(samples.shape[-1]))
            pixels = (
                samples
                if whole and len(self._channels) == 3
                else channels.composed(self._channels, lambda i: samples[..., i])
            )
        else:
            place = self._channel
            pixels = channels.composed(
                self._channels, lambda i: self._natural(np.asarray(array[(*index[:place], i, *index[place + 1 :])]))
            )
        return orientation.upright(pixels, self._turn).astype(self.dtype, copy=False)

    def _stored(self, level: int, whole: bool) -> Any:
        """All pixels of a level as they are stored, to be indexed: decoded, memory-mapped or read through zarr."""
        part = self.series.levels[level]
        if whole and not self._sizes and not self._is_mappable(part):
            check_size(*self._flat)
            self.tiff.filehandle.set_lock(True)
            return part.asarray(maxworkers=1)
        with self._lock:
            if level not in self._arrays:
                dtype = part.dtype.newbyteorder(self.tiff.byteorder)
                if not self._is_mappable(part):
                    import zarr  # takes half a second, for which only large files should pay

                    self._arrays[level] = zarr.open(self.series.aszarr(level=level, maxworkers=1), mode="r")
                elif isinstance(self._source, bytes):
                    values = np.frombuffer(self._source, dtype, int(np.prod(part.shape)), part.dataoffset)
                    self._arrays[level] = values.reshape(part.shape)
                else:
                    self._arrays[level] = np.memmap(self._source, dtype, "r", part.dataoffset, part.shape)
            return self._arrays[level]

    def _is_mappable(self, part: Any) -> bool:
        """Whether the pixels stand in this file one after the other as they are."""
        return part.dataoffset is not None and part.keyframe.parent is self.tiff

    def _natural(self, array: NDArray[Any]) -> NDArray[Any]:
        """Pixels of at least 8 bits in this machine's byte order, zero black."""
        if array.dtype == np.bool_ or self._bits == 1:
            array, top = array.astype(np.uint8) * np.uint8(255), 255
        elif 0 < self._bits < 8:
            array, top = np.rint(array * (255 / ((1 << self._bits) - 1))).astype(np.uint8), 255
        else:
            top = (1 << self._bits) - 1 if self._bits else -1 if array.dtype.kind == "i" else 1
            array = array.astype(self.dtype, copy=False)
        return array.dtype.type(top) - array if self._invert else array

    def _coloured(self, array: NDArray[Any]) -> NDArray[np.uint8]:
        """Indices of a palette, CMYK or YCbCr -> (h, w, 3) RGB."""
        if self._model == "palette":
            table = np.asarray(self.page.colormap)
            return np.ascontiguousarray((table >> 8 if table.max() > 255 else table).astype(np.uint8).T)[
                array.astype(np.intp)
            ]
        planes = np.moveaxis(array, 0, -1) if self._channel is not None and self._channel < self._x else array
        if self._model == "YCbCr" and self.page.compression != _APERIO_YCBCR:
            return planes
        mode = "CMYK" if self._model == "CMYK" else "YCbCr"
        return np.asarray(Image.fromarray(np.ascontiguousarray(planes), mode).convert("RGB"))

    def close(self) -> None:
        """Close the file."""
        super().close()
        with self._lock:
            self._arrays = {}
            self.tiff.close()


def _photometric(page: Any) -> str:
    return getattr(page.photometric, "name", "unknown")


def _model(page: Any) -> str:
    """The colour model of a page: "gray" for all that needs no conversion. Raises `_Rare`."""
    name = _photometric(page)
    if page.compression == _APERIO_YCBCR:
        return "YCbCr"
    if name in _PLAIN:
        return "palette" if name == "PALETTE" else "gray"
    if name == "SEPARATED" and page.samplesperpixel == 4 and page.dtype == np.uint8:
        return "CMYK"
    if name == "YCBCR" and page.compression in _JPEG:
        return "YCbCr"
    raise _Rare


def _check_end(page: Any, size: int) -> None:
    """Raise `ValueError` where a file of `size` bytes ends before the data of the page: decoders may invent the rest."""
    ends = np.array(page.dataoffsets, np.int64) + np.array(page.databytecounts, np.int64)
    if ends.max(initial=0) > size:
        raise ValueError(f"truncated: the file has {size:,} bytes of {ends.max():,}")


def _divided(page: Any) -> bool:
    """True where the pixels are in several tiles or strips of moderate size."""
    rows, columns = _grain(page)
    planes = page.samplesperpixel if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE else 1
    return len(page.dataoffsets) > planes and rows * columns <= MOST_PIXELS // 4


def _grain(page: Any) -> tuple[int, int]:
    """Rows and columns of a tile or strip."""
    if page.is_tiled:
        return int(page.tilelength), int(page.tilewidth)
    return min(int(page.rowsperstrip), int(page.imagelength)), int(page.imagewidth)
