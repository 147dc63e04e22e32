"""DICOM slices as a volume: the files of one SeriesInstanceUID, or the frames of an enhanced file, in order of their positions.

The geometry is that of DICOM PS3.3, C.7.6.2 (image plane): the position of the first voxel, the directions of rows and
columns, and the distance between pixels and between slices.
"""

import gzip
import importlib
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsass.data.formats import depth, kinds
from medsass.data.formats.dicom import resolutions
from medsass.data.formats.dicom.image import Dicom, functional_group
from medsass.data.formats.dicom.resolutions import Resolution
from medsass.data.formats.geometry import Box
from medsass.data.formats.image import WHOLE_FILE, Selection, readable
from medsass.data.formats.volume import LPS, Volume, check_voxels

_SECTIONS = ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.128")  # CT, MR and PET
_PLACE = ("ImagePositionPatient", "ImageOrientationPatient")
TAGS = (*resolutions.TAGS, "SOPClassUID", "SeriesNumber", "InstanceNumber", "NumberOfFrames", "Rows", "Columns",
        "SamplesPerPixel", "PhotometricInterpretation", *_PLACE)  # fmt: skip
_GROUPS = {"ImagePositionPatient": "PlanePositionSequence", "ImageOrientationPatient": "PlaneOrientationSequence",
           "PixelSpacing": "PixelMeasuresSequence", "SpacingBetweenSlices": "PixelMeasuresSequence"}  # fmt: skip
_EVEN = 0.01  # of the distance between slices, by which it and the slices' places may vary


def grouped(paths: Sequence[Path], *, named: bool = False) -> list[tuple[Path, ...]]:
    """Put files that are slices of one volume together: of one folder, series, size and orientation.

    Slices come in order, at the place of the first of them. Other files stay alone, and so do slices that lie in one place,
    of which a warning tells. Files of a DICOM slide that are not its image are left out, as `resolutions.lesser` says.
    """
    series, slides = defaultdict[str, list[tuple[float, Path]]](list), list[tuple[Path, Resolution]]()
    for path in paths:
        header = None if path.is_dir() or kinds.kind(kinds.head(path), path) != "dicom" else _header(path)
        if header is None:
            continue
        held = None
        with suppress(Exception):  # what is wrong with it is told when it is read
            held = resolutions.of(header)
        if held:
            slides.append((path, held))
        elif found := slice_of(header, str(path.parent)):
            series[found[0]].append((found[1], path))
    if aside := set(resolutions.lesser(slides, named=named)):
        what = f"{len(aside)} labels, overviews and smaller resolutions of DICOM slides"
        warnings.warn(f"{min(aside).parent}: {what} are passed over", stacklevel=2)
    volumes: dict[Path, tuple[Path, ...]] = {}
    for slices in series.values():
        places = sorted(slices)
        if len({round(place, 3) for place, _ in places}) < len(places):
            warnings.warn(
                f"{slices[0][1].parent}: {len(slices)} slices of one series, of which some lie in one place; each is an image",
                stacklevel=2,
            )
        elif len(slices) > 1:
            order = tuple(path for _, path in places)
            volumes |= dict.fromkeys(order, order)
    seen, groups = aside, []
    for path in paths:
        if path not in seen:
            groups.append(volumes.get(path, (path,)))
            seen.update(groups[-1])
    return groups


def number(path: Path) -> str:
    """Return what tells the series of a file from others: its number, else its UID."""
    header = _header(path)
    return str(header.get("SeriesNumber") or header.get("SeriesInstanceUID"))


def slice_of(header: Any, folder: str) -> tuple[str, float] | None:
    """Return what the slices of one volume have in common, of a header with `TAGS`, and the slice's place in mm along them, or
    its number; None for other files.
    """
    if int(header.get("SamplesPerPixel") or 1) > 1 or "PALETTE" in str(header.get("PhotometricInterpretation")):
        return None
    placed = all(header.get(name) for name in _PLACE)
    if not header.get("SeriesInstanceUID") or int(header.get("NumberOfFrames") or 1) > 1:
        return None
    if not placed and (header.get("SOPClassUID") not in _SECTIONS or header.get("InstanceNumber") is None):
        return None
    try:
        turned = np.array(header.ImageOrientationPatient if placed else (), float)
        place = (
            float(_normal(turned) @ np.array(header.ImagePositionPatient, float)) if placed else header.InstanceNumber
        )
        common = folder, header.SeriesInstanceUID, header.Rows, header.Columns, *(np.round(turned, 3) + 0.0)
        return "\0".join(map(str, common)), float(place)
    except (ValueError, TypeError, AttributeError, IndexError):
        return None  # what is wrong with it is told when it is read


def _header(path: Path) -> Any:
    try:
        return importlib.import_module("pydicom").dcmread(
            path, stop_before_pixels=True, specific_tags=list(TAGS), force=True
        )
    except Exception:  # as above
        return None


def _normal(orientation: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.cross(orientation[:3], orientation[3:6])


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
        slices = []
        for path in paths:
            with _named(path.name):
                slices.append((path.name, Dicom(path, WHOLE_FILE), 0))
        self._open(slices, [one.header for _, one, _ in slices], str(paths[0].parent), view)

    def _open(
        self, slices: Sequence[tuple[str, Dicom, int]], planes: Sequence[Mapping[str, Any]], name: str, view: Selection
    ) -> None:
        """Open slices, each with its name and its frame in a file, and the elements `planes` that say where each lies."""
        self._slices_of, files = slices, [one for _, one, _ in slices]
        self._faults: dict[int, ValueError] = {}  # by the number of the slice
        with readable():
            self._affine = _affine(planes, name)
        if any(one.colour for one in files):
            raise ValueError("slices in colour are no volume")
        shape = files[0].width, files[0].height, len(slices), 1
        check_voxels(shape)
        taken = "xyz"[int(np.abs(self._affine[:3, 2] / np.linalg.norm(self._affine[:3, 2])).argmax())]
        view = view if view.axis else replace(view, axis=taken)
        spans, windows, padding = ({getattr(one, name) for one in files} for name in ("span", "limits", "padding"))
        self._holes = len(padding) > 1  # padding of other values in each slice becomes NaN
        kinds_of = [np.dtype(np.float32)] * self._holes + [one.dtype for one in files]
        Volume.__init__(self, view, shape, self._affine, np.result_type(*kinds_of))
        self.span = min(low for low, _ in spans), max(high for _, high in spans)
        self.limits = windows.pop() if len(windows) == 1 else None
        self.padding = (padding.pop() if len(padding) == 1 else None) or self.padding
        self.converted = ", ".join(filter(None, (self.converted, files[0].converted)))

    def _load(self) -> NDArray[Any]:
        grid = np.empty(self._shape[2::-1], self.dtype)
        for place, (name, one, frame) in enumerate(self._slices_of):
            try:
                with _named(name):
                    grid[place] = pixels = one.read(frame)
            except ValueError as error:
                self._faults[place] = error
                continue
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
        along = self.cut.axes[0] == 2  # slices as they are in the files, of which one may be damaged
        place = frame if self.cut.signs[0] == 1 else len(self._slices_of) - 1 - frame
        if self._faults and (not along or place in self._faults):
            raise self._faults[place if along else min(self._faults)]
        return pixels

    def close(self) -> None:
        """Give the voxels back."""
        super().close()
        for _, one, _ in self._slices_of:
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
        self.as_stored = self.cut.axes[0] == 2 and order[:: self.cut.signs[0]] == sorted(order)


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
    normal = _normal(np.array(planes[0]["ImageOrientationPatient"], float))
    return [float(normal @ np.array(plane["ImagePositionPatient"], float)) for plane in planes]


def _affine(planes: Sequence[Mapping[str, Any]], name: str) -> NDArray[np.float64]:
    """Return the (4, 4) affine from columns, rows and slices to millimetres in RAS; warn where places are in doubt."""
    first = planes[0]
    down, across = (float(size) for size in first.get("PixelSpacing") or first.get("ImagerPixelSpacing") or (1, 1))
    affine = np.eye(4)
    if all(plane.get(element) for plane in planes for element in _PLACE):
        turned = np.array(first.get("ImageOrientationPatient"), float)
        places = np.array([plane.get("ImagePositionPatient") for plane in planes], float)
        steps = np.diff(places @ _normal(turned))
        if np.ptp(steps) > _EVEN * steps.mean():
            warnings.warn(
                f"{name}: slices lie {steps.min():g} to {steps.max():g} mm apart; the volume's are {steps.mean():g} mm apart",
                stacklevel=2,
            )
        step, affine[:3, 3] = (places[-1] - places[0]) / len(steps), places[0]
        aside = float(np.linalg.norm(step - steps.mean() * _normal(turned)))
        if aside > _EVEN * steps.mean():
            warnings.warn(
                f"{name}: slices lie askew, {aside:.3g} mm aside from one to the next (a tilted gantry); so does the "
                "volume by its affine, which some programs refuse: resample it, as dcm2niix does",
                stacklevel=2,
            )
    else:
        warnings.warn(f"{name}: slices without positions, taken in the order of their InstanceNumber", stacklevel=2)
        turned = np.array([1.0, 0, 0, 0, 1, 0])
        step = np.array([0, 0, float(first.get("SpacingBetweenSlices") or first.get("SliceThickness") or 1)])
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = turned[:3] * across, turned[3:] * down, step
    return np.asarray(LPS @ affine)
