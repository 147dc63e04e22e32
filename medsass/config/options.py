"""An option: its default, its help text and the rule that its value keeps; and the choices that several options share."""

import math
from dataclasses import MISSING, Field, asdict, field, fields
from pathlib import Path
from typing import Any

from medsass import bundled

DEVICES = ("auto", "cpu", "cuda")
ENCODINGS = ("keep", "png", "jpeg", "jpeg2000")
LABELS = ("otsu", "ght", "adaptive-mean", "adaptive-gaussian")
LOSSES = ("focal-tversky", "tversky", "focal", "cross-entropy")
CACHES = ("none", "host", "device")
METHODS = bundled.methods()
MODELS = ("unet-resnet50", "unet-resnet18", "unet-vit-small", "unet-vit-tiny")
POLARITIES = ("bright", "dark", "auto")
PRECISIONS = ("auto", "bf16", "fp16", "fp32")
PROTOCOLS = ("auto", "network", "paper", "linear")
RANGES = ("minmax", "percentile", "type")


def option(default: Any, text: str, *, choices: tuple[str | int, ...] = (), least: float | None = None) -> Any:
    """A dataclass field with its help text and the rule its value must keep: one of `choices`, or at least `least`."""
    return field(default=default, metadata={"help": text, "choices": choices, "least": least})


def ght_option() -> Any:
    """GHT's parameters, of all that labels."""
    return option("0,0,0,0.5", "ght labels: nu,tau,kappa,omega; the default is minimum error thresholding")


def block_size_option() -> Any:
    """The adaptive thresholds' neighbourhood, of all that labels."""
    return option(51, "adaptive labels: side of the neighbourhood in pixels, odd", least=3)


def offset_option() -> Any:
    """The adaptive thresholds' constant, of all that labels."""
    return option(0.0, "adaptive labels: the constant C subtracted from the neighbourhood's mean")


def refine_option() -> Any:
    """The refinement, of all that labels."""
    return option(
        "", "steps that refine the labels, such as vignette,blur:3,border,holes; of darkest, brightest, red, green, blue, "
        "blur:SIGMA, vignette, border, holes, open:R, close:R, min:SHARE, largest:K; or recipe, for those of the shards' "
        "recipe",
    )  # fmt: skip


def check(config: Any) -> None:
    """Raise `ValueError` naming the option, its rule and the value seen, if a field of `config` breaks its rule."""
    for item in fields(config):
        value, name = getattr(config, item.name), "--" + item.name.replace("_", "-")
        choices, least = item.metadata.get("choices"), item.metadata.get("least")
        if choices and value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}; got {value!r}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name} must be a finite number; got {value}")
        if least is not None and value is not None and value < least:
            raise ValueError(f"{name} must be at least {least:g}; got {value}")


def numbers(text: str, name: str) -> tuple[float, ...]:
    """Numbers separated by commas. Raises `ValueError` naming the option."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(f"{name} must be numbers separated by commas; got '{text}'") from error


def is_argument(item: "Field[Any]") -> bool:
    """True for fields that are positional on the command line: those without a default."""
    return item.default is MISSING and item.default_factory is MISSING


def plain(config: Any) -> dict[str, Any]:
    """`config` as JSON-ready values: paths as text, tuples as lists."""
    return {key: _plain(value) for key, value in asdict(config).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
