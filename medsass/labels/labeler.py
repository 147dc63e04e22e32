"""Labeler: a device batch -> pseudo-label masks, with the threshold and how well it separates.

A CUDA batch is labelled by the project's kernels, a CPU batch by OpenCV and NumPy: one interface, and the results that
`threshold.py` states, but where OpenCV's float32 Gaussian rounds the other way.
"""

from dataclasses import dataclass

import torch

from medsass.config import LABELS, POLARITIES
from medsass.labels import ops, threshold
from medsass.labels.normalise import Normalise


@dataclass(frozen=True)
class Labels:
    """What a `Labeler` says of a batch; tensors on the batch's device.

    mask: (N, H, W) uint8 in {0, 1}.
    threshold: (N,) float32 gray level; NaN for the adaptive methods, whose threshold differs from pixel to pixel.
    separability: (N,) float32 in [0, 1], between-class over total variance of the gray levels of the two classes
        (for the adaptive methods: of the pixels above and not above their own threshold).
    input: the network's input (N, 3, H, W), channels-last, where a `Normalise` was given, else None.
    """

    mask: torch.Tensor
    threshold: torch.Tensor
    separability: torch.Tensor
    input: torch.Tensor | None = None


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
    ght: tuple[float, ...] = (0.0, 0.0, 0.0, 0.5)
    block_size: int = 51
    offset: float = 0.0

    def __post_init__(self) -> None:
        if self.method not in LABELS:
            raise ValueError(f"method must be one of {', '.join(LABELS)}; got '{self.method}'")
        if self.polarity not in POLARITIES:
            raise ValueError(f"polarity must be one of {', '.join(POLARITIES)}; got '{self.polarity}'")
        threshold.check_ght(self.ght)
        if self.block_size < 3 or self.block_size % 2 == 0:
            raise ValueError(f"block_size must be odd and at least 3; got {self.block_size}")

    def __call__(self, images: torch.Tensor, normalise: Normalise | None = None) -> Labels:
        """Label `images`: (N, H, W, 3) uint8 RGB, (N, H, W) uint8 gray, or (N, H, W) uint16 for Otsu and GHT, whose
        thresholds are then found in 256 bins over each image's own range. `normalise` asks for the network's input too.

        Raises `ValueError` for anything else.
        """
        self._check(images, normalise)
        options = (self.method, self.polarity, list(self.ght), self.block_size, self.offset)
        if normalise is None:
            return Labels(*ops.label(images, *options))
        return Labels(*ops.label_input(images, *options, list(normalise.mean), list(normalise.std), normalise.dtype))

    def _check(self, images: torch.Tensor, normalise: Normalise | None) -> None:
        seen = f"got {tuple(images.shape)}, {images.dtype}"
        rgb = images.ndim == 4 and images.shape[3] == 3 and images.dtype == torch.uint8
        if not rgb and not (images.ndim == 3 and images.dtype in (torch.uint8, torch.uint16)):
            raise ValueError(f"images must be (N, H, W, 3) uint8 RGB, (N, H, W) uint8 or (N, H, W) uint16; {seen}")
        if images.numel() == 0:
            raise ValueError(f"images must not be empty; {seen}")
        if images.dtype == torch.uint16 and (self.method.startswith("adaptive") or normalise):
            raise ValueError(f"adaptive labels and normalised input are made of uint8 images; {seen}")
