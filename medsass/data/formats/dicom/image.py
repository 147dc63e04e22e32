"""DICOM images by pydicom: modality values, zero is black, colours as RGB.

The formulas are those of DICOM PS3.3, C.7.6.3 (pixels) and C.11.1 (modality LUT).
"""

import io
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from medsass.data.formats.choice import pick_channels
from medsass.data.formats.damage import DamagedError, UnreadableError, readable
from medsass.data.formats.dicom.header import (
    check_whole,
    frames_of,
    import_dicom,
    opened,
    read_header,
    rescale_of,
    window_of,
)
from medsass.data.formats.geometry import Box, compose
from medsass.data.formats.image import ImageFile, Selection, check_level, chosen
from medsass.data.formats.mask import BRIGHT_ZERO
from medsass.data.formats.photos import codestream, jpeg

_INTEGERS = tuple(np.dtype(name) for name in ("uint8", "int8", "uint16", "int16", "uint32", "int32"))
_RGB = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_IMPLICIT, _EXPLICIT, _DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"
_JPEG = "1.2.840.10008.1.2.4."
_CODECS = {  # what pydicom and gdcm do not decode, or not in all of its forms -> imagecodecs' function
    **{f"{_JPEG}{number}": "jpeg8_decode" for number in (51, 57, 70)},
    **{f"{_JPEG}{number}": "jpegls_decode" for number in (80, 81)},
    **{f"{_JPEG}{number}": "jpeg2k_decode" for number in (90, 91)},
    **{f"{_JPEG}{number}": "htj2k_decode" for number in (201, 202, 203)},
}
_STREAMS = tuple(f"{_JPEG}{number}" for number in (50, 51, 57, 70))  # of JPEG itself
_RLE = "1.2.840.10008.1.2.5"
_TAG, _UNKNOWN = 12, 0xFFFFFFFF  # bytes of tag, VR and length before pixel data; the length of encoded ones
SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")  # of bits, and a label map
_NO_IMAGES = dict.fromkeys(SEGMENTATIONS, "segmentation, which holds masks and no image")
_NO_IMAGES["1.2.840.10008.5.1.4.1.1.481.2"] = "radiotherapy dose, which is no image"


class Dicom(ImageFile):
    """A DICOM image: a path, or the bytes of a file.

    Gray values are those after the rescale slope and intercept or the modality LUT, of the smallest integer type that
    holds them exactly, else float32; MONOCHROME1 is inverted. `limits` are the ends of the first window, where all
    frames have the same. Raises `ValueError` where the file holds no such image.

    Args:
        source: the file.
        view: the part that is read.
        known: what `read_header` returns of the file, where it is at hand.
    """

    def __init__(self, source: Path | bytes, view: Selection, known: tuple[Any, int] | None = None) -> None:
        check_level(view, 1)
        header, self._place = known or read_header(source)
        self._source, self.header, self._channels = source, header, view.channels
        with readable():
            check_whole(header)
            if (what := _NO_IMAGES.get(header.get("SOPClassUID"))) and not view.raw:
                raise UnreadableError(f"a DICOM {what}; leave it out, or name it as a mask")
            if "Rows" not in header or "Columns" not in header:
                raise UnreadableError(
                    f"a DICOM file without an image (modality {header.get('Modality') or 'unknown'}), such as a report; leave it "
                    "out, or copy it again if it should hold one"
                )
            several = int(header.get("SamplesPerPixel") or 1) > 1
            self._kind = str(header.get("PhotometricInterpretation") or ("RGB" if several else "MONOCHROME2")).strip()
            self._allocated = int(header.get("BitsAllocated") or 8)
            self._bits = int(header.get("BitsStored") or header.get("BitsAllocated") or 0)
            self._signed = bool(header.get("PixelRepresentation", 0))
            self._modality = (header.get("ModalityLUTSequence") or [None])[0]
            size, total = (int(header.Rows), int(header.Columns)), frames_of(header, source)
            syntax = getattr(header, "file_meta", {}).get("TransferSyntaxUID")
            decoded = (
                syntax is not None and syntax.is_compressed and syntax != _RLE
            )  # to values that end where they should
            high = self._bits - 1 if decoded or several else int(header.get("HighBit") or self._bits - 1)
        if total < 1 or not 1 <= self._allocated <= 64:
            raise DamagedError(f"damaged header: {total} frames of {self._allocated} bits")
        if high > self._bits - 1:
            raise UnreadableError(
                f"pixels of {self._bits} bits that end at bit {high}, which readers take in different ways; save it anew with "
                f"HighBit {self._bits - 1}"
            )
        if self._kind not in (*_RGB, "PALETTE COLOR", "MONOCHROME1", "MONOCHROME2"):
            raise ValueError(f"photometric interpretation {self._kind} is not supported; save it as RGB or MONOCHROME2")
        self._palette, self._rgb = self._kind == "PALETTE COLOR" and not view.raw, self._kind in _RGB
        colour, self.inverted = self._palette or self._rgb, self._kind == "MONOCHROME1" and not view.raw
        self._bit, frames = 1 if view.raw else 255, chosen(view, total)  # what a single bit becomes
        pick_channels(view, 3 if colour else 1)
        self._rescale = {frame: rescale_of(header, frame) for frame in frames}
        dtype, span = self._values()
        # padding that becomes other values in each frame is NaN
        self._holes = len(set(self._rescale.values())) > 1 and not colour and bool(self._padding_ends())
        dtype = np.dtype(np.float32) if self._holes else dtype
        self._samples = 3 if colour else 1
        chosen_colour = len(view.channels) == 3 if view.channels else colour
        super().__init__(*size, chosen_colour, dtype, view, samples=self._samples)
        left_out, self.span = self._select(view, total), span
        windows = {window_of(header, frame) for frame in frames} if not colour else set()
        own = windows.pop() if len(windows) == 1 else None
        self.mirror = sum(span) if self.inverted else None
        self.limits = (sum(span) - own[1], sum(span) - own[0]) if own and self.inverted else own
        self.common, self.padding = True, None if colour else self._padding()
        notes = {
            left_out: bool(left_out),
            BRIGHT_ZERO if view.raw else "inverted (MONOCHROME1)": self._kind == "MONOCHROME1",
            "palette to RGB": self._palette,
            f"{self._kind} to RGB": self._rgb and self._kind != "RGB",
            "bilevel to gray": self._bits == 1 and not view.raw,
            "modality LUT": bool(self._modality) and not colour,
            "VOI LUT not applied": bool(header.get("VOILUTSequence")) and not (colour or own or view.raw),
            "rescaled": any(item != (1.0, 0.0) for item in self._rescale.values()) and not colour,
        }
        self.converted = ", ".join(note for note, applies in notes.items() if applies)

    def _values(self) -> tuple[np.dtype[Any], tuple[float, float]]:
        """Return type and range of the pixels that are read."""
        if self._palette:
            with readable():
                deep = int(self.header.RedPaletteColorLookupTableDescriptor[2]) > 8
            return (np.dtype(np.uint16), (0.0, 65535.0)) if deep else (np.dtype(np.uint8), (0.0, 255.0))
        if self._allocated == 1:
            return np.dtype(np.uint8), (0.0, float(self._bit))
        if "PixelRepresentation" not in self.header and not self._rgb:  # float pixel data
            return np.dtype(np.float64 if self._allocated == 64 else np.float32), (0.0, 1.0)
        if not 1 <= self._bits <= self._allocated:
            raise DamagedError(f"damaged header: {self._bits} bits stored of {self._allocated} allocated")
        low, high = (-(1 << self._bits - 1), (1 << self._bits - 1) - 1) if self._signed else (0, (1 << self._bits) - 1)
        if self._rgb:
            if (size := max(self._allocated, 8) // 8) not in (1, 2, 4, 8):
                raise DamagedError(f"damaged header: bits allocated must be 8, 16, 32 or 64; got {self._allocated}")
            return np.dtype(f"{'i' if self._signed else 'u'}{size}"), (float(low), float(high))
        if self._modality:
            with readable():
                count, first, bits = (int(value) for value in self._modality.LUTDescriptor)
                self._modality.LUTDescriptor = [count, first, 8 if bits <= 8 else 16]  # pydicom knows no other depths
                kind = import_dicom("pydicom.pixels").apply_modality_lut(np.arange(1), self.header).dtype
            return kind, (0.0, float(2**bits - 1))
        ends = sorted(end * slope + shift for end in (low, high) for slope, shift in self._rescale.values())
        exact = all(number.is_integer() for pair in self._rescale.values() for number in pair)
        fits = (kind for kind in _INTEGERS if np.iinfo(kind).min <= ends[0] and ends[-1] <= np.iinfo(kind).max)
        return (next(fits, np.dtype(np.float32)) if exact else np.dtype(np.float32)), (ends[0], ends[-1])

    def _decode(self, frame: int, _box: Box, _level: int) -> NDArray[Any]:
        return self._shown(self._stored(frame), frame)

    def _stored(self, frame: int) -> NDArray[Any]:
        """Return the stored values of a frame, colours as RGB."""
        pydicom, pixels = import_dicom("pydicom"), import_dicom("pydicom.pixels")
        syntax = getattr(self.header, "file_meta", {}).get("TransferSyntaxUID")
        if syntax != _DEFLATED:
            self.once("length", self._check_length)
        if syntax in _CODECS or syntax in _STREAMS:
            data = self._encoded(frame)
            codestream.check(data, self.height, self.width, self._samples)
            if syntax in _STREAMS:
                jpeg.check_pixels(data)
        if self._allocated == 1 and syntax in (None, _IMPLICIT, _EXPLICIT) and self.header.original_encoding[1]:
            return self._unpacked(frame)
        with readable():
            source: Any = io.BytesIO(self._source) if isinstance(self._source, bytes) else self._source
            lacking = not (self.header.get("SamplesPerPixel") and self.header.get("PhotometricInterpretation"))
            if syntax in (None, _DEFLATED) or lacking:
                source = pydicom.dcmread(source, force=True)
                if syntax is None:
                    source.file_meta.TransferSyntaxUID = _IMPLICIT if source.original_encoding[0] else _EXPLICIT
                source.SamplesPerPixel = self.header.get("SamplesPerPixel") or 1
                source.PhotometricInterpretation = self._kind
            try:
                return np.asarray(pixels.pixel_array(source, index=frame))
            except (RuntimeError, NotImplementedError):  # by none of the libraries that pydicom uses
                if syntax not in _CODECS:
                    raise
        with readable():
            return np.asarray(getattr(imagecodecs, _CODECS[syntax])(data))

    def _check_length(self) -> None:
        """Raise `ValueError` where there are no pixel data, or fewer or more than the header says; encoded ones have no length."""
        implicit, little = self.header.original_encoding
        with readable(), opened(self._source) as file:
            file.seek(self._place)
            tag = file.read(8 if implicit else _TAG)
            start, end = file.tell(), file.seek(0, io.SEEK_END)
        if tag[:2] != (b"\xe0\x7f" if little else b"\x7f\xe0"):
            raise DamagedError(f"a DICOM file without pixel data (modality {self.header.get('Modality') or 'unknown'})")
        stated = int.from_bytes(tag[-4:], "little" if little else "big")
        if stated == _UNKNOWN:
            return
        size = self.height * self.width * int(self.header.get("SamplesPerPixel") or 1) * self._allocated
        frame = size * 2 // 3 if self._kind == "YBR_FULL_422" else size  # in bits
        total, held = int(self.header.get("NumberOfFrames") or 1), min(stated, end - start)
        due = -(-frame * total // 8)
        if held < due:
            raise DamagedError(f"truncated DICOM file: {held:,} of {due:,} bytes of pixel data")
        if held > due + 1 and held * 8 >= frame * (total + 1):  # more than a byte that makes their number even
            raise ValueError(
                f"pixel data of {held * 8 // frame} images, where the header says {total}; mend NumberOfFrames"
            )

    def _unpacked(self, frame: int) -> NDArray[np.uint8]:
        """Return a frame of single bits, which begins behind the last bit of the one before (PS3.5, 8.1.1)."""
        first, end = (number * self.height * self.width for number in (frame, frame + 1))
        with readable(), opened(self._source) as file:
            file.seek(self._place + (8 if self.header.original_encoding[0] else _TAG) + first // 8)
            held = np.frombuffer(file.read(-(-end // 8) - first // 8), np.uint8)
        bits = np.unpackbits(held, bitorder="little")[first % 8 :]
        return bits[: end - first].reshape(self.height, self.width)

    def _encoded(self, frame: int) -> bytes:
        """Return the bytes of a frame of a file whose frames are encoded one by one."""
        with readable(), opened(self._source) as file:
            file.seek(self._place + _TAG)
            total = int(self.header.get("NumberOfFrames") or 1)
            return bytes(import_dicom("pydicom.encaps").get_frame(file, frame, number_of_frames=total))

    def _shown(self, array: NDArray[Any], frame: int) -> NDArray[Any]:
        """Turn the stored values of a frame into those that are read."""
        pixels = import_dicom("pydicom.pixels")
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        if self._palette:
            with readable():
                array = pixels.apply_color_lut(array, self.header)[..., :3]
        elif not self._rgb:
            stored, array = array, self._gray(array, self._rescale[frame])
            if self._holes:
                ends = self._gray(self._stored_padding(stored.dtype), self._rescale[frame])
                array = np.where((array >= ends.min()) & (array <= ends.max()), np.nan, array)
        if self._channels:
            array = compose(self._channels, lambda i: array[..., i] if array.ndim == 3 else array)
        return np.asarray(array).astype(self.dtype, copy=False)

    def _padding(self) -> tuple[float, float] | None:
        """Return the ends of the padding's values, or None where the header states none."""
        if not self._padding_ends():
            return None
        if self._holes:
            return np.nan, np.nan
        single = "PixelRepresentation" not in self.header
        kind = np.dtype(np.float64 if single else f"u{max(self._allocated // 8, 1)}")
        values = self._gray(self._stored_padding(kind), self._rescale[self.indices[0]]).astype(self.dtype)
        return float(values.min()), float(values.max())

    def _padding_ends(self) -> list[Any]:
        """Return the one or two values in the header between which stored values are padding."""
        if self._bits == 1:
            return []
        kind = "Float" if "PixelRepresentation" not in self.header else ""
        names = [f"{kind}PixelPadding{name}" for name in ("Value", "RangeLimit")]
        with readable():
            return [value for name in names if (value := self.header.get(name)) is not None]

    def _stored_padding(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return these values as pixels are stored; the header may write a signed value as an unsigned one."""
        ends = self._padding_ends()
        if dtype.kind == "f":
            return np.array(ends, dtype)
        size = max(self._allocated // 8, 1)
        return np.array([int(end) % (1 << 8 * size) for end in ends], f"u{size}")

    def _gray(self, array: NDArray[Any], rescale: tuple[float, float]) -> NDArray[Any]:
        """Turn stored values into modality values, with MONOCHROME1 inverted within their range."""
        if self._bits == 1:
            array = array * np.uint8(self._bit)
        elif array.dtype.kind in "ui":
            unused = array.dtype.itemsize * 8 - self._bits
            kind = np.dtype(f"{'i' if self._signed else 'u'}{array.dtype.itemsize}")
            array = array.view(kind) << unused >> unused
            slope, shift = rescale
            if self._modality:
                with readable():
                    array = import_dicom("pydicom.pixels").apply_modality_lut(array, self.header)
            elif rescale != (1.0, 0.0):
                whole = self.dtype.kind in "ui"
                array = array.astype(np.int64) * int(slope) + int(shift) if whole else array * slope + shift
        if self.inverted:
            top = sum(self.span)
            array = (int(top) - array.astype(np.int64)) if self.dtype.kind in "ui" else top - array
        return array
