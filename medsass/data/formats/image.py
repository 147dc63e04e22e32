"""An open image file, of which frames and boxes can be read. Each format's reader is a subclass."""

import io
import threading
from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar, cast

import numpy as np
import tifffile
from numpy.typing import NDArray

from medsass import budget
from medsass.data.formats import geometry
from medsass.data.formats.damage import DamagedError, UnreadableError
from medsass.data.formats.geometry import Box

MOST_PIXELS = 178_956_970  # of an image that is decoded whole: Pillow's own limit
MOST_FRAMES = 1 << 20  # that are read of a file

_BLOCK, _ACROSS = 1 << 21, 1 << 11  # pixels of a block of a streamed image, and its width, about
_NONE = 1e-6  # of a pixel: what rounding may leave
_CACHED = 2  # decoded frames: threads pass from one to the next at different times
_COPIES = 3  # of the pixels, while they are decoded, turned and chosen from

T = TypeVar("T")


@dataclass(frozen=True)
class Selection:
    """The part of a file that is the image.

    Args:
        array: member of an .npz file; "" is the first that can be an image.
        channels: of a file with several: one index is read as gray, three as red, green and blue, -1 is a black
            channel; () reads the file by its own kind (1: gray, 3: RGB, 4: RGB with alpha, which is dropped).
        frames: "auto" (all of a volume or stack, the first of an animation), "first", "middle", "all" or a number from 0.
        level: of a pyramid; 0 is full resolution.
        axis: along which a volume is cut into slices: "z" (axial), "y" (coronal) or "x" (sagittal); "" is the plane in
            which DICOM slices were taken, and "z" for all else.
        every: of the slices of a volume or stack, each n-th is taken.
        mask: whether a mask is read: its alpha where that alone is the mask; messages name other remedies.
        raw: as most masks need: indices of a palette, bits and levels unscaled, nothing inverted.
    """

    array: str = ""
    channels: tuple[int, ...] = ()
    frames: str | int = "auto"
    level: int = 0
    axis: str = ""
    every: int = 1
    mask: bool = False
    raw: bool = False

    @property
    def across(self) -> bool:
        """Whether slices are cut across those that the file stores."""
        return self.axis in ("y", "x")


WHOLE_FILE = Selection()


class ImageFile(AbstractContextManager["ImageFile"]):
    """An open image file; safe to read from several threads.

    Attributes:
        height, width: of one frame at the chosen level.
        colour: whether pixels have three channels.
        dtype: of the pixels, real.
        frames, total: number of frames that can be read, and that the file holds.
        indices: the numbers in the file, from 0, of the frames that can be read.
        levels: (height, width) of each level of the pyramid.
        converted: what reading does to the pixels, or "".
        limits: values that are black and white where the file says so.
        mirror: the sum of a value as stored and as read, where the file's zero is white; None where values are not inverted.
        common: whether the range of values is one for all frames, as for slices of a volume.
        padding: the lowest and the highest of the values that mark pixels outside of the picture; (NaN, NaN) for NaN.
        span: the range of values that the file's pixel type can hold; (0, 1) for floats.
        per_channel: whether the channels were chosen one by one, so that they have no common scale.
        turn: the orientation tag by which it was turned upright; 1 where it was not.
        streams: whether a box is read without the rest of its frame; otherwise frames are decoded whole and kept.
        suffix: of the file that `encode` makes.
        slide: whether it is a whole slide, whatever its size.
        counted: the letter and the length of each axis that counts frames, the last one fastest, where the file names them.
    """

    suffix, slide = ".tif", False
    counted: tuple[tuple[str, int], ...] = ()

    def __init__(
        self, height: int, width: int, colour: bool, dtype: np.dtype[Any], view: Selection, *, streams: bool = False,
        samples: int = 0,
    ) -> None:  # fmt: skip
        """`samples` are the values of each pixel that are decoded, where they are more than those that are read."""
        if dtype.kind not in "uif":
            raise ValueError(f"pixels of type {dtype} are not supported; save them as integers or floats")
        if min(height, width) < 1:
            raise DamagedError(f"damaged: an image of {width}x{height} pixels")
        self._each = max(samples, 3 if colour else 1) * dtype.itemsize * _COPIES  # bytes that reading takes for a pixel
        if not streams:
            check_size(height, width, self._each)
        self.height, self.width, self.colour, self.dtype = height, width, colour, dtype.newbyteorder("=")
        self.indices, self.frames, self.total, self.turn = range(1), 1, 1, 1
        self.level = view.level
        self.levels: tuple[tuple[int, int], ...] = ((height, width),)
        self.converted, self.per_channel, self.streams = "", len(view.channels) == 3, streams
        self.limits: tuple[float, float] | None = None
        self.mirror: float | None = None
        self.common, self.padding = False, None  # type: bool, tuple[float, float] | None
        self.span = (0.0, 1.0) if dtype.kind == "f" else (float(np.iinfo(dtype).min), float(np.iinfo(dtype).max))
        self._grain = (1, 1)  # rows and columns that the file stores together
        self._cache: dict[int, NDArray[Any]] = {}
        self._known: dict[Hashable, Any] = {}
        self._lock = threading.RLock()

    @abstractmethod
    def _decode(self, frame: int, box: Box, level: int, /) -> NDArray[Any]:
        """Decode a box of the frame with this number in the file; the whole frame at the chosen level unless `streams`."""

    def read(self, frame: int = 0, box: Box | None = None) -> NDArray[Any]:
        """Return the pixels of a frame, or of a box of it: (h, w) or (h, w, 3) of `dtype`. Never write into them.

        Raises:
            ValueError: where the file cannot be decoded, has no such frame or box, or is too large to decode whole.
        """
        if not 0 <= frame < self.frames:
            raise ValueError(f"no frame {frame}: there are {self.frames}, numbered from 0")
        box = box or Box(0, 0, self.height, self.width)
        if min(box.y, box.x) < 0 or box.y + box.height > self.height or box.x + box.width > self.width:
            raise ValueError(f"{box} is not within the image of {self.width}x{self.height} pixels")
        if self.streams:
            check_size(box.height, box.width, self._each)
        return self._region(frame, box, self.level)

    def _select(self, view: Selection, total: int, *, animated: bool = False) -> str:
        """Make the frames that `view` asks for, of `total`, those that can be read; return a note on those left out."""
        self.indices, self.total = chosen(view, total, animated=animated), total
        self.frames = len(self.indices)
        if self.frames == total:
            return ""
        if self.frames > 1:
            return f"{self.frames} of {total} frames"
        return f"first of {total} frames" if self.indices[0] == 0 else f"frame {self.indices[0]} of {total}"

    def pieces(self, frame: int = 0) -> Iterator[NDArray[Any]]:
        """Yield all pixels of a frame: in blocks of a bounded size, or at once where it is decoded whole anyway."""
        for box in self.blocks() if self.streams else [None]:
            yield self.read(frame, box)

    def values(self, frame: int = 0) -> Iterator[NDArray[Any]]:
        """Yield the pixels whose values set the range of a frame: its own, or of all frames where that is `common`."""
        for one in range(self.frames) if self.common else [frame]:
            yield from self.pieces(one)

    @property
    def stack(self) -> bool:
        """Whether the frames are slices of one whole, so that their masks belong into one file."""
        return self.frames > 1

    def encode(self, slices: NDArray[Any]) -> bytes:
        """Return a file, with the suffix `suffix`, of other images (n, h, w) or (n, h, w, 3), one for each frame."""
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, slices, compression="zlib", photometric="rgb" if slices.ndim == 4 else "minisblack")
        return buffer.getvalue()

    def small(self, frame: int = 0, most: int = 1024) -> NDArray[Any]:
        """Return the frame reduced by area averages, without padding, so that its longer side is at most `most` pixels; of `dtype`.

        Read from the nearest larger level of a pyramid, in blocks, so that memory does not grow with the image.
        """
        if max(self.height, self.width) <= most:
            return self.read(frame)
        level = self.level
        if self.streams:
            fit = (i for i in range(level, len(self.levels)) if max(self.levels[i]) >= most)
            level = min(fit, key=lambda i: max(self.levels[i]), default=level)
        full = self.levels[level]
        size = [max(1, round(side * most / max(full))) for side in full]
        total = np.zeros((*size, 3) if self.colour else tuple(size))
        shares = (
            np.zeros_like(total) if self.dtype.kind == "f" or self.padding else None
        )  # of pixels that are no padding
        low, high = self.padding or (np.nan, np.nan)

        def add(sums: NDArray[np.float64], pixels: NDArray[Any], box: Box) -> None:
            part, top = geometry.reduced(pixels, box.y, full[0], size[0])
            part, left = geometry.reduced(part.swapaxes(0, 1), box.x, full[1], size[1])
            sums[top : top + part.shape[1], left : left + part.shape[0]] += part.swapaxes(0, 1)

        for box in self.blocks(level):
            pixels = self._region(frame, box, level)
            if shares is not None:
                valid = ~(np.isnan(pixels) | ((pixels >= low) & (pixels <= high)))
                pixels = np.where(valid, pixels, 0)
                add(shares, valid, box)
            add(total, pixels, box)
        if shares is not None:
            total = np.where(shares > _NONE, total / np.maximum(shares, _NONE), low)
        return (total if self.dtype.kind == "f" else np.rint(total)).astype(self.dtype)

    def blocks(self, level: int | None = None) -> Iterator[Box]:
        """Yield boxes of a bounded number of pixels that cover a frame at the chosen or the given level."""
        height, width = self.levels[self.level if level is None else level]
        down, across = self._grain
        columns = min(max(1, _ACROSS // across) * across, width)
        rows = min(max(1, _BLOCK // columns // down) * down, height)
        for y in range(0, height, rows):
            for x in range(0, width, columns):
                yield Box(y, x, min(rows, height - y), min(columns, width - x))

    def once(self, key: Hashable, find: Callable[[], T]) -> T:
        """Return `find()`, called for the first call with `key` only."""
        with self._lock:
            if key not in self._known:
                self._known[key] = find()
            return cast(T, self._known[key])

    def close(self) -> None:
        """Close the file and forget the decoded frames."""
        with self._lock:
            self._cache = {}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _region(self, frame: int, box: Box, level: int) -> NDArray[Any]:
        if self.streams:
            return self._checked(frame, box, level)
        with self._lock:
            if frame not in self._cache:
                self._cache = dict(list(self._cache.items())[1 - _CACHED :])
                array = np.ascontiguousarray(self._checked(frame, Box(0, 0, self.height, self.width), level))
                array.setflags(write=False)
                self._cache[frame] = array
            return self._cache[frame][box.slices]

    def _checked(self, frame: int, box: Box, level: int) -> NDArray[Any]:
        array, size = self._decode(self.indices[frame], box, level), (box.height, box.width)
        if array.shape != ((*size, 3) if self.colour else size):
            raise DamagedError(
                f"damaged: {wxh(size)} pixels by its header, an array of shape {array.shape} by its data"
            )
        return array


def wxh(shape: tuple[int, ...]) -> str:
    """Return an array's (H, W, ...) as people write it: "width x height"."""
    return f"{shape[1]}x{shape[0]}"


def check_size(height: int, width: int, each: float = 0) -> None:
    """Refuse an image that is too large to be decoded whole, which takes `each` bytes of memory for a pixel.

    Raises:
        UnreadableError, ExceededError: with the remedy.
        ScarceError: as `budget.check`.
    """
    if height * width > MOST_PIXELS:
        raise UnreadableError(
            f"{width}x{height} pixels are more than the {MOST_PIXELS:,} that medsass decodes at once; "
            "store it as a tiled TIFF or a slide and cut it with --tile"
        )
    budget.check(height * width * each, f"{width}x{height} pixels")


def chosen(view: Selection, total: int, *, animated: bool = False) -> range:
    """Return the numbers of the frames that `view` asks for, of `total` frames of a stack or of an animation.

    Raises:
        ValueError: for a frame that the file does not hold, and for a word or a step that is not known.
    """
    if view.every < 1:
        raise UnreadableError(f"every must be 1 or more; got {view.every}")
    frames = ("first" if animated else "all") if view.frames == "auto" else view.frames
    if frames == "all":
        if (count := len(range(0, total, view.every))) > MOST_FRAMES:
            raise UnreadableError(
                f"{count:,} frames are more than the {MOST_FRAMES:,} that medsass reads of a file; take each n-th by --every"
            )
        return range(0, total, view.every)
    at = {"first": 0, "middle": total // 2}.get(frames, -1) if isinstance(frames, str) else frames
    if isinstance(frames, str) and at < 0:
        raise UnreadableError(f"frames must be auto, first, middle, all or a number; got '{frames}'")
    if not 0 <= at < total:
        raise UnreadableError(f"no frame {at}: the file has {total}, numbered from 0; choose one of them, or auto")
    return range(at, at + 1)


def check_level(view: Selection, levels: int) -> None:
    """Raise `UnreadableError` where a file with this number of levels does not hold the level of `view`."""
    if not 0 <= view.level < levels:
        held = f"levels 0 to {levels - 1}" if levels > 1 else "level 0 only"
        raise UnreadableError(f"no pyramid level {view.level}: the file has {held}; choose one of them")
