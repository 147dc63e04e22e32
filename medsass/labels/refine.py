"""Refinement of pseudo-labels: small steps before and after the threshold, written in one line: "blur:3,border,holes".

`darkest`, `brightest`, `red`, `green` and `blue` choose the gray image that is thresholded, `blur` and `vignette` change
it, the others change the mask. Lengths are in pixels of an image whose shorter side has 224 and grow with it, so that a
step means the same at every size. Every step runs on the whole batch, on the batch's device, in integer arithmetic: masks
are equal on CPU and GPU, and do not depend on the batch.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from medsass.labels import morphology, regions, vignette
from medsass.labels.blur import blur

SIDE = 224  # pixels of the image that lengths refer to
MOST_LENGTH = 56.0

STEPS = {
    "darkest": "darkest takes the lowest channel for gray, in which stains and pigments are dark",
    "brightest": "brightest takes the highest channel for gray, in which what glows in one colour is bright",
    "red": "red takes the red channel for gray, in which blue stains are dark and pink ones light",
    "green": "green takes the green channel for gray",
    "blue": "blue takes the blue channel for gray",
    "blur": "blur:SIGMA smooths the image",
    "vignette": "vignette leaves out dark corners and margins",
    "border": "border removes components that touch the image's border, unless nearly nothing would be left",
    "holes": "holes fills holes",
    "open": "open:R removes what is narrower than a disk of radius R",
    "close": "close:R closes gaps narrower than a disk of radius R",
    "min": "min:SHARE removes components of less than this share of the image, but never the largest",
    "largest": "largest:K keeps the K largest components, 1 by default",
}

Rule = tuple[str, Callable[[float], bool], float | None]  # in words, as a function, and the default value

_LENGTH: Rule = (f"a length above 0 and at most {MOST_LENGTH:g} pixels", lambda value: 0 < value <= MOST_LENGTH, None)
_VALUES: dict[str, Rule] = {
    "blur": _LENGTH,
    "open": _LENGTH,
    "close": _LENGTH,
    "min": ("a share above 0 and below 1", lambda value: 0 < value < 1, None),
    "largest": ("a whole number from 1 on", lambda value: value >= 1 and value == int(value), 1.0),
}
_EXAMPLES = {"blur": "3", "open": "2", "close": "2", "min": "0.001", "largest": "1"}

# How RGB becomes gray, in place of `gray_of`. The lowest channel is the "dark channel" of He et al. (2009) without its
# neighbourhood: white, light and gray things keep their level, and coloured ones fall to that of what they absorb.
_GRAYS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "darkest": lambda images: images.amin(3),
    "brightest": lambda images: images.amax(3),
    "red": lambda images: images[..., 0].contiguous(),
    "green": lambda images: images[..., 1].contiguous(),
    "blue": lambda images: images[..., 2].contiguous(),
}
_EARLY = (*_GRAYS, "blur", "vignette")  # before the threshold
# Mask, what is outside of the field of view, the step's value -> mask.
_AFTER: dict[str, Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]] = {
    "border": lambda mask, outside, _: regions.clear_border(mask, outside),
    "holes": lambda mask, _, __: regions.fill_holes(mask),
    "open": lambda mask, _, length: morphology.opened(mask, radius(length, mask.shape)),
    "close": lambda mask, _, length: morphology.closed(mask, radius(length, mask.shape)),
    "min": lambda mask, _, share: regions.remove_small(mask, share),
    "largest": lambda mask, _, count: regions.keep_largest(mask, int(count)),
}


@dataclass(frozen=True)
class RefineStep:
    """One step of a refinement; `value` is None where the step takes none."""

    name: str
    value: float | None = None


def parse(text: str) -> tuple[RefineStep, ...]:
    """Parse steps: names separated by commas, each with its value after a colon; "" and "none" are no step.

    Raises `ValueError` with the rule and the value seen.
    """
    if text.strip() in ("", "none"):
        return ()
    steps = tuple(_parse_step(item.strip()) for item in text.split(","))
    late = after(steps)
    for step in steps[steps.index(late[0]) :] if late else ():
        if step.name in _EARLY:
            raise ValueError(
                f"refine: {step.name} works on the image, before the threshold, and must come before {late[0].name}; "
                f"got '{text}'"
            )
    for step in steps[1:]:
        if step.name in _GRAYS:
            raise ValueError(f"refine: {step.name} makes the gray image, and must be the first step; got '{text}'")
    return steps


def _parse_step(text: str) -> RefineStep:
    name, colon, given = text.partition(":")
    if name not in STEPS:
        raise ValueError(f"refine: a step must be one of {', '.join(STEPS)}; got '{name}'")
    if name not in _VALUES:
        if colon:
            raise ValueError(f"refine: {name} takes no value; got '{text}'")
        return RefineStep(name)
    rule, keeps, default = _VALUES[name]
    try:
        value = float(given) if colon else default
    except ValueError:
        value = None
    if value is None or not math.isfinite(value) or not keeps(value):
        raise ValueError(f"refine: {name} takes {rule}, as in {name}:{_EXAMPLES[name]}; got '{text}'")
    return RefineStep(name, value)


def text(steps: tuple[RefineStep, ...]) -> str:
    """Return the text that `parse` turns into these steps."""
    return ",".join(s.name if s.value is None else f"{s.name}:{repr(s.value).removesuffix('.0')}" for s in steps)


def before(steps: tuple[RefineStep, ...]) -> tuple[RefineStep, ...]:
    """Return the steps that make or change the gray image."""
    return tuple(step for step in steps if step.name in _EARLY)


def after(steps: tuple[RefineStep, ...]) -> tuple[RefineStep, ...]:
    """Return the steps that change the mask."""
    return tuple(step for step in steps if step.name not in _EARLY)


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
