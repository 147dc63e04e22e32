"""DICOM headers by pydicom: data sets without pixels, and what they say of a frame.

The formulas are those of DICOM PS3.3, C.11.1 (rescale slope and intercept) and C.11.2 (window).
"""

import importlib
import io
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from medsass import budget
from medsass.data.formats.damage import DamagedError, UnreadableError, readable

_LONG = (
    b"OB",
    b"OD",
    b"OF",
    b"OL",
    b"OV",
    b"OW",
    b"SQ",
    b"SV",
    b"UC",
    b"UN",
    b"UR",
    b"UT",
    b"UV",
)  # VR with lengths of 4 bytes
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_BLOCK = 1 << 20  # bytes that are unpacked at once


def opened(source: Path | bytes) -> BinaryIO:
    """Return a file, a path or its bytes, to be read."""
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def read_header(source: Path | bytes) -> tuple[Any, int]:
    """Return a file's data set without the pixels, and where in the file the pixel data begin, with their tag."""
    with readable(), opened(source) as file:
        _check_deflated(file)
        return import_dicom("pydicom").dcmread(file, stop_before_pixels=True, force=True), file.tell()


def _check_deflated(file: BinaryIO) -> None:
    """Refuse a deflated data set that unpacks to more than the budget allows: pydicom unpacks it whole, whatever is read of it."""
    at, syntax = 132 if file.read(132)[128:] == b"DICM" else 0, b""
    while (
        file.seek(at) == at and (tag := file.read(12))[:2] == b"\2\0" and len(tag) > 8
    ):  # group 2, always little endian
        explicit = tag[4:6].isalpha()
        start, size = (at + 12, tag[8:]) if tag[4:6] in _LONG else (at + 8, tag[6:8] if explicit else tag[4:8])
        if size == b"\xff" * 4:
            raise DamagedError("damaged header: an element without a length in its group 2")
        at = start + int.from_bytes(size, "little")
        if tag[2:4] == b"\x10\0":
            file.seek(start)
            syntax = file.read(min(at - start, 64))
    if syntax.strip(b"\0 ") == _DEFLATED:
        file.seek(at)
        stream, unpacked, stored = zlib.decompressobj(-zlib.MAX_WBITS), 0, 0
        while not stream.eof and (data := stream.unconsumed_tail or file.read(_BLOCK)):
            stored += 0 if stream.unconsumed_tail else len(data)
            unpacked += len(stream.decompress(data, _BLOCK))
            budget.check_packed(stored, 3.0 * unpacked, "unpacking a part of it")
    file.seek(0)


def frames_of(header: Any, source: Path | bytes) -> int:
    """Return the number of frames that a header says. Raises `DamagedError` where the file has fewer bytes than that."""
    with readable():
        total = int(header.get("NumberOfFrames") or 1)
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    if total > 8 * size:
        raise DamagedError(f"damaged header: {total:,} frames in a file of {size:,} bytes")
    return total


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
