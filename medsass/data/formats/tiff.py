"""TIFF and its relatives (OME, ImageJ, BigTIFF, NDPI, SVS): frames, channels, pyramid levels, regions.

tifffile reads it. Uncompressed files are memory-mapped, tiled and striped ones are read in regions through zarr; a
compressed file of a single strip is decoded whole. The first series of a file is the image, unless it is the thumbnail of another:
the labels and overviews of slides are others.
"""

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from medsass import budget
from medsass.data.formats import geometry, thumbnail, tiff_damage, tiff_tags
from medsass.data.formats.choice import option, pick_channels
from medsass.data.formats.damage import DamagedError, UnreadableError, readable
from medsass.data.formats.geometry import Box, compose
from medsass.data.formats.image import MOST_PIXELS, ImageFile, Selection, check_level, check_size
from medsass.data.formats.mask import BRIGHT_ZERO, zero_is_bright
from medsass.data.formats.photos.photo import Photo

SEVERAL = "other images in the file left out"
_ALPHA = ((1,), (2,))  # the kind of the first extra sample, associated or not
_SIGNED = (0, -32768, 1)  # ImageJ's calibration of signed pixels: a straight line, its values at 0 and for each step
_FOREIGN = ("ndpi", "svs", "scn", "philips", "bif", "qpi")  # their other series are labels, overviews and the like


def open_tiff(path: Path, view: Selection, data: bytes | None = None) -> ImageFile:
    """Open a TIFF file, in `data` or at `path`. Raises `ValueError` where it is damaged or holds no such image."""
    source = path if data is None else data
    with readable():
        # the planes of this file alone: each of the files of a set would otherwise be the whole set
        tiff = tifffile.TiffFile(io.BytesIO(source) if isinstance(source, bytes) else source, _multifile=False)
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
    """The first series of an open TIFF file, or the largest of an SCN file, which holds the overview first."""

    def __init__(self, tiff: "tifffile.TiffFile", view: Selection, source: Path | bytes) -> None:
        self.tiff, self._source, self._arrays = tiff, source, dict[int, Any]()
        with readable():
            tiff_damage.check_ome(tiff)
            full = [one for one in tiff.series if not one.keyframe.is_reduced] or list(tiff.series)
            full = [one for one in full if not thumbnail.is_one(one, full)] if not tiff.is_ome else full
            self.series = max(full, key=lambda one: one.size) if tiff.is_scn else full[0]
            check_level(view, len(self.series.levels))
            for each in self.series.levels:
                tiff_damage.refuse_elsewhere(each, tiff)
                tiff_damage.refuse(each, tiff.filehandle.size, view)
            part = self.series.levels[view.level]
            self.page = page = part.keyframe
            if part.dtype is None or not {"Y", "X"} <= set(part.axes):
                raise UnreadableError(f"axes {part.axes} of shape {part.shape}; an image has Y and X: save it so")
            self._photometric = getattr(page.photometric, "name", "unknown")
            model = tiff_tags.model_of(page, self._photometric)
            model = "gray" if model == "palette" and view.raw else model
            self._turn = geometry.known_orientation(page.tags.valueof(geometry.ORIENTATION, 1))
            calibration = tiff_tags.calibration_of(tiff) if part.dtype == np.uint16 and not view.raw else ()
            self._signed = calibration == _SIGNED
            self._bits = int(page.bitspersample) if part.dtype.kind in "bu" and not self._signed else 0
            mappable = self._is_mappable(part)
            if page.is_tiled:
                grain = int(page.tilelength), int(page.tilewidth)
            else:
                grain = min(int(page.rowsperstrip), int(page.imagelength)), int(page.imagewidth)
            if not mappable:  # else no strip is read whole
                budget.check(2 * math.prod(page.chunks) * part.dtype.itemsize, "a strip or tile")
            planes = page.samplesperpixel if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE else 1
            divided = len(page.dataoffsets) > planes and grain[0] * grain[1] <= MOST_PIXELS // 4
            least = 0.5 if tiff.is_ome else 0.0  # of OME-TIFF, where smaller ones are labels and overviews
            others = any(one is not self.series and one.size >= least * self.series.size for one in full)
            others |= any(thumbnail.differs(level.keyframe, self.series.keyframe) for level in self.series.levels[1:])
            others &= not any(getattr(tiff, f"is_{name}") for name in _FOREIGN)
        if others and view.raw:
            raise ValueError(
                "it holds several images, of which a mask is one; save each as a file of its own, which are united"
            )
        if not model:
            raise _Rare
        self._model = model
        self._place(tiff_tags.axes_of(part, self._photometric), part.shape, view)
        colour, notes = self._choose(view, part.shape)
        self._raw = view.raw
        shallow = self._model == "gray" and 0 < self._bits < 8
        dtype = np.dtype(np.uint8) if part.dtype.kind == "b" or self._model != "gray" else part.dtype
        dtype = np.dtype(np.int16) if self._signed else dtype
        self._flat = (part.shape[self._y], part.shape[self._x])
        grain = (1, self._flat[1]) if mappable else grain
        first, second = self._y, self._x
        if geometry.swaps_axes(self._turn):
            first, second, grain = second, first, grain[::-1]
        size, samples = (part.shape[first], part.shape[second]), 1
        if self._channel is not None and not mappable:
            samples = part.shape[self._channel]
        super().__init__(*size, colour, dtype, view, streams=mappable or divided, samples=samples)
        if self._photometric == "MINISWHITE" and not view.raw:
            top = (1 << max(self._bits, 8)) - 1 if self._bits else -1 if dtype.kind == "i" else 1
            self.mirror = top
        self.per_channel |= self._apart and colour
        self.levels = tuple((one.shape[first], one.shape[second]) for one in self.series.levels)
        self._grain, self.turn = grain, self._turn
        self.common = True
        left_out = self._select(view, int(np.prod([part.shape[axis] for axis in self._counted], dtype=np.int64)))
        if 8 < self._bits < part.dtype.itemsize * 8:
            self.span = (0.0, float((1 << self._bits) - 1))
        notes = [left_out or SEVERAL * others, *notes]
        notes += ["calibration not applied"] if calibration and not self._signed else []
        notes += [f"{self._bits} bit to 8 bit" if self._bits > 1 else "bilevel to gray"] if shallow else []
        palette = np.asarray(page.colormap if self._photometric == "PALETTE" and view.raw else ())
        bright = self._photometric == "MINISWHITE" or zero_is_bright(palette.T)
        white = BRIGHT_ZERO if view.raw else "inverted (zero is white)"
        notes += [white * bright, "turned upright" * (self._turn != 1)]
        self.converted = ", ".join(filter(None, notes))

    def _place(self, axes: str, shape: tuple[int, ...], view: Selection) -> None:
        """Find the meaning of each axis: rows, columns, samples or channels, and the others, which count frames."""
        self._y, self._x = axes.index("Y"), axes.index("X")
        self._counted = [axis for axis in range(len(axes)) if axis not in (self._y, self._x)]
        at = axes.find("S") if "S" in axes else axes.find("C")
        unknown = axes == "QYX" and 1 < shape[0] <= 4  # an array of which the file says the shape, not the axes
        if at < 0 and len(self._counted) == 1 and view.frames == "auto":
            if view.channels and (unknown or max(view.channels) > 0):
                at = self._counted[0]  # pages that are said to be channels
            elif unknown:
                raise ValueError(
                    f"an array of shape {shape} can be {shape[0]} channels or {shape[0]} slices, and the file does not say; "
                    f"say which: {option(view, 'channels', '0,1,2' if shape[0] > 2 else '0')}, or --frames all"
                )
        self._apart = at >= 0 and axes[at] != "S" and self._photometric != "RGB"
        self._channel = at if at >= 0 else None
        if self._channel is not None:
            self._counted.remove(self._channel)
        self.counted = tuple((axes[axis], shape[axis]) for axis in self._counted)
        if self._counted:
            if view.across and self._turn != 1:
                raise ValueError("a stack with an orientation tag is cut along z only; omit --axis")
            self._counted[-1], self._y, self._x = geometry.cut(view.axis, self._counted[-1], self._y, self._x)
        self._sizes = tuple(shape[axis] for axis in self._counted)

    def _choose(self, view: Selection, shape: tuple[int, ...]) -> tuple[bool, list[str]]:
        """Settle which channels are read; return whether that is colour, and notes on the conversion."""
        count, notes = (shape[self._channel] if self._channel is not None else 1), []
        if self._model != "gray":
            count, notes = 3, [f"{self._model} to RGB"] if self._model != "YCbCr" else []
        opaque: tuple[int, ...] = ()
        if self._photometric == "RGB" and count >= 4:
            opaque = (0, 1, 2)
        elif count == 2 and self.page.samplesperpixel == 2 and tuple(self.page.extrasamples)[:1] in _ALPHA:
            opaque = (0,)
        self._alpha = bool(opaque) and count in (2, 4) and view.mask and not view.channels
        if opaque and not view.channels:
            notes.append("alpha dropped" if count in (2, 4) else f"first 3 of {count} channels")
        self._channels = pick_channels(view, count) if view.channels or not opaque else opaque
        self._whole = self._channels == (0, 1, 2) if count == 3 else self._channel is None
        return len(self._channels) == 3, notes

    def _decode(self, frame: int, box: Box, level: int) -> NDArray[Any]:
        values, place = self._values(frame, box, level), self._channel
        if self._alpha:
            samples = self._samples(frame, box, level)
            whole = level == self.level and (box.height, box.width) == (self.height, self.width)
            parts = [samples] if whole else (self._samples(frame, one, self.level) for one in self.blocks())
            by_alpha = self.once(("alpha", frame), lambda: geometry.shows_alpha(parts))
            pixels = geometry.without_alpha(samples, by_alpha)
        elif place is not None and place < self._x and self._model == "gray":
            pixels = compose(self._channels, values)
        else:
            pixels = values(None)
            if not self._whole:
                samples = pixels
                pixels = compose(self._channels, lambda i: samples[..., i])
        return geometry.upright(pixels, self._turn).astype(self.dtype, copy=False)

    def _samples(self, frame: int, box: Box, level: int) -> NDArray[Any]:
        """Return all samples (h, w, C) of a box, as the file has them turned."""
        samples = self._values(frame, box, level)(None)
        return np.moveaxis(samples, 0, -1) if self._channel is not None and self._channel < self._x else samples

    def _values(self, frame: int, box: Box, level: int) -> Callable[[int | None], NDArray[Any]]:
        """Return what reads a box, of one channel or (None) of all."""
        shape = self.series.levels[level].shape
        height, width = shape[self._y], shape[self._x]
        box, index = geometry.stored_box(box, self._turn, height, width), list[Any]([slice(None)] * len(shape))
        index[self._y], index[self._x] = box.slices
        for axis, at in zip(self._counted, np.unravel_index(frame, self._sizes) if self._sizes else (), strict=True):
            index[axis] = int(at) * shape[axis] // self.series.levels[self.level].shape[axis]  # rows, across a stack
        array = self._stored(level, (box.height, box.width) == (height, width))

        def values(channel: int | None) -> NDArray[Any]:
            if channel is not None and self._channel is not None:
                index[self._channel] = channel
            with readable():
                part = np.asarray(array[tuple(index)])
            return self._natural(part) if self._model == "gray" else self._coloured(part)

        return values

    def _stored(self, level: int, whole: bool) -> Any:
        """Return all pixels of a level as stored, to be indexed: decoded, memory-mapped or read through zarr."""
        part = self.series.levels[level]
        mappable = self._is_mappable(part)
        if whole and not self._sizes and not mappable:
            check_size(*self._flat)
            self.tiff.filehandle.set_lock(True)
            with readable():
                return part.asarray(maxworkers=1)
        with self._lock:
            if level not in self._arrays:
                dtype = part.dtype.newbyteorder(self.tiff.byteorder)
                with readable():
                    self._arrays[level] = self._mapped(part, dtype) if mappable else self._chunked(level)
            return self._arrays[level]

    def _mapped(self, part: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
        if isinstance(self._source, bytes):
            return np.frombuffer(self._source, dtype, int(np.prod(part.shape)), part.dataoffset).reshape(part.shape)
        return np.memmap(self._source, dtype, "r", part.dataoffset, part.shape)

    def _chunked(self, level: int) -> Any:
        import zarr  # takes half a second, for which only large files should pay

        return zarr.open(self.series.aszarr(level=level, maxworkers=1, read_only=True), mode="r")

    def _is_mappable(self, part: Any) -> bool:
        """Return whether the pixels are stored uncompressed one after the other in this file."""
        with readable():
            return part.dataoffset is not None and part.keyframe.parent is self.tiff

    def _natural(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return pixels of at least 8 bits in this machine's byte order, zero black."""
        if self._signed:
            array = (array.astype(np.uint16) ^ np.uint16(1 << 15)).view(np.int16)
        if array.dtype == np.bool_ or self._bits == 1:
            array = array.astype(np.uint8) * np.uint8(1 if self._raw else 255)
        elif 0 < self._bits < 8 and not self._raw:
            array = np.rint(array * (255 / ((1 << self._bits) - 1))).astype(np.uint8)
        array = array.astype(self.dtype, copy=False)
        return array if self.mirror is None else array.dtype.type(self.mirror) - array

    def _coloured(self, array: NDArray[Any]) -> NDArray[np.uint8]:
        """Turn indices of a palette, CMYK or YCbCr into (h, w, 3) RGB."""
        if self._model == "palette":
            table = np.asarray(self.page.colormap)
            if table.ndim != 2 or len(table) != 3 or array.max(initial=0) >= table.shape[1]:
                raise DamagedError(
                    f"damaged: a palette of shape {table.shape} for indices up to {array.max(initial=0)}"
                )
            table = (table >> 8 if table.max() > 255 else table).astype(np.uint8).T
            return np.ascontiguousarray(table)[array.astype(np.intp)]
        planes = np.moveaxis(array, 0, -1) if self._channel is not None and self._channel < self._x else array
        if self._model == "YCbCr" and self.page.compression != tiff_tags.APERIO_YCBCR:
            return planes
        with readable():
            return np.asarray(Image.fromarray(np.ascontiguousarray(planes), self._model).convert("RGB"))

    def close(self) -> None:
        """Close the file."""
        super().close()
        with self._lock:
            self._arrays = {}
            self.tiff.close()
