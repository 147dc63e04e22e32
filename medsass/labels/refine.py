"""Runs the steps that refine pseudo-labels, which `config/refine.py` parses.

Lengths are in pixels of an image whose shorter side has 224 and grow with it, so that a step means the same at every size.
Every step runs on the whole batch, on the batch's device, in integer arithmetic: masks are equal on CPU and GPU, and do not
depend on the batch.
"""

import math
from collections.abc import Callable

import cv2
import numpy as np
import torch

from medsass.config.refine import RefineStep, after, before
from medsass.labels import morphology, regions, vignette
from medsass.labels.blur import blur

SIDE = 224  # pixels of the image that lengths refer to

# How RGB becomes gray, in place of `gray_of`. The lowest channel is the "dark channel" of He et al. (2009) without its
# neighbourhood: white, light and gray things keep their level, and coloured ones fall to that of what they absorb.
_GRAYS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "darkest": lambda images: images.amin(3),
    "brightest": lambda images: images.amax(3),
    "red": lambda images: images[..., 0].contiguous(),
    "green": lambda images: images[..., 1].contiguous(),
    "blue": lambda images: images[..., 2].contiguous(),
}
# Mask, what is outside of the field of view, the step's value -> mask.
_AFTER: dict[str, Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]] = {
    "border": lambda mask, outside, _: regions.clear_border(mask, outside),
    "holes": lambda mask, _, __: regions.fill_holes(mask),
    "open": lambda mask, _, length: morphology.opened(mask, radius(length, mask.shape)),
    "close": lambda mask, _, length: morphology.closed(mask, radius(length, mask.shape)),
    "min": lambda mask, _, share: regions.remove_small(mask, share),
    "largest": lambda mask, _, count: regions.keep_largest(mask, int(count)),
}


def radius(length: float, shape: torch.Size) -> int:
    """Convert a length to whole pixels of images (N, H, W); at 0 the disk is one pixel and changes nothing."""
    return math.floor(length * min(shape[1:]) / SIDE + 0.5)


def of_images(images: torch.Tensor, steps: tuple[RefineStep, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Apply those of the steps that come before the threshold to (N, H, W, 3) uint8 RGB or (N, H, W) uint8 gray.

    Returns the gray image to threshold, and 1 where a pixel is outside of the field of view, both (N, H, W) uint8.
    """
    early = before(steps)
    make = _GRAYS.get(early[0].name) if early else None
    gray = (make or gray_of)(images) if images.ndim == 4 else images
    outside = torch.zeros_like(gray)
    for step in early[1:] if make else early:
        if step.name == "blur":
            gray = blur(gray, (step.value or 0.0) * min(gray.shape[1:]) / SIDE)
        else:
            outside = outside | vignette.outside(gray, radius(vignette.MARGIN, gray.shape))
            gray = vignette.filled(gray, outside)
    return gray, outside


def of_mask(mask: torch.Tensor, outside: torch.Tensor | None, steps: tuple[RefineStep, ...]) -> torch.Tensor:
    """Apply those of the steps that come after the threshold to a mask; nothing in `outside` becomes foreground.

    Masks and `outside` are (N, H, W) uint8 in {0, 1}.
    """
    outside = torch.zeros_like(mask) if outside is None else outside
    result = mask & (1 - outside)
    for step in after(steps):
        result = _AFTER[step.name](result, outside, step.value or 0.0) & (1 - outside)
    return result


def gray_of(images: torch.Tensor) -> torch.Tensor:
    """Convert (N, H, W, 3) uint8 RGB to (N, H, W) uint8 gray, with the values of `threshold.gray`."""
    if not images.is_cuda:
        return torch.from_numpy(np.stack([cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images.numpy()]))
    red, green, blue = images.int().unbind(3)
    return ((9798 * red + 19235 * green + 3735 * blue + 16384) >> 15).byte()
