"""TIFF files to read, and what reading them must give."""

import io
from pathlib import Path

import numpy as np
import tifffile

from medsass.data.formats.geometry import Box
from medsass.data.formats.image import WHOLE_FILE, ImageFile, Selection
from medsass.data.formats.opening import open_image

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (70, 90, 3), np.uint8)
GRAY = RNG.integers(0, 60_000, (70, 90), np.uint16)
BOXES = [Box(0, 0, 70, 90), Box(3, 5, 40, 50), Box(69, 89, 1, 1), Box(0, 60, 70, 30)]
STORES = {
    "flat": {},
    "strips": {"rowsperstrip": 16, "compression": "zlib"},
    "one strip": {"rowsperstrip": 70, "compression": "zlib"},
    "flat tiles": {"tile": (16, 32)},
    "tiles": {"tile": (32, 16), "compression": "lzw", "predictor": True},
}


def tiff(array: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def opened(data: bytes, folder: Path, view: Selection = WHOLE_FILE, from_memory: bool = False) -> ImageFile:
    path = folder / "image.tif"
    path.write_bytes(data)
    return open_image(path, view, data if from_memory else None)


def check(picture: ImageFile, truth: np.ndarray, frame: int = 0) -> None:
    assert picture.dtype == truth.dtype
    assert (picture.height, picture.width) == truth.shape[:2]
    assert picture.colour == (truth.ndim == 3)
    np.testing.assert_array_equal(picture.read(frame), truth)
    for box in BOXES:
        if box.y + box.height <= picture.height and box.x + box.width <= picture.width:
            np.testing.assert_array_equal(picture.read(frame, box), truth[box.slices])
