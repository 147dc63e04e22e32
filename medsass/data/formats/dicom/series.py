"""DICOM slices as a volume: the files of one SeriesInstanceUID, or the frames of an enhanced file, in order of their positions.

The geometry is that of DICOM PS3.3, C.7.6.2 (image plane): the position of the first voxel, the directions of rows and
columns, and the distance between pixels and between slices.
"""

import gzip
import importlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsass.data.formats import depth
from medsass.data.formats.damage import readable
from medsass.data.formats.dicom.grouping import PLACE, header_of, normal_of
from medsass.data.formats.dicom.header import functional_group
from medsass.data.formats.dicom.image import Dicom
from medsass.data.formats.geometry import Box
from medsass.data.formats.image import WHOLE_FILE, Selection
from medsass.data.formats.volumes.volume import LPS, Volume, check_voxels

_GROUPS = {"ImagePositionPatient": "PlanePositionSequence", "ImageOrientationPatient": "PlaneOrientationSequence",
           "PixelSpacing": "PixelMeasuresSequence", "SpacingBetweenSlices": "PixelMeasuresSequence"}  # fmt: skip
_EVEN = 0.01  # of the distance between slices, by which it and the slices' places may vary


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Name the slice that a `ValueError` is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"slice {name}: {error}") from error


class Series(Volume):
    """The slices in the files `paths`, in order, with the values that `Dicom` reads. Warns of doubts about their places."""

    def __init__(self, paths: Sequence[Path], view: Selection) -> None:
        slices, planes = list[tuple[str, Dicom | ValueError, int]](), list[Mapping[str, Any]]()
        for path in paths:
            try:
                with _named(path.name):
                    one: Dicom | ValueError = Dicom(path, WHOLE_FILE)
            except ValueError as error:
                one = error
            slices.append((path.name, one, 0))
            planes.append(one.header if isinstance(one, Dicom) else header_of(path))
        numbers = [plane.get("InstanceNumber") for plane in planes if plane]
        self._order = [int(number) for number in numbers if number is not None] if None not in numbers else ()
        self._open(slices, planes, str(paths[0].parent), view)

    def _open(
        self, slices: Sequence[tuple[str, Dicom | ValueError, int]], planes: Sequence[Mapping[str, Any]], name: str,
        view: Selection,
    ) -> None:  # fmt: skip
        """Open slices, each with its name and its frame in a file (or why that cannot be read), and the elements `planes` that
        say where each lies.
        """
        self._slices_of, files = slices, [one for _, one, _ in slices if isinstance(one, Dicom)]
        self._faults = {at: one for at, (_, one, _) in enumerate(slices) if isinstance(one, ValueError)}
        if not files:
            raise self._faults[0]
        with readable():
            self._affine = _affine(planes, name)
            taken = "xyz"[int(importlib.import_module("nibabel.orientations").io_orientation(self._affine)[2][0])]
        if any(one.colour for one in files):
            raise ValueError("slices in colour are no volume; save each as a picture, such as PNG")
        shape = files[0].width, files[0].height, len(slices), 1
        view = view if view.axis else replace(view, axis=taken)
        span = min(one.span[0] for one in files), max(one.span[1] for one in files)
        self._tops = sum(span)
        windows, padding = ({self._shifted(one, getattr(one, name)) for one in files} for name in ("limits", "padding"))
        self._holes = len(padding) > 1  # padding of other values in each slice becomes NaN
        kinds_of = [np.dtype(np.float32)] * self._holes + [one.dtype for one in files]
        check_voxels(shape, np.result_type(*kinds_of).itemsize)
        Volume.__init__(self, view, shape, self._affine, np.result_type(*kinds_of))
        self.span, self.mirror = span, self._tops if files[0].inverted else None
        self.limits = windows.pop() if len(windows) == 1 else None
        self.padding = (padding.pop() if len(padding) == 1 else None) or self.padding
        notes = [self.converted, *(part for one in files for part in one.converted.split(", "))]
        self.converted = ", ".join(dict.fromkeys(filter(None, notes)))

    def _shifted(self, one: Dicom, ends: tuple[float, float] | None) -> tuple[float, float] | None:
        """Return two values of a slice as values of the volume: MONOCHROME1 is inverted within one span for all slices."""
        shift = self._tops - sum(one.span) if one.inverted else 0.0
        return ends and (ends[0] + shift, ends[1] + shift)

    def _load(self) -> NDArray[Any]:
        grid = np.empty(self._shape[2::-1], self.dtype)
        for place, (name, one, frame) in enumerate(self._slices_of):
            if isinstance(one, ValueError):
                continue
            try:
                with _named(name):
                    pixels = one.read(frame)
            except ValueError as error:
                self._faults[place] = error
                continue
            shift = self._tops - sum(one.span) if one.inverted else 0
            grid[place] = pixels.astype(self.dtype) + self.dtype.type(shift) if shift else pixels
            if self._holes and one.padding:
                grid[place][depth.outside(pixels, one.padding)] = np.nan
            if one.frames == 1:
                one.close()
        return grid.T[..., None]

    def values(self, frame: int = 0) -> Iterator[NDArray[Any]]:
        """Yield the pixels of all slices that can be read."""
        self._grid()
        if len(self._faults) == len(self._slices_of):
            raise self._faults[0]
        for place, pixels in enumerate(super().values(frame)):
            if place not in self._faults:
                yield pixels

    def _decode(self, frame: int, box: Box, level: int) -> NDArray[Any]:
        pixels = super()._decode(frame, box, level)
        place = self.place(frame)
        if self._faults and (place is None or place in self._faults):
            raise self._faults[min(self._faults) if place is None else place]
        return pixels

    def place(self, frame: int) -> int | None:
        """Return the number of the slice, in order, that a frame of the file is; None where it is cut across them."""
        if self.cut.axes[0] != 2:
            return None
        return frame if self.cut.signs[0] == 1 else len(self._slices_of) - 1 - frame

    def close(self) -> None:
        """Give the voxels back."""
        super().close()
        for _, one, _ in self._slices_of:
            if isinstance(one, Dicom):
                one.close()

    def _file(self, grid: NDArray[Any], index: tuple[slice, ...]) -> bytes:
        nibabel = importlib.import_module("nibabel")
        whole = nibabel.Nifti1Image(np.empty(self._shape[:3], np.uint8), self._affine)
        image = nibabel.Nifti1Image(grid, whole.slicer.slice_affine(index))
        image.header.set_xyzt_units("mm")
        return gzip.compress(image.to_bytes(), 6, mtime=0)


class Enhanced(Series):
    """The frames of one file, of which the header says where each lies: an enhanced CT or MR, for example."""

    def __init__(self, stack: Dicom, planes: Sequence[Mapping[str, Any]], view: Selection) -> None:
        places = _places(planes)
        order = [int(frame) for frame in np.argsort(places, kind="stable")]
        slices = [(f"of frame {frame}", stack, frame) for frame in order]
        self._open(slices, [planes[frame] for frame in order], "a file of several frames", view)
        self._order = order


def planes_of(header: Any) -> list[dict[str, Any]] | None:
    """Return the elements that say where each frame of a file lies; None where they are not slices of one volume: one is
    without a place or has that of another, or they are not parallel.
    """
    total = int(header.get("NumberOfFrames") or 1)
    try:
        with readable():
            planes = [
                {name: functional_group(header, frame, group).get(name) for name, group in _GROUPS.items()}
                for frame in range(total)
            ]
            turned = np.array([plane["ImageOrientationPatient"] for plane in planes], float)
            places = {round(place, 3) for place in _places(planes)}
    except ValueError:  # what is wrong with it is told when it is read
        return None
    return planes if len(places) == total > 1 and np.ptp(turned, axis=0).max() < _EVEN else None


def _places(planes: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return how far along their common normal slices lie, in mm."""
    normal = normal_of(np.array(planes[0]["ImageOrientationPatient"], float))
    return [float(normal @ np.array(plane["ImagePositionPatient"], float)) for plane in planes]


def _affine(planes: Sequence[Mapping[str, Any]], name: str) -> NDArray[np.float64]:
    """Return the (4, 4) affine from columns, rows and slices to millimetres in RAS; warn where places are in doubt."""
    first, affine = planes[0], np.eye(4)
    stated = (plane.get("PixelSpacing") or plane.get("ImagerPixelSpacing") for plane in planes)
    sizes = [tuple(map(float, size)) for size in stated if size]
    down, across = sizes[0] if sizes else (1.0, 1.0)
    if not sizes:
        warnings.warn(f"{name}: slices without PixelSpacing, of which pixels are taken as 1 mm wide", stacklevel=2)
    elif np.ptp(sizes, axis=0).max() > _EVEN * min(down, across):
        warnings.warn(f"{name}: slices of pixels of several sizes; the volume's are {across:g} mm wide", stacklevel=2)
    if all(plane.get(element) for plane in planes for element in PLACE):
        turned = np.array(first.get("ImageOrientationPatient"), float)
        places = np.array([plane.get("ImagePositionPatient") for plane in planes], float)
        along = places @ normal_of(turned)
        steps = np.diff(along)
        if np.ptp(steps) > _EVEN * steps.mean():
            warnings.warn(
                f"{name}: slices lie {steps.min():g} to {steps.max():g} mm apart; the volume's are {steps.mean():g} mm apart",
                stacklevel=2,
            )
        step, affine[:3, 3] = (places[-1] - places[0]) / len(steps), places[0]
        aside = float(np.linalg.norm(step - steps.mean() * normal_of(turned)))
        if aside > _EVEN * steps.mean():
            warnings.warn(
                f"{name}: slices lie askew, {aside:.3g} mm aside from one to the next (a tilted gantry); so does the "
                "volume by its affine, which some programs refuse: resample it, as dcm2niix does",
                stacklevel=2,
            )
        away = places - places[0] - np.outer(along - along[0], step / steps.mean())
        if (most := float(np.linalg.norm(away, axis=1).max())) > _EVEN * steps.mean():
            warnings.warn(
                f"{name}: a slice lies {most:.3g} mm beside the line from the first to the last, on which the volume's lie",
                stacklevel=2,
            )
    else:
        warnings.warn(f"{name}: slices without positions, taken in the order of their InstanceNumber", stacklevel=2)
        turned = np.array([1.0, 0, 0, 0, 1, 0])
        step = np.array([0, 0, float(first.get("SpacingBetweenSlices") or first.get("SliceThickness") or 1)])
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = turned[:3] * across, turned[3:] * down, step
    return np.asarray(LPS @ affine)
