"""DICOM files to read: data sets made of arrays, and pydicom's own files."""

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from medsass.data.formats.image import WHOLE_FILE, ImageFile, Selection
from medsass.data.formats.opening import open_image

pytest.importorskip("pydicom")
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

RNG = np.random.default_rng(0)
RGB = cv2.GaussianBlur(RNG.integers(0, 256, (24, 40, 3), np.uint8), (0, 0), 3)


def bundled(name: str) -> Path:
    return Path(str(get_testdata_file(name, download=False)))


def dataset(array: np.ndarray, frames: int = 0, bits: int = 0, **elements: Any) -> Any:
    """A data set of `array`: (H, W), (H, W, 3), or with `frames` one axis more before these."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = "1.2.3.4"
    colour = array.ndim == 3 + bool(frames)
    made.Rows, made.Columns = array.shape[bool(frames) :][:2]
    made.SamplesPerPixel, made.PhotometricInterpretation = (3, "RGB") if colour else (1, "MONOCHROME2")
    if colour:
        made.PlanarConfiguration = 0
    made.BitsAllocated = array.dtype.itemsize * 8
    made.BitsStored = bits or made.BitsAllocated
    made.HighBit, made.PixelRepresentation = made.BitsStored - 1, int(array.dtype.kind == "i")
    if frames:
        made.NumberOfFrames = frames
    made.PixelData = array.tobytes() + b"\0" * (array.nbytes % 2)
    for name, value in elements.items():
        setattr(made, name, value)
    return made


def saved(made: Any) -> bytes:
    buffer = io.BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def opened(array: np.ndarray, view: Selection = WHOLE_FILE, **options: Any) -> ImageFile:
    return open_image(Path("image"), view, saved(dataset(array, **options)))


def gray(bits: int, signed: bool) -> np.ndarray:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    array = RNG.integers(low, high + 1, (24, 40))
    array[0, 0], array[0, 1] = low, high
    return array.astype(f"{'i' if signed else 'u'}{1 if bits == 8 else 2}")
