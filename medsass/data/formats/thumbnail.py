"""Whether a picture in a TIFF file is another one made small, as scanners put one before the image, though its tags do not say so."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from medsass import budget
from medsass.data.formats.damage import readable

_ALIKE = 0.9  # correlation of gray values
_MOST = 1 << 26  # pixels of a page that is decoded for it


def is_one(one: Any, among: Sequence[Any]) -> bool:
    """Return whether a series of tifffile's, of one page, shows what another of twice its height at least does."""
    page = one.keyframe
    if len(one.pages) > 1:
        return False
    for other in (series.keyframe for series in among if series.axes == one.axes and len(series.pages) == 1):
        width = other.imagewidth * page.imagelength / other.imagelength
        few = other.imagelength * other.imagewidth <= _MOST
        if (
            other.imagelength >= 2 * page.imagelength
            and abs(width - page.imagewidth) < 1
            and few
            and _alike(page, other)
        ):
            return True
    return False


def differs(level: Any, page: Any) -> bool:
    """Return whether a page that tifffile takes for a level of a pyramid, by its size alone, shows something else."""
    return not level.is_reduced and page.imagelength * page.imagewidth <= _MOST and not _alike(level, page)


def _alike(page: Any, other: Any) -> bool:
    """Return whether a page shows what a larger one does; no where one of them cannot be decoded."""
    with suppress(ValueError), readable():
        size = int(page.imagewidth), int(page.imagelength)
        small, large = (_gray(cv2.resize(_samples(one), size, interpolation=cv2.INTER_AREA)) for one in (page, other))
        if small.std() and large.std():
            return float(np.corrcoef(small.ravel(), large.ravel())[0, 1]) > _ALIKE
        return np.array_equal(small, large)
    return False


def _samples(page: Any) -> NDArray[Any]:
    """Return a page's samples, (h, w) or (h, w, samples), of a type that OpenCV shrinks."""
    budget.check(3 * page.nbytes, "reading a page")
    pixels = np.asarray(page.asarray(maxworkers=1))
    pixels = pixels if pixels.ndim == 2 else np.moveaxis(pixels, page.axes.index("S"), -1)[..., :4]
    return np.ascontiguousarray(pixels if pixels.dtype in (np.uint8, np.uint16) else pixels.astype(np.float32))


def _gray(pixels: NDArray[Any]) -> NDArray[Any]:
    return pixels.astype(np.float32) if pixels.ndim == 2 else pixels.mean(axis=2, dtype=np.float32)
