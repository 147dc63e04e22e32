"""DICOM headers by pydicom: data sets without pixels, and what they say of a frame.

The formulas are those of DICOM PS3.3, C.11.1 (rescale slope and intercept) and C.11.2 (window).
"""

import importlib
import io
from pathlib import Path
from typing import Any, BinaryIO

from medsass.data.formats.damage import UnreadableError, readable


def opened(source: Path | bytes) -> BinaryIO:
    """Return a file, a path or its bytes, to be read."""
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def read_header(source: Path | bytes) -> tuple[Any, int]:
    """Return a file's data set without the pixels, and where in the file the pixel data begin, with their tag."""
    with readable(), opened(source) as file:
        return import_dicom("pydicom").dcmread(file, stop_before_pixels=True, force=True), file.tell()


def import_dicom(module: str) -> Any:
    """Import pydicom or a module of it. Raises `ImportError` with the remedy."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"DICOM files need pydicom: pip install pydicom python-gdcm ({error})") from error


def check_whole(header: Any) -> None:
    """Raise `UnreadableError` where a file is one of several parts of an image, a concatenation (PS3.3, C.7.6.16.1.2)."""
    number, total = (int(header.get(f"InConcatenation{name}") or 0) for name in ("Number", "TotalNumber"))
    if header.get("ConcatenationUID") and max(number, total) > 1:
        raise UnreadableError(
            f"part {number or 'one'} of {total or 'several'} of one image (a DICOM concatenation); join the parts to one "
            "file, by pydicom or highdicom"
        )


def functional_group(header: Any, frame: int, sequence: str) -> Any:
    """Return the functional group of a frame with this sequence: its own, the shared one, else the data set."""
    own, shared = header.get("PerFrameFunctionalGroupsSequence"), header.get("SharedFunctionalGroupsSequence")
    for groups, index in ((own, frame), (shared, 0)):
        if groups and index < len(groups) and groups[index].get(sequence):
            return groups[index][sequence][0]
    return header


def rescale_of(header: Any, frame: int) -> tuple[float, float]:
    """Return the rescale slope and intercept of a frame."""
    with readable():
        group = functional_group(header, frame, "PixelValueTransformationSequence")
        slope, shift = group.get("RescaleSlope"), group.get("RescaleIntercept")
        found = 1.0 if slope is None else float(slope), 0.0 if shift is None else float(shift)
    if slope == 0:
        raise ValueError("a rescale slope of 0, which makes all values one; mend RescaleSlope")
    return found


def window_of(header: Any, frame: int) -> tuple[float, float] | None:
    """Return the values that the first window maps to black and white, for a sigmoid those of its central tangent."""
    with readable():
        group = functional_group(header, frame, "FrameVOILUTSequence")
        ends: list[float] = []  # the first value of each, if it has one
        for value in (group.get("WindowCenter"), group.get("WindowWidth")):
            if isinstance(value, (int, float)):
                ends.append(float(value))
            elif value is not None and value != "" and len(value):
                ends.append(float(value[0]))
        linear = str(group.get("VOILUTFunction") or "LINEAR") == "LINEAR"
    if len(ends) < 2 or ends[1] <= (1 if linear else 0):
        return None
    centre, width = ends
    if linear:
        centre, width = centre - 0.5, width - 1
    return centre - width / 2, centre + width / 2
