"""Refinement of pseudo-labels: small steps before and after the threshold, named in one line such as "blur:3,border,holes".

`darkest`, `brightest`, `red`, `green` and `blue` choose the gray image that is thresholded, `blur` and `vignette` change it,
the others the mask. Lengths are in pixels of an image whose shorter side has 224 and grow with it, so that a word means the
same at every size. Every step is computed for the batch where the batch is, in whole numbers: masks are equal on CPU and
GPU, and do not depend on the batch.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from medsass.labels import cpu, morphology, regions, vignette
from medsass.labels.blur import blur

SIDE = 224  # of the image in whose pixels lengths are given
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


@dataclass(frozen=True)
class Step:
    """One step of a refinement; `value` is None where the step takes none."""

    name: str
    value: float | None = None


def parse(text: str) -> tuple[Step, ...]:
    """Steps from text: names separated by commas, each with its value after a colon; "" and "none" are no step.

    Raises `ValueError` that states the rule and the value seen.
    """
    if text.strip() in ("", "none"):
        return ()
    steps = tuple(_step(part.strip()) for part in text.split(","))
    late = next((i for i, step in enumerate(steps) if not _early(step)), len(steps))
    for step in steps[late:]:
        if _early(step):
            raise ValueError(
                f"refine: {step.name} works on the image, before the threshold, and must stand before {steps[late].name}; "
                f"got '{text}'"
            )
    for step in steps[1:]:
        if step.name in _GRAYS:
            raise ValueError(f"refine: {step.name} makes the gray image, and must be the first step; got '{text}'")
    return steps


def text(steps: tuple[Step, ...]) -> str:
    """What `parse` makes these steps of."""
    return ",".join(step.name if step.value is None else f"{step.name}:{_number(step.value)}" for step in steps)


def _number(value: float) -> str:
    return repr(value).removesuffix(".0")


def before(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Those that make or change the gray image."""
    return tuple(step for step in steps if _early(step))


def after(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Those that change the mask."""
    return tuple(step for step in steps if not _early(step))


def _early(step: Step) -> bool:
    return step.name in _GRAYS or step.name in _BEFORE


def _step(part: str) -> Step:
    name, colon, given = part.partition(":")
    if name not in STEPS:
        raise ValueError(f"refine: a step must be one of {', '.join(STEPS)}; got '{name}'")
    if name not in _VALUES:
        if colon:
            raise ValueError(f"refine: {name} takes no value; got '{part}'")
        return Step(name)
    rule, keeps, default = _VALUES[name]
    try:
        value = float(given) if colon else default
    except ValueError:
        value = None
    if value is None or not math.isfinite(value) or not keeps(value):
        raise ValueError(f"refine: {name} takes {rule}, as in {name}:{_EXAMPLES[name]}; got '{part}'")
    return Step(name, value)


Rule = tuple[str, Callable[[float], bool], float | None]  # in words, in code, and the value where none is given

_LENGTH: Rule = (f"a length above 0 and at most {MOST_LENGTH:g} pixels", lambda value: 0 < value <= MOST_LENGTH, None)
_VALUES: dict[str, Rule] = {
    "blur": _LENGTH,
    "open": _LENGTH,
    "close": _LENGTH,
    "min": ("a share above 0 and below 1", lambda value: 0 < value < 1, None),
    "largest": ("a whole number from 1 on", lambda value: value >= 1 and value == int(value), 1.0),
}
_EXAMPLES = {"blur": "3", "open": "2", "close": "2", "min": "0.001", "largest": "1"}


def scaled(length: float, shape: torch.Size) -> float:
    """A length in pixels of images of this shape (N, H, W)."""
    return length * min(shape[1:]) / SIDE


def radius(length: float, shape: torch.Size) -> int:
    """The same as a whole number; 0, where the disk is one pixel, changes nothing."""
    return math.floor(scaled(length, shape) + 0.5)


Image = tuple[torch.Tensor, torch.Tensor]  # gray levels and what is outside of the field of view, (N, H, W) uint8


def _blur(image: Image, step: Step) -> Image:
    gray, outside = image
    return blur(gray, scaled(_value(step), gray.shape)), outside


def _vignette(image: Image, step: Step) -> Image:  # noqa: ARG001
    gray, outside = image
    outside = outside | vignette.outside(gray, radius(vignette.MARGIN, gray.shape))
    return vignette.filled(gray, outside), outside


def _open(mask: torch.Tensor, outside: torch.Tensor, step: Step) -> torch.Tensor:  # noqa: ARG001
    return morphology.opened(mask, radius(_value(step), mask.shape))


def _close(mask: torch.Tensor, outside: torch.Tensor, step: Step) -> torch.Tensor:  # noqa: ARG001
    return morphology.closed(mask, radius(_value(step), mask.shape))


# How RGB becomes gray, in place of `gray_of`. The lowest channel is the "dark channel" of He et al. (2009) without its
# neighbourhood: white, light and gray things keep their level, and coloured ones fall to that of what they absorb.
_GRAYS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "darkest": lambda images: images.amin(3),
    "brightest": lambda images: images.amax(3),
    "red": lambda images: images[..., 0].contiguous(),
    "green": lambda images: images[..., 1].contiguous(),
    "blue": lambda images: images[..., 2].contiguous(),
}
_BEFORE: dict[str, Callable[[Image, Step], Image]] = {"blur": _blur, "vignette": _vignette}
_AFTER: dict[str, Callable[[torch.Tensor, torch.Tensor, Step], torch.Tensor]] = {
    "border": lambda mask, outside, _: regions.clear_border(mask, outside),
    "holes": lambda mask, _, __: regions.fill_holes(mask),
    "open": _open,
    "close": _close,
    "min": lambda mask, _, step: regions.remove_small(mask, _value(step)),
    "largest": lambda mask, _, step: regions.keep_largest(mask, int(_value(step))),
}


def _value(step: Step) -> float:
    assert step.value is not None
    return step.value


def of_images(images: torch.Tensor, steps: tuple[Step, ...]) -> Image:
    """(N, H, W, 3) uint8 RGB or (N, H, W) uint8 gray -> the gray image to threshold and what lies outside of the field of
    view, both (N, H, W) uint8.
    """
    early = before(steps)
    make = _GRAYS.get(early[0].name) if early else None
    gray = (make or gray_of)(images) if images.ndim == 4 else images
    image = gray, torch.zeros_like(gray)
    changes = early[1:] if make else early
    return functools.reduce(lambda so_far, step: _BEFORE[step.name](so_far, step), changes, image)


def of_mask(mask: torch.Tensor, outside: torch.Tensor | None, steps: tuple[Step, ...]) -> torch.Tensor:
    """A threshold's mask (N, H, W) uint8 in {0, 1} -> the refined one. Nothing in `outside` (N, H, W) is foreground."""
    outside = torch.zeros_like(mask) if outside is None else outside
    result = mask & (1 - outside)
    for step in after(steps):
        result = _AFTER[step.name](result, outside, step) & (1 - outside)
    return result


def gray_of(images: torch.Tensor) -> torch.Tensor:
    """(N, H, W, 3) uint8 RGB -> (N, H, W) uint8, as `threshold.gray`."""
    if not images.is_cuda:
        return cpu.gray_of(images)
    red, green, blue = images.int().unbind(3)
    return ((9798 * red + 19235 * green + 3735 * blue + 16384) >> 15).byte()
