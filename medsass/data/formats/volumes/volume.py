"""Volumes as slices, the base of the readers of NIfTI, NRRD and MetaImage.

Slices are cut along the axis of the voxel grid that is nearest to the patient's axis, and shown as radiologists see them,
with the patient's right at the left: axial slices from feet to head, their rows from front to back; coronal ones from front
to back and sagittal ones from right to left, their rows from head to feet. Flips and transposes alone do that: no voxel is
interpolated, and `Volume.encode` undoes it.
"""

import importlib
import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsass import budget
from medsass.data.formats.choice import option, pick_channels
from medsass.data.formats.damage import DamagedError, readable
from medsass.data.formats.geometry import Box, compose
from medsass.data.formats.image import ImageFile, Selection, check_level

_VIEWS = {  # axis -> where slices, rows and columns go: the axis of RAS (right, anterior, superior), along or against it
    "z": ((2, 1), (1, -1), (0, -1)),
    "y": ((1, -1), (2, -1), (0, -1)),
    "x": ((0, -1), (2, -1), (1, -1)),
}
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # turns coordinates of SimpleITK and DICOM into those of NIfTI, and back


@dataclass(frozen=True)
class Cut:
    """How slices lie in a grid of voxels.

    Args:
        axes: the axes of the grid along which slices, rows and columns follow one another.
        signs: 1 where they run with the grid, -1 where they run against it.
    """

    axes: tuple[int, ...]
    signs: tuple[int, ...]

    @classmethod
    def of(cls, affine: NDArray[np.float64], shape: tuple[int, ...], axis: str) -> "Cut":
        """Return how to cut a grid of `shape` (I, J, K) along "z", "y" or "x"; one that is a single slice is not cut.

        affine: (4, 4), from the indices of voxels to millimetres to the right, front and top (RAS).
        """
        if (axis := axis or "z") not in _VIEWS:
            raise ValueError(f"axis must be z, y or x; got '{axis}'")
        with readable():
            found = importlib.import_module("nibabel.orientations").io_orientation(affine)
        if not np.isfinite(found).all():
            raise ValueError("the header gives the voxels no size in some direction; mend its affine")
        along = {int(world): (grid, int(sign)) for grid, (world, sign) in enumerate(found)}
        thin = [view for view in _VIEWS.values() if shape[along[view[0][0]][0]] == 1]
        view = thin[0] if len(thin) == 1 else _VIEWS[axis]
        return cls(tuple(along[world][0] for world, _ in view), tuple(along[world][1] * sign for world, sign in view))

    def slices(self, grid: NDArray[Any]) -> NDArray[Any]:
        """Return the slices (n, h, w, ...) of a grid (I, J, K, ...), a view."""
        turned = grid.transpose(*self.axes, *range(3, grid.ndim))
        return turned[tuple(slice(None, None, sign) for sign in self.signs)]

    def grid(self, slices: NDArray[Any]) -> NDArray[Any]:
        """Return the grid (I, J, K, ...) of slices (n, h, w, ...), a view."""
        turned = slices[tuple(slice(None, None, sign) for sign in self.signs)]
        return turned.transpose(*np.argsort(self.axes), *range(3, slices.ndim))

    def taken(self, count: int, every: int) -> tuple[slice, ...]:
        """Return the index in the grid of each `every`-th of `count` slices, from the first slice on."""
        index = [slice(None)] * 3
        index[self.axes[0]] = slice(0 if self.signs[0] == 1 else (count - 1) % every, None, every)
        return tuple(index)


class Volume(ImageFile):
    """A grid of voxels whose slices are frames; those of one time point follow those of the one before.

    Values are those after the header's slope and intercept, of the smallest integer type that holds them exactly, else
    float32. NaN is padding. The range of values is one for all slices. Raises `ValueError` for several channels or time
    points of which `view` does not say how to read them.

    Args:
        view: the part that is read. `channels` chooses among time points too.
        shape: (I, J, K, N) of the grid, with N channels, or time points where `times`.
        affine: (4, 4), from the indices of voxels to millimetres in RAS.
        dtype, rescale: of the stored values, and slope and intercept that make physical values of them.
        streams: whether the voxels are memory-mapped.

    """

    suffix = ".nii.gz"
    _order: Sequence[int] | None = None  # of the slices along K by the files' numbers; () where these are missing

    def __init__(
        self, view: Selection, shape: tuple[int, ...], affine: NDArray[np.float64], dtype: np.dtype[Any],
        rescale: tuple[float, float] = (1.0, 0.0), times: bool = False, streams: bool = False,
    ) -> None:  # fmt: skip
        check_level(view, 1)
        self.view, self._shape, self._rescale = view, shape, rescale
        self._voxels: NDArray[Any] | None = None
        if min(shape) < 1:
            raise DamagedError(f"damaged: a volume of {'x'.join(map(str, shape))} voxels")
        self._movie = times and shape[3] > 1 and not view.channels
        if self._movie and view.frames == "auto":
            raise ValueError(
                f"{shape[3]} volumes in one file: {option(view, 'channels', 'I')} (0 to {shape[3] - 1}) reads one, "
                "--frames all the slices of each"
            )
        if self._movie and view.every > 1:
            raise ValueError(
                f"--every takes slices of one volume, and the file holds {shape[3]}; add {option(view, 'channels', 'I')}"
            )
        self._channels = (0,) if self._movie else pick_channels(view, shape[3])
        self.affine, self.cut = affine, Cut.of(affine, shape[:3], view.axis)
        count, height, width = (shape[axis] for axis in self.cut.axes)
        super().__init__(height, width, len(self._channels) == 3, _type(dtype, rescale), view, streams=streams)
        self.common, self.padding = True, (np.nan, np.nan) if self.dtype.kind == "f" else None
        if dtype.kind in "ui" and self.dtype.kind in "ui":
            ends = [int(end) * int(rescale[0]) + int(rescale[1]) for end in (np.iinfo(dtype).min, np.iinfo(dtype).max)]
            self.span = float(min(ends)), float(max(ends))
        self._slices = count
        note = self._select(view, count * (shape[3] if self._movie else 1))
        self.converted = ", ".join(filter(None, (note, "rescaled" if rescale != (1.0, 0.0) else "")))

    @abstractmethod
    def _load(self) -> NDArray[Any]:
        """Return the stored values as an array of the grid's (I, J, K, N)."""

    @abstractmethod
    def _file(self, grid: NDArray[Any], index: tuple[slice, ...]) -> bytes:
        """Return a file with the values `grid`, (I, J, K) or (I, J, K, N), at the voxels `index` of this file's grid."""

    def gap(self, other: "Volume") -> float:
        """Return how many millimetres the corners of two volumes lie apart by their headers, the farthest; 0 within a voxel's
        half or, for volumes of other sizes, a voxel.
        """
        sizes = [np.linalg.norm(one.affine[:3, :3], axis=0) for one in (self, other)]
        same = self._shape[:3] == tuple(other._shape[axis] for axis in _matching(self.cut, other.cut))
        far = float(np.linalg.norm(self._corners() - other._corners(), axis=1).max())
        return far if far > (np.min(sizes) / 2 if same else np.max(sizes)) else 0.0

    def _corners(self) -> NDArray[np.float64]:
        """Return the places (4, 3) of the first voxel of the first slice, and of the last along each axis from there."""
        ends = np.array([self._shape[axis] - 1 for axis in self.cut.axes])
        first = np.where(np.array(self.cut.signs) == 1, 0, ends)
        corners = np.vstack([first, *(np.where(np.arange(3) == axis, ends - first, first) for axis in range(3))])
        grid = corners[:, np.argsort(self.cut.axes)]
        return grid @ self.affine[:3, :3].T + self.affine[:3, 3]

    @property
    def as_stored(self) -> bool:
        """Whether slices, rows and columns are those of the file, so that a picture that says nothing of places may fit."""
        order = list(range(self._shape[2]) if self._order is None else self._order)[:: self.cut.signs[0]]
        return self.cut.axes == (2, 1, 0) and self.cut.signs[1:] == (1, 1) and bool(order) and order == sorted(order)

    @property
    def stack(self) -> bool:
        """Whether a volume is read, and not a single slice of it."""
        return self.view.frames in ("auto", "all")

    def encode(self, slices: NDArray[Any]) -> bytes:
        """Return a file of this volume's geometry with other values (n, h, w), one image for each of its frames."""
        parts = slices.reshape(-1, len(slices) // (self._shape[3] if self._movie else 1), *slices.shape[1:])
        grids = [self.cut.grid(part) for part in parts]
        grid = np.stack(grids, axis=-1) if self._movie else grids[0]
        return self._file(grid, self.cut.taken(self._slices, self.view.every))

    def values(self, frame: int = 0) -> Iterator[NDArray[Any]]:  # noqa: ARG002 - one range for all frames
        """Yield the pixels of all slices, whichever of them are read, in the order of the file."""
        for part in np.moveaxis(self._grid(), 2, 0):
            for time in range(self._shape[3] if self._movie else 1):
                yield self._physical(part, time)

    def _decode(self, frame: int, box: Box, _level: int) -> NDArray[Any]:
        time, place = divmod(frame, self._slices)
        return self._physical(self.cut.slices(self._grid())[place][box.slices], time)

    def _grid(self) -> NDArray[Any]:
        with self._lock:
            if self._voxels is None:
                self._voxels = self._load()
            return self._voxels

    def _physical(self, stored: NDArray[Any], time: int) -> NDArray[Any]:
        """Return the pixels of stored values (h, w, N)."""
        picked = compose((time,) if self._movie else self._channels, lambda i: stored[..., i])
        slope, shift = self._rescale
        if self.dtype.kind in "ui" and (slope, shift) != (1.0, 0.0):
            picked = picked.astype(np.int64) * int(slope) + int(shift)
        elif (slope, shift) != (1.0, 0.0):
            picked = picked * slope + shift
        return np.ascontiguousarray(picked, self.dtype)

    def close(self) -> None:
        """Give the voxels back."""
        super().close()
        with self._lock:
            self._voxels = None


def _matching(one: Cut, other: Cut) -> list[int]:
    """Return the axis of the other grid that runs as each axis of one grid does."""
    return [other.axes[one.axes.index(axis)] for axis in range(3)]


def check_voxels(shape: tuple[int, ...], each: int) -> None:
    """Refuse a volume that is read into memory, which takes `each` bytes for a voxel, where that is more than the budget.

    Raises:
        ExceededError, ScarceError: as `budget.check`.
    """
    budget.check(
        math.prod(shape) * each,
        f"{'x'.join(map(str, shape))} voxels, unless saved as an uncompressed .nii, which is read in parts,",
    )


def _type(stored: np.dtype[Any], rescale: tuple[float, float]) -> np.dtype[Any]:
    """Return the type of physical values."""
    if rescale == (1.0, 0.0):
        return stored
    if stored.kind not in "ui" or not all(number.is_integer() for number in rescale):
        return np.dtype(np.float64 if stored == np.float64 else np.float32)
    slope, shift = map(int, rescale)
    low, high = sorted(int(end) * slope + shift for end in (np.iinfo(stored).min, np.iinfo(stored).max))
    kinds = map(np.dtype, ("u1", "i1", "u2", "i2", "u4", "i4", "i8"))
    return next(
        (kind for kind in kinds if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max), np.dtype(np.float64)
    )
