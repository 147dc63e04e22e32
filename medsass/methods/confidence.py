"""How much the pixels of a pseudo-label are to be believed: near the threshold less, in images of low separability less."""

import torch

from medsass.data.loading.loader import Batch
from medsass.labels import Labels

REACH = 0.5  # standard deviations of the image's gray levels from the threshold at which a pixel counts in full
# Separability below which an image does not count, and from which it counts in full. Otsu's threshold makes 2 / pi = 0.64 of
# gray levels of one bell-shaped class, 3 / 4 of evenly spread ones, and 1 of two levels.
LEAST, FULL = 0.5, 0.8

_GRAY = (9798 / 32768, 19235 / 32768, 3735 / 32768)  # OpenCV's, before rounding


def weights(batch: Batch, labels: Labels, otsu: bool = True) -> torch.Tensor:
    """(N, H, W) float32 in [0, 1]: the product of a pixel's and its image's weight. otsu: whether the labels are Otsu's.

    Pixel: min(1, |g - t| / (REACH s)), g its gray level where it is thresholded, t the threshold, s the standard deviation of
    the image's gray levels. Image: separability, which is Otsu's criterion eta (Otsu 1979, section II), from 0 at LEAST to 1
    at FULL in a straight line; 1 for other thresholds, which aim at something else, and may be right where eta is small.
    Adaptive labels, whose threshold differs from pixel to pixel, count in full.
    """
    gray = _gray(batch.images if labels.gray is None else labels.gray)
    spread = gray.std((1, 2), correction=0).clamp_min(1e-6)
    distance = (gray - labels.threshold[:, None, None]).abs() / (REACH * spread)[:, None, None]
    found = distance.clamp_max(1)
    if otsu:
        found = found * ((labels.separability - LEAST) / (FULL - LEAST)).clamp(0, 1)[:, None, None]
    return found.nan_to_num(1.0)


def _gray(images: torch.Tensor) -> torch.Tensor:
    """(N, H, W, 3) RGB or (N, H, W) gray -> (N, H, W) float32 gray."""
    images = images.float()
    red, green, blue = _GRAY
    return images if images.ndim == 3 else red * images[..., 0] + green * images[..., 1] + blue * images[..., 2]
