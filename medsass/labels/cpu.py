"""Labels on the CPU: OpenCV for Otsu and the adaptive thresholds, NumPy for GHT, image by image."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from medsass.labels import threshold as spec

ADAPTIVE = {"adaptive-mean": cv2.ADAPTIVE_THRESH_MEAN_C, "adaptive-gaussian": cv2.ADAPTIVE_THRESH_GAUSSIAN_C}


def label(
    image: NDArray[Any], method: str, polarity: str, ght: Sequence[float], block_size: int, offset: float
) -> tuple[NDArray[np.uint8], float, float]:
    """Label one (H, W, 3) uint8 RGB, (H, W) uint8 or (H, W) uint16 image with the options of `Labeler`.

    Returns mask, threshold and separability. The adaptive methods take no uint16, and return NaN as the threshold.
    """
    gray: NDArray[Any] = np.ascontiguousarray(image) if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    low, span, adaptive = 0, 0, method in ADAPTIVE
    if gray.dtype == np.uint16 and not adaptive:
        gray, low, span = spec.bins(gray)
    counts = _histogram(gray)
    if counts.max() == gray.size:  # a single level: nothing to separate
        return np.zeros(gray.shape, np.uint8), float("nan") if adaptive else 0.0, 0.0
    if adaptive:
        above: NDArray[Any] = cv2.adaptiveThreshold(gray, 1, ADAPTIVE[method], cv2.THRESH_BINARY, block_size, offset)
        classes = [_histogram(gray[above == side]) for side in (0, 1)]
        return spec.foreground(above > 0, polarity), float("nan"), spec.separability_of(*classes)
    if method == "otsu":
        level, above = cv2.threshold(gray, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    else:
        level = spec.ght(counts, *ght)
        above = gray > level
    shown = float(spec.level_of_bin(level, low, span)) if span else float(level)
    return spec.foreground(above > 0, polarity), shown, spec.separability(counts, level)


def _histogram(gray: NDArray[np.uint8]) -> spec.Histogram:
    """Count levels by OpenCV, four times as fast as `threshold.histogram`; its float32 counts are exact below 2^24."""
    if gray.size >= 1 << 24:
        return spec.histogram(gray)
    counts: spec.Histogram = cv2.calcHist([gray], [0], None, [spec.LEVELS], [0, spec.LEVELS]).ravel().astype(np.int64)
    return counts
