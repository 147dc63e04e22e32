"""DICOM files that belong together: the slices of a volume, and the image of a slide beside its label and overview."""

import importlib
import warnings
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medsass.data.formats import kinds
from medsass.data.formats.dicom import resolutions
from medsass.data.formats.dicom.resolutions import Resolution

PLACE = ("ImagePositionPatient", "ImageOrientationPatient")
TAGS = (*resolutions.TAGS, "SOPClassUID", "SeriesNumber", "InstanceNumber", "NumberOfFrames", "Rows", "Columns",
        "SamplesPerPixel", "PhotometricInterpretation", "PixelSpacing", *PLACE)  # fmt: skip
_SECTIONS = ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.128")  # CT, MR and PET
_ALIKE = 5e-4  # by which directions, and the sizes of pixels in mm, may differ


def grouped(paths: Sequence[Path], *, named: bool = False) -> list[tuple[Path, ...]]:
    """Put files that are slices of one volume together: of one folder, series, size, orientation and size of pixels.

    Slices come in order, at the place of the first of them. Other files stay alone, and so do slices that lie in one place,
    of which a warning tells. Files of a DICOM slide that are not its image are left out, as `resolutions.lesser` says.
    """
    series, slides, known = (
        defaultdict[str, list[tuple[float, Path]]](list),
        list[tuple[Path, Resolution]](),
        Orientations(),
    )
    for path in paths:
        header = None if path.is_dir() or kinds.kind(kinds.head(path), path) != "dicom" else header_of(path)
        if header is None:
            continue
        with suppress(Exception):  # what is wrong with it is told when it is read
            if held := resolutions.of(header):
                slides.append((path, held))
            elif found := slice_of(header, str(path.parent)):
                series[known.key(found)].append((found.place, path))
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
    header = header_of(path)
    return str(header.get("SeriesNumber") or header.get("SeriesInstanceUID"))


class Slice(NamedTuple):
    """A file that is a slice: what it has in common with the others of its volume, the directions of its rows and columns and
    the size of its pixels in mm, and its place in mm along their normal, or its number.
    """

    common: str
    turned: tuple[float, ...]
    place: float


class Orientations:
    """Tells volumes of one series apart by orientation and size of pixels, which differ a little from slice to slice."""

    def __init__(self) -> None:
        self._known = defaultdict[str, list[tuple[float, ...]]](list)

    def key(self, one: Slice) -> str:
        """Return the same text for all slices of a volume."""
        seen = self._known[one.common]
        at = next(
            (at for at, turned in enumerate(seen) if np.allclose(turned, one.turned, rtol=0, atol=_ALIKE)), len(seen)
        )
        if at == len(seen):
            seen.append(one.turned)
        return f"{one.common}\0{at}"


def slice_of(header: Any, folder: str) -> Slice | None:
    """Return what a header with `TAGS` says of a slice; None for other files."""
    if int(header.get("SamplesPerPixel") or 1) > 1 or "PALETTE" in str(header.get("PhotometricInterpretation")):
        return None
    placed = all(header.get(name) for name in PLACE)
    if not header.get("SeriesInstanceUID") or int(header.get("NumberOfFrames") or 1) > 1:
        return None
    if not placed and (header.get("SOPClassUID") not in _SECTIONS or header.get("InstanceNumber") is None):
        return None
    try:
        turned = np.array(header.ImageOrientationPatient if placed else (), float)
        place = (
            float(normal_of(turned) @ np.array(header.ImagePositionPatient, float)) if placed else header.InstanceNumber
        )
        spacing = np.array(header.get("PixelSpacing") or (), float)
        geometry = tuple(map(float, (*turned, *spacing.flat)))
        common = folder, header.SeriesInstanceUID, header.Rows, header.Columns, len(turned), spacing.size
        return Slice("\0".join(map(str, common)), geometry, float(place))
    except (ValueError, TypeError, AttributeError, IndexError):
        return None  # what is wrong with it is told when it is read


def header_of(path: Path) -> Any:
    """Return the elements `TAGS` of a file, None where it cannot be read."""
    try:
        return importlib.import_module("pydicom").dcmread(
            path, stop_before_pixels=True, specific_tags=list(TAGS), force=True
        )
    except Exception:  # as above
        return None


def normal_of(orientation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the direction (3,) in which slices of an orientation (6,) follow one another."""
    return np.cross(orientation[:3], orientation[3:6])
