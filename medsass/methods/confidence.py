"""Weights for the pixels of a pseudo-label: low near the threshold and in images of low separability."""

import torch

from medsass.data.loading.loader import Batch
from medsass.labels import Labels

REACH = 0.5  # standard deviations of the image's gray levels from the threshold at which a pixel counts in full
# Separability up to which an image does not count, and from which it counts in full. Otsu's threshold explains 2 / pi = 0.64
# of the variance of one bell-shaped class, 3 / 4 of evenly spread gray levels, and all of that of two levels.
LEAST, FULL = 0.5, 0.8

_RED, _GREEN, _BLUE = 9798 / 32768, 19235 / 32768, 3735 / 32768  # OpenCV's weights, before rounding


def weights(batch: Batch, labels: Labels, otsu: bool = True) -> torch.Tensor:
    """Return (N, H, W) float32 in [0, 1]: the product of a pixel's and its image's weight.

    Pixel: `min(1, |g - t| / (REACH s))`, with g its gray level in the image that was thresholded, t the threshold, and s the
    standard deviation of the image's gray levels. Image: separability, Otsu's criterion eta (Otsu 1979, section II),
    linearly from 0 at LEAST to 1 at FULL; 1 for other thresholds, which aim at something else and may be right where eta
    is small (`otsu` says which). Adaptive labels, whose threshold differs from pixel to pixel, count in full.
    """
    gray = (batch.images if labels.gray is None else labels.gray).float()
    if gray.ndim == 4:
        gray = _RED * gray[..., 0] + _GREEN * gray[..., 1] + _BLUE * gray[..., 2]
    spread = gray.std((1, 2), correction=0).clamp_min(1e-6)
    distance = (gray - labels.threshold[:, None, None]).abs() / (REACH * spread)[:, None, None]
    found = distance.clamp_max(1)
    if otsu:
        found = found * ((labels.separability - LEAST) / (FULL - LEAST)).clamp(0, 1)[:, None, None]
    return found.nan_to_num(1.0)
