"""Make pseudo-label masks of a device batch, with the threshold and how well it separates.

A CUDA batch is labelled by the project's kernels, a CPU batch by OpenCV and NumPy. The interface is one, and so are the
results, which `threshold.py` states, except where OpenCV's float32 Gaussian rounds the other way.
"""

from dataclasses import dataclass, field, replace

import torch
from torch.nn import functional as F

from medsass.config import LABELS, POLARITIES, refine
from medsass.config.options import check_ght
from medsass.labels import ops, vignette
from medsass.labels.cuda import Labels, Normalise


@dataclass(frozen=True)
class Labeler:
    """Makes pseudo-labels, image by image; a constant image gets an empty mask and separability 0.

    Attributes:
        method: "otsu" (Otsu 1979), "ght" (Barron 2020), "adaptive-mean" or "adaptive-gaussian" (cv2.adaptiveThreshold).
        polarity: "bright" (foreground is above the threshold), "dark" (it is not), "auto" (the class that holds less of the
            image's border).
        ght: (nu, tau, kappa, omega) of GHT; the default is minimum error thresholding, the reference's own default.
        block_size, offset: side of the adaptive methods' neighbourhood in pixels, odd, and the constant C they subtract.
        refine: steps before and after the threshold, such as "blur:3,border,holes" (`refine.STEPS`); none by default.

    Raises `ValueError` for any other value.
    """

    method: str = "otsu"
    polarity: str = "auto"
    ght: tuple[float, ...] = (0.0, 0.0, 0.0, 0.5)
    block_size: int = 51
    offset: float = 0.0
    refine: str = ""
    _before: str = field(init=False, repr=False, compare=False)
    _after: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.method not in LABELS:
            raise ValueError(f"method must be one of {', '.join(LABELS)}; got '{self.method}'")
        if self.polarity not in POLARITIES:
            raise ValueError(f"polarity must be one of {', '.join(POLARITIES)}; got '{self.polarity}'")
        check_ght(self.ght)
        if self.block_size < 3 or self.block_size % 2 == 0:
            raise ValueError(f"block_size must be odd and at least 3; got {self.block_size}")
        steps = refine.parse(self.refine)
        object.__setattr__(self, "_before", refine.text(refine.before(steps)))
        object.__setattr__(self, "_after", refine.text(refine.after(steps)))

    def __call__(self, images: torch.Tensor, normalise: Normalise | None = None) -> Labels:
        """Label a batch.

        Args:
            images: (N, H, W, 3) uint8 RGB, (N, H, W) uint8 gray, or (N, H, W) uint16 for Otsu and GHT, whose thresholds
                are then found in 256 bins over each image's own range.
            normalise: also make the network's input.

        Raises `ValueError` for other images.
        """
        self._check(images, normalise)
        options = (self.method, self.polarity, list(self.ght), self.block_size, self.offset)
        numbers = (list(normalise.mean), list(normalise.std), normalise.dtype) if normalise else None
        outside = None
        if self._before:
            gray, outside = ops.before(images, self._before)
            made = ops.input(images, *numbers) if numbers else None
            labels = replace(Labels(*ops.label(gray, *options)), input=made, gray=gray)
        elif numbers:
            labels = Labels(*ops.label_input(images, *options, *numbers))
        else:
            labels = Labels(*ops.label(images, *options))
        if outside is None and not self._after:
            return labels
        return replace(labels, mask=ops.after(labels.mask, outside, self._after))

    def within(self, images: torch.Tensor, outside: torch.Tensor) -> Labels:
        """Label the part of one gray image that is not outside of the picture; nothing outside becomes foreground.

        Otsu's and GHT's threshold is that of the pixels inside alone, and polarity "auto" looks at their outline in place of
        the image's border. Adaptive methods and steps before the threshold, which look at neighbours, see levels of the
        pixels inside in place of those outside.

        Args:
            images: (1, H, W) uint8, or uint16 for Otsu and GHT without a step before.
            outside: (1, H, W) uint8 in {0, 1}.
        """
        inside = outside == 0
        if not inside.any():
            nothing = torch.zeros(1, device=images.device)
            return Labels(torch.zeros_like(outside), nothing, nothing)
        options = (list(self.ght), self.block_size, self.offset)
        if self._before or self.method.startswith("adaptive"):
            gray = vignette.filled(images, outside)
            if self._before:
                gray, dark = ops.before(gray, self._before)
                outside = outside | dark
            labels = Labels(*ops.label(gray, self.method, self.polarity, *options))
            return replace(labels, mask=ops.after(labels.mask, outside, self._after))
        signed = images.view(torch.int16) if images.dtype == torch.uint16 else images  # torch cannot index uint16
        levels = signed[inside].view(images.dtype)[None, None]
        labels, mask = Labels(*ops.label(levels, self.method, "bright", *options)), torch.zeros_like(outside)
        mask[inside] = labels.mask[0, 0]
        polarity = self.polarity
        if polarity == "auto":
            reached = F.max_pool2d(F.pad(outside.float(), (1, 1, 1, 1), value=1.0), 3, 1) > 0
            outline = mask[inside & reached]
            polarity = "dark" if 2 * int(outline.sum()) > outline.numel() else "bright"
        if polarity == "dark":
            mask[inside] = ops.label(levels, self.method, "dark", *options)[0][0, 0]
        return replace(labels, mask=ops.after(mask, outside, self._after))

    def _check(self, images: torch.Tensor, normalise: Normalise | None) -> None:
        if not isinstance(images, torch.Tensor):
            raise ValueError(
                f"images must be a torch tensor; got {type(images).__name__}; convert an array with torch.from_numpy"
            )
        seen = f"got {tuple(images.shape)}, {images.dtype}"
        if images.ndim == 3 and images.shape[2] == 3 and len(images) > 1:
            raise ValueError(
                "images must be a batch, (N, H, W, 3) RGB or (N, H, W) gray; this looks like one RGB image, (H, W, 3): pass "
                f"images[None]; {seen}"
            )
        rgb = images.ndim == 4 and images.shape[3] == 3 and images.dtype == torch.uint8
        if not rgb and not (images.ndim == 3 and images.dtype in (torch.uint8, torch.uint16)):
            raise ValueError(f"images must be (N, H, W, 3) uint8 RGB, (N, H, W) uint8 or (N, H, W) uint16; {seen}")
        if images.numel() == 0:
            raise ValueError(f"images must not be empty; {seen}")
        if images.dtype == torch.uint16 and (self.method.startswith("adaptive") or normalise):
            raise ValueError(f"adaptive labels and normalised input are made of uint8 images; {seen}")
        if images.dtype == torch.uint16 and self._before:
            raise ValueError(f"{self._before} works on uint8 images, before their threshold; {seen}")
