"""Where a DICOM image lies (PS3.3, C.7.6.2) and whose it is, by which a mask is known that belongs to another slice."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsass.data.formats.damage import readable
from medsass.data.formats.dicom.header import functional_group
from medsass.data.formats.dicom.image import Dicom


def gap(one: Dicom, other: Dicom) -> float:
    """Return how many millimetres the corners of two images lie apart by their headers, the farthest; 0 within half a pixel or,
    of images of other sizes, a pixel, and where a header does not say.
    """
    place, elsewhere = _corners(one), _corners(other)
    if place is None or elsewhere is None:
        return 0.0
    (corners, size), (others, another) = place, elsewhere
    far = float(np.linalg.norm(corners - others, axis=1).max())
    same = (one.height, one.width) == (other.height, other.width)
    return far if far > (min(size, another) / 2 if same else max(size, another)) else 0.0


def strangers(one: Dicom, other: Dicom) -> bool:
    """Return whether two images are of different patients by their headers."""
    patients = {str(image.header.get("PatientID") or "").strip() for image in (one, other)}
    return len(patients - {""}) > 1


def _corners(image: Dicom) -> tuple[NDArray[np.float64], float] | None:
    """Return the places (3, 3) of the first frame's first pixel and of the last of its first row and column, in mm, and the size
    of a pixel.
    """

    def element(sequence: str, name: str) -> Any:
        return functional_group(image.header, image.indices[0], sequence).get(name)

    with readable():
        first = element("PlanePositionSequence", "ImagePositionPatient")
        turned = element("PlaneOrientationSequence", "ImageOrientationPatient")
        if not first or not turned:
            return None
        sizes = element("PixelMeasuresSequence", "PixelSpacing") or (1, 1)
        down, across = (float(size) for size in sizes)
        place, rows = np.array(first, float), np.array(turned, float).reshape(2, 3)
    ends = [rows[0] * across * (image.width - 1), rows[1] * down * (image.height - 1)]
    return np.stack([place, place + ends[0], place + ends[1]]), min(down, across)
