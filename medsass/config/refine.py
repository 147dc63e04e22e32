"""The grammar of refinements: small steps before and after the threshold, written in one line: "blur:3,border,holes".

`darkest`, `brightest`, `red`, `green` and `blue` choose the gray image that is thresholded, `blur` and `vignette` change
it, the others change the mask. `labels/refine.py` runs them. Lengths are in pixels of an image whose shorter side has 224.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

MOST_LENGTH = 56.0
_MOST_STEPS = 64

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

GRAYS = ("darkest", "brightest", "red", "green", "blue")
EARLY = (*GRAYS, "blur", "vignette")  # before the threshold

Rule = tuple[str, Callable[[float], bool], float | None]  # in words, as a function, and the default value

_LENGTH: Rule = (f"a length above 0 and at most {MOST_LENGTH:g} pixels", lambda value: 0 < value <= MOST_LENGTH, None)
_VALUES: dict[str, Rule] = {
    "blur": _LENGTH,
    "open": _LENGTH,
    "close": _LENGTH,
    "min": ("a share above 0 and below 1", lambda value: 0 < value < 1, None),
    "largest": ("a whole number from 1 to a million", lambda value: 1 <= value <= 1e6 and value == int(value), 1.0),
}
_EXAMPLES = {"blur": "3", "open": "2", "close": "2", "min": "0.001", "largest": "1"}


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
    steps = tuple(_parse_step(item.strip()) for item in text.split(",", _MOST_STEPS))
    late = after(steps)
    for step in steps[steps.index(late[0]) :] if late else ():
        if step.name in EARLY:
            raise ValueError(
                f"refine: {step.name} works on the image, before the threshold, and must come before {late[0].name}; "
                f"got '{text}'"
            )
    for step in steps[1:]:
        if step.name in GRAYS:
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
    return tuple(step for step in steps if step.name in EARLY)


def after(steps: tuple[RefineStep, ...]) -> tuple[RefineStep, ...]:
    """Return the steps that change the mask."""
    return tuple(step for step in steps if step.name not in EARLY)
