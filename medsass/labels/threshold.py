"""NumPy statements of every labelling algorithm: the specification that the results of OpenCV and the CUDA kernels equal.

Written to be read and trusted, one image at a time; `labeler.py` is fast. Arrays: `images` (N, H, W, 3) uint8 RGB or
(N, H, W) uint8 gray; `gray` (H, W) uint8; `histogram` and `counts` (256,) int64, pixels at each gray level.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

LEVELS = 256
Gray = NDArray[np.uint8]
Histogram = NDArray[np.int64]

_LEAST = 1e-30  # floor of weights and variances, as in Barron's reference implementation


def gray(rgb: NDArray[np.uint8]) -> Gray:
    """Convert (..., 3) uint8 RGB to (...) uint8: BT.601 weights in 15-bit fixed point, rounded, as OpenCV's RGB2GRAY."""
    red, green, blue = (rgb[..., channel].astype(np.uint32) for channel in range(3))
    return ((9798 * red + 19235 * green + 3735 * blue + 16384) >> 15).astype(np.uint8)


def histogram(image: Gray) -> Histogram:
    """Count the pixels of (H, W) uint8 at each gray level, (256,) int64."""
    return np.bincount(image.ravel(), minlength=LEVELS).astype(np.int64)


def bins(image: NDArray[np.uint16]) -> tuple[Gray, int, int]:
    """Return the bins of (H, W) uint16 as (H, W) uint8, the lowest level, and the span.

    The image's own range [low, low + span) is cut into 256 bins of equal width, bin = (level - low) * 256 // span; a span
    below 256 leaves bins between the levels empty.
    """
    low, span = int(image.min()), int(image.max()) - int(image.min()) + 1
    return ((image.astype(np.int64) - low) * LEVELS // span).astype(np.uint8), low, span


def level_of_bin(threshold: float, low: int, span: int) -> int:
    """Return the highest 16-bit level whose bin is not above `threshold`: a level is above it exactly if its bin is."""
    return low + -(-(int(threshold) + 1) * span // LEVELS) - 1


def otsu(counts: Histogram) -> int:
    """Return Otsu's threshold in [0, 255] (Otsu 1979): 0 for a histogram of a single level.

    It is the first level t that maximises the between-class variance of the pixels at or below t and those above. With
    w, s the count and the sum of levels at or below t, and n, m those of the image, the variance is proportional to
    (m w - n s)^2 / (w (n - w)). Numerators and denominators are compared as integers of any size, so ties are true ties.
    """
    count, total = int(counts.sum()), int((counts * np.arange(LEVELS)).sum())
    best, best_numerator, best_denominator = 0, 0, 1
    weight = levels = 0
    for level in range(LEVELS):
        weight += int(counts[level])
        levels += level * int(counts[level])
        numerator, denominator = (total * weight - count * levels) ** 2, weight * (count - weight)
        if denominator and numerator * best_denominator > best_numerator * denominator:
            best, best_numerator, best_denominator = level, numerator, denominator
    return best


def separability(counts: Histogram, threshold: float) -> float:
    """Return the share of the variance that a threshold explains, in [0, 1]: between-class over total variance.

    This is eta, Otsu's measure of a threshold's goodness (Otsu 1979). 0 for a constant image and where one class is empty.
    """
    below = np.arange(LEVELS) <= threshold
    return separability_of(counts * below, counts * ~below)


def separability_of(one: Histogram, other: Histogram) -> float:
    """Return the `separability` of two classes of pixels, each given by its (256,) histogram."""
    level, counts = np.arange(LEVELS), one + other
    count, total, squares = int(counts.sum()), int((counts * level).sum()), int((counts * level**2).sum())
    weight, levels = int(one.sum()), int((one * level).sum())
    numerator, denominator = (total * weight - count * levels) ** 2, weight * (count - weight)
    variance = count * squares - total**2
    return numerator / (denominator * variance) if denominator and variance else 0.0


def ght_scores(counts: Histogram, nu: float, tau: float, kappa: float, omega: float) -> NDArray[np.float64]:
    """Return the scores of generalised histogram thresholding, (255,) float64 at levels 0..254.

    Barron 2020, arXiv 2007.07350: each class is a Gaussian whose variance has a scaled inverse chi-squared prior of
    strength nu and mode tau^2, and the share of the lower class has a beta prior of strength kappa and mode omega. With
    w the class's weight, p its share, d the sum of its squared deviations from its mean::

        v = (p nu tau^2 + d) / (p nu + w)
        score = sum over both classes of  -d / v - w ln v + 2 (w + kappa omega_k) ln w,   omega_k = omega, 1 - omega
    """
    n, x = counts.astype(np.float64), np.arange(LEVELS, dtype=np.float64)
    below = [np.cumsum(n * x**power)[:-1] for power in range(3)]
    above = [np.cumsum((n * x**power)[::-1])[-2::-1] for power in range(3)]
    weights = [np.maximum(moments[0], _LEAST) for moments in (below, above)]
    score = np.zeros(LEVELS - 1)
    for moments, w, share in zip((below, above), weights, (omega, 1 - omega), strict=True):
        p = w / (weights[0] + weights[1])
        d = np.maximum(moments[2] - w * (moments[1] / w) ** 2, 0)
        v = np.maximum((p * nu * tau**2 + d) / (p * nu + w), _LEAST)
        score += -d / v - w * np.log(v) + 2 * (w + kappa * share) * np.log(w)
    return score


def ght(counts: Histogram, nu: float, tau: float, kappa: float, omega: float) -> float:
    """Return GHT's threshold in [0, 254]: the mean of the levels with the greatest score, as in Barron's reference."""
    scores = ght_scores(counts, nu, tau, kappa, omega)
    return float(np.flatnonzero(scores == scores.max()).mean())


def adaptive_mean(image: Gray, block_size: int, offset: float) -> Gray:
    """Mark the pixels, (H, W) in {0, 1}, above the mean of their block_size x block_size neighbourhood minus `offset`.

    The mean is rounded to 8 bits and edges are replicated, as in cv2.adaptiveThreshold. Integers are compared:
    pixel - mean > -ceil(offset).
    """
    pad = block_size // 2
    padded = np.pad(image.astype(np.int64), pad, mode="edge")
    sums = np.pad(padded.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    box = sums[block_size:, block_size:] - sums[:-block_size, block_size:] - sums[block_size:, :-block_size]
    box += sums[:-block_size, :-block_size]
    mean = np.rint(box / block_size**2).astype(np.int64)
    return np.asarray(image.astype(np.int64) - mean > -np.ceil(offset)).astype(np.uint8)


def gaussian_weights(block_size: int) -> NDArray[np.int64]:
    """Return (block_size,) integers that sum to 2^24: cv2.getGaussianKernel(block_size, 0), rounded.

    The centre takes the rounding error of the sum. OpenCV's own kernel, because for small sizes it follows tables, which
    differ between its versions; above 9 it is a Gaussian of sigma 0.3 ((block_size - 1) / 2 - 1) + 0.8.
    """
    kernel = cv2.getGaussianKernel(block_size, 0)[:, 0]
    weights: NDArray[np.int64] = np.rint(kernel * 2**24).astype(np.int64)
    weights[block_size // 2] += 2**24 - weights.sum()
    return weights


def adaptive_gaussian(image: Gray, block_size: int, offset: float) -> Gray:
    """Mark the pixels as `adaptive_mean` does, with the Gaussian-weighted mean.

    Computed in integer multiples of 2^-48. OpenCV sums in float32: its mean can differ by one where the exact one is
    within about 5e-4 of a half, and then its mask can too.
    """
    weights, pad = gaussian_weights(block_size), block_size // 2
    padded = np.pad(image.astype(np.int64), pad, mode="edge")
    rows = sum(weights[k] * padded[:, k : k + image.shape[1]] for k in range(block_size))
    total = sum(weights[k] * rows[k : k + image.shape[0]] for k in range(block_size))
    half = 1 << 47
    mean = (total + half) >> 48
    mean -= (total % (2 * half) == half) & (mean % 2 == 1)  # ties to even
    return np.asarray(image.astype(np.int64) - mean > -np.ceil(offset)).astype(np.uint8)


def normalised(images: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]) -> NDArray[np.float32]:
    """Normalise (N, H, W, 3) uint8 to float32 of the same shape: (x / 255 - mean) / std.

    Computed as x * scale + shift, each operation rounded, with scale = 1 / (255 std) and shift = -mean / std.
    """
    scale, shift = scale_and_shift(mean, std)
    return images.astype(np.float32) * scale + shift


def scale_and_shift(mean: Sequence[float], std: Sequence[float]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the factor and the summand of `normalised`, each (3,) float32."""
    centre, spread = np.asarray(mean, np.float64), np.asarray(std, np.float64)
    return (1 / (255 * spread)).astype(np.float32), (-centre / spread).astype(np.float32)


def foreground(above: NDArray[np.bool_], polarity: str) -> Gray:
    """Return the mask, (H, W) in {0, 1}, of the pixels that are foreground.

    Args:
        above: (H, W) bool, whether a pixel is above the threshold.
        polarity: "bright": the pixels above are foreground; "dark": those not above; "auto": the class that holds less of
            the border, or the pixels above if both hold the same.
    """
    if polarity == "auto":
        border = np.ones(above.shape, bool)  # the outermost ring of pixels
        border[1:-1, 1:-1] = False
        polarity = "bright" if 2 * int(above[border].sum()) <= int(border.sum()) else "dark"
    return np.asarray(above if polarity == "bright" else ~above).view(np.uint8)
