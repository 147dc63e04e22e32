"""DICOM images by pydicom, an optional dependency: modality values, upright in brightness, RGB where they are colour.

The formulas are those of DICOM PS3.3, C.7.6.3 (pixels), C.11.1 (modality LUT) and C.11.2 (window).
"""

import importlib
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsass.data.formats import channels
from medsass.data.formats.geometry import Box
from medsass.data.formats.image import ImageFile, Selection, check_level

_INTEGERS = tuple(np.dtype(name) for name in ("uint8", "int8", "uint16", "int16", "uint32", "int32"))
_RGB = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_IMPLICIT, _EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
_MARK = b"DICM"


def is_dicom(head: bytes) -> bool:
    """True for the first 132 bytes of a DICOM file."""
    return head[128:132] == _MARK


class Dicom(ImageFile):
    """A DICOM image: a path, or the bytes of a file.

    Gray values are those after the rescale slope and intercept or the modality LUT, of the smallest integer type that
    holds them exactly, else float32; MONOCHROME1 is inverted. `limits` are the ends of the first window, where all
    frames have the same. Raises `ImportError` without pydicom, `ValueError` where the file holds no such image.
    """

    def __init__(self, source: Path | bytes, view: Selection) -> None:
        check_level(view, 1)
        self._pydicom, self._source = _import("pydicom"), source
        header = self._pydicom.dcmread(_file(source), stop_before_pixels=True, force=True)
        if "Rows" not in header or "Columns" not in header:
            raise ValueError(f"a DICOM file without an image (modality {header.get('Modality') or 'unknown'})")
        self._kind = str(header.get("PhotometricInterpretation", "MONOCHROME2")).strip()
        self._palette, self._rgb = self._kind == "PALETTE COLOR", self._kind in _RGB
        if not (self._palette or self._rgb or self._kind in ("MONOCHROME1", "MONOCHROME2")):
            raise ValueError(f"photometric interpretation {self._kind} is not supported")
        colour, self._channels = self._palette or self._rgb, view.channels
        if view.channels:
            channels.check(view.channels, 3 if colour else 1)
        self._header = header
        total = int(header.get("NumberOfFrames") or 1)
        frames = total if view.frames == "all" else 1
        self._bits = int(header.get("BitsStored") or header.get("BitsAllocated") or 0)
        self._signed = bool(header.get("PixelRepresentation", 0))
        self._rescale = [_rescale(header, frame) for frame in range(frames)]
        dtype, span = self._values()
        three = len(view.channels) == 3 if view.channels else colour
        super().__init__(int(header.Rows), int(header.Columns), three, dtype, view)
        self.total, self.frames, self.span = total, frames, span
        windows = {_window(header, frame) for frame in range(frames)} if not colour else set()
        own = windows.pop() if len(windows) == 1 else None
        inverted = self._kind == "MONOCHROME1"
        self.limits = (sum(span) - own[1], sum(span) - own[0]) if own and inverted else own
        notes = [f"first of {total} frames"] if total > frames else []
        notes += {"MONOCHROME1": ["inverted (MONOCHROME1)"], "PALETTE COLOR": ["palette to RGB"]}.get(self._kind, [])
        notes += [f"{self._kind} to RGB"] if self._rgb and self._kind != "RGB" else []
        notes += ["bilevel to gray"] if self._bits == 1 else []
        notes += ["modality LUT"] if self._modality and not colour else []
        notes += ["rescaled"] if any(item != (1.0, 0.0) for item in self._rescale) and not colour else []
        self.converted = ", ".join(notes)

    @property
    def _modality(self) -> Any:
        """The table of the modality LUT, or None."""
        sequence = self._header.get("ModalityLUTSequence")
        return sequence[0] if sequence else None

    def _values(self) -> tuple[np.dtype[Any], tuple[float, float]]:
        """Type and range of the pixels that are read."""
        allocated = int(self._header.get("BitsAllocated") or 8)
        if self._palette:
            table = self._header.RedPaletteColorLookupTableDescriptor
            return (np.dtype(np.uint8), (0.0, 255.0)) if int(table[2]) <= 8 else (np.dtype(np.uint16), (0.0, 65535.0))
        if allocated == 1:
            return np.dtype(np.uint8), (0.0, 255.0)
        if "PixelRepresentation" not in self._header and not self._rgb:  # float pixel data
            return np.dtype(np.float64 if allocated == 64 else np.float32), (0.0, 1.0)
        half = 1 << self._bits - 1
        low, high = (-half, half - 1) if self._signed else (0, 2 * half - 1)
        if self._rgb:
            return np.dtype(f"{'i' if self._signed else 'u'}{max(allocated, 8) // 8}"), (float(low), float(high))
        if self._modality:
            count, first, bits = (int(value) for value in self._modality.LUTDescriptor)
            self._modality.LUTDescriptor = [count, first, 8 if bits <= 8 else 16]  # pydicom knows no other depths
            return self._lut(np.arange(1)).dtype, (0.0, float(2**bits - 1))
        ends = sorted(end * slope + shift for end in (low, high) for slope, shift in self._rescale)
        exact = all(number.is_integer() for pair in self._rescale for number in pair)
        fits = (kind for kind in _INTEGERS if np.iinfo(kind).min <= ends[0] and ends[-1] <= np.iinfo(kind).max)
        return (next(fits, np.dtype(np.float32)) if exact else np.dtype(np.float32)), (ends[0], ends[-1])

    def _lut(self, array: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(_import("pydicom.pixels").apply_modality_lut(array, self._header))

    def _decode(self, frame: int, _box: Box, _level: int) -> NDArray[Any]:
        pixels = _import("pydicom.pixels")
        if "TransferSyntaxUID" in getattr(self._header, "file_meta", ()):
            array = pixels.pixel_array(_file(self._source), index=frame)
        else:
            whole = self._pydicom.dcmread(_file(self._source), force=True)
            whole.file_meta.TransferSyntaxUID = _IMPLICIT if whole.original_encoding[0] else _EXPLICIT
            array = pixels.pixel_array(whole, index=frame)
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        if self._palette:
            array = pixels.apply_color_lut(array, self._header)[..., :3]
        elif not self._rgb:
            array = self._gray(array, frame)
        if self._channels:
            array = channels.composed(self._channels, lambda i: array[..., i] if array.ndim == 3 else array)
        return np.asarray(array).astype(self.dtype, copy=False)

    def _gray(self, array: NDArray[Any], frame: int) -> NDArray[Any]:
        """Stored values -> modality values, with MONOCHROME1 inverted within their range."""
        if self._bits == 1:
            array = array * np.uint8(255)
        elif array.dtype.kind in "ui":
            unused = array.dtype.itemsize * 8 - self._bits
            kind = np.dtype(f"{'i' if self._signed else 'u'}{array.dtype.itemsize}")
            array = array.view(kind) << unused >> unused
            slope, shift = self._rescale[frame]
            if self._modality:
                array = self._lut(array)
            elif (slope, shift) != (1.0, 0.0):
                whole = self.dtype.kind in "ui"
                array = array.astype(np.int64) * int(slope) + int(shift) if whole else array * slope + shift
        if self._kind == "MONOCHROME1":
            top = sum(self.span)
            array = (int(top) - array.astype(np.int64)) if self.dtype.kind in "ui" else top - array
        return array


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"DICOM files need pydicom: pip install 'medsass[dicom]' ({error})") from error


def _file(source: Path | bytes) -> Path | io.BytesIO:
    return io.BytesIO(source) if isinstance(source, bytes) else source


def _group(header: Any, frame: int, sequence: str) -> Any:
    """The functional group of a frame that has this sequence: the frame's own, the shared one, else the data set."""
    own, shared = header.get("PerFrameFunctionalGroupsSequence"), header.get("SharedFunctionalGroupsSequence")
    for groups, index in ((own, frame), (shared, 0)):
        if groups and index < len(groups) and groups[index].get(sequence):
            return groups[index][sequence][0]
    return header


def _rescale(header: Any, frame: int) -> tuple[float, float]:
    group = _group(header, frame, "PixelValueTransformationSequence")
    slope, shift = group.get("RescaleSlope"), group.get("RescaleIntercept")
    return 1.0 if slope is None else float(slope), 0.0 if shift is None else float(shift)


def _window(header: Any, frame: int) -> tuple[float, float] | None:
    """The values that the first window maps to black and white; of a sigmoid those of its tangent at the centre."""
    group = _group(header, frame, "FrameVOILUTSequence")
    centre, width = (_first(group.get(name)) for name in ("WindowCenter", "WindowWidth"))
    if centre is None or width is None:
        return None
    linear = str(group.get("VOILUTFunction") or "LINEAR") == "LINEAR"
    if width <= (1 if linear else 0):
        return None
    if linear:
        centre, width = centre - 0.5, width - 1
    return centre - width / 2, centre + width / 2


def _first(value: Any) -> float | None:
    if value is None or value == "":
        return None
    return float(value) if isinstance(value, (int, float)) else float(value[0]) if len(value) else None
