"""Labeler: a device batch -> pseudo-label masks, with the threshold and how well it separates.

On the CPU, OpenCV finds Otsu's and the adaptive thresholds and NumPy GHT's. A CUDA batch is labelled through the CPU.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from medsass.config import LABELS, POLARITIES
from medsass.labels import threshold as spec

_ADAPTIVE = {"adaptive-mean": cv2.ADAPTIVE_THRESH_MEAN_C, "adaptive-gaussian": cv2.ADAPTIVE_THRESH_GAUSSIAN_C}


@dataclass(frozen=True)
class Labels:
    """What a `Labeler` says of a batch; tensors on the batch's device.

    mask: (N, H, W) uint8 in {0, 1}.
    threshold: (N,) float32 gray level; NaN for the adaptive methods, whose threshold differs from pixel to pixel.
    separability: (N,) float32 in [0, 1], between-class over total variance of the gray levels of the two classes
        (for the adaptive methods: of the pixels above and not above their own threshold).
    """

    mask: torch.Tensor
    threshold: torch.Tensor
    separability: torch.Tensor


@dataclass(frozen=True)
class Labeler:
    """Makes pseudo-labels of a batch, image by image; a constant image gets an empty mask and separability 0.

    method: "otsu" (Otsu 1979), "ght" (Barron 2020), "adaptive-mean" or "adaptive-gaussian" (cv2.adaptiveThreshold).
    polarity: "bright" (foreground is above the threshold), "dark" (it is not), "auto" (whichever class holds less of
        the image's border).
    ght: (nu, tau, kappa, omega) of GHT; the default is minimum error thresholding, its reference's own default.
    block_size, offset: side of the adaptive methods' neighbourhood in pixels, odd, and the constant C they subtract.
    Raises `ValueError` for a value outside of these.
    """

    method: str = "otsu"
    polarity: str = "auto"
    ght: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.5)
    block_size: int = 51
    offset: float = 0.0

    def __post_init__(self) -> None:
        if self.method not in LABELS:
            raise ValueError(f"method must be one of {', '.join(LABELS)}; got '{self.method}'")
        if self.polarity not in POLARITIES:
            raise ValueError(f"polarity must be one of {', '.join(POLARITIES)}; got '{self.polarity}'")
        if self.block_size < 3 or self.block_size % 2 == 0:
            raise ValueError(f"block_size must be odd and at least 3; got {self.block_size}")

    def __call__(self, images: torch.Tensor) -> Labels:
        """Label `images`, (N, H, W, 3) uint8 RGB or (N, H, W) uint8 gray. Raises `ValueError` for anything else."""
        if images.dtype != torch.uint8 or not (images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)):
            raise ValueError(
                f"images must be (N, H, W, 3) RGB or (N, H, W) gray, uint8; got {tuple(images.shape)}, {images.dtype}"
            )
        if images.numel() == 0:
            raise ValueError(f"images must not be empty; got shape {tuple(images.shape)}")
        masks, thresholds, separabilities = zip(*map(self._label, images.cpu().numpy()), strict=True)
        return Labels(
            torch.from_numpy(np.stack(masks)).to(images.device),
            torch.tensor(thresholds, dtype=torch.float32, device=images.device),
            torch.tensor(separabilities, dtype=torch.float32, device=images.device),
        )

    def _label(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], float, float]:
        gray: Any = np.ascontiguousarray(image) if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        if gray.min() == gray.max():
            return np.zeros_like(gray), float("nan") if self.method in _ADAPTIVE else 0.0, 0.0
        if self.method in _ADAPTIVE:
            above = cv2.adaptiveThreshold(
                gray, 1, _ADAPTIVE[self.method], cv2.THRESH_BINARY, self.block_size, self.offset
            )
            counts = np.stack([spec.histogram(gray[above == side]) for side in (0, 1)])
            return spec.foreground(above > 0, self.polarity), float("nan"), _separability(*counts)
        counts = spec.histogram(gray)
        if self.method == "otsu":
            level, above = cv2.threshold(gray, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
        else:
            level = spec.ght(counts, *self.ght)
            above = gray > level
        return spec.foreground(above > 0, self.polarity), float(level), spec.separability(counts, level)


def _separability(*classes: NDArray[np.int64]) -> float:
    """Between-class over total variance of two classes of pixels, given as their histograms."""
    level = np.arange(spec.LEVELS)
    (n0, n1), (s0, s1) = [int(c.sum()) for c in classes], [int((c * level).sum()) for c in classes]
    count, total = n0 + n1, s0 + s1
    variance = count * sum(int((c * level**2).sum()) for c in classes) - total**2
    return (total * n0 - count * s0) ** 2 / (n0 * n1 * variance) if n0 and n1 and variance else 0.0
