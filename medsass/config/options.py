"""Building blocks of the configurations: the choices, the limits, and the class decorator that checks both."""

import math
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, asdict, field
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast, dataclass_transform, get_args, get_origin, get_type_hints

from annotated_types import Ge, Le
from pydantic import AfterValidator, ConfigDict, SkipValidation, ValidationError, WrapValidator
from pydantic.dataclasses import dataclass

from medsass.config import schema

T = TypeVar("T")

# A field of type `Annotated[str, Device]` takes any text for the type checker, and these choices when it is made.
Device = Literal["auto", "cpu", "cuda"]
Encoding = Literal["keep", "png", "jpeg", "jpeg2000"]
Threshold = Literal["otsu", "ght", "adaptive-mean", "adaptive-gaussian"]
Kept = Literal["network", "encoder"]  # the part of the network that a run stores
Loss = Literal["focal-tversky", "tversky", "focal", "cross-entropy"]
Cache = Literal["none", "host", "device"]
Method = Literal["byol", "dino", "mae", "medsass", "medsass-plus", "simmim", "simsiam", "supervised"]  # of methods/
Model = Literal["unet-resnet50", "unet-resnet18", "unet-vit-small", "unet-vit-tiny"]
Polarity = Literal["bright", "dark", "auto"]
Arithmetic = Literal["bf16", "fp16", "fp32"]  # of the network
Precision = Literal["auto", Arithmetic]
Protocol = Literal["auto", "network", "paper", "linear"]
Range = Literal["minmax", "percentile", "type"]

LABELS: tuple[str, ...] = get_args(Threshold)
METHODS: tuple[str, ...] = get_args(Method)
MODELS: tuple[str, ...] = get_args(Model)
POLARITIES: tuple[str, ...] = get_args(Polarity)
PROTOCOLS: tuple[str, ...] = get_args(Protocol)
FRAMES = ("auto", "first", "middle", "all")
RANGES: tuple[str, ...] = get_args(Range)
FOLLOW_HELP = "read what symbolic links lead to that leave the folder; by default such links are passed over"
SPLIT = "[a-z][a-z0-9_]*"  # names of splits
WEIGHTS = "model.safetensors"  # in a run directory

DEVICE_HELP = "where to run; auto takes the GPU where there is one"
THREADS_HELP = "DALI's CPU threads; 0 takes all cores"


def unconverted(value: Any, check: Callable[[Any], Any]) -> Any:
    """Check a value and return it unconverted; pydantic alone would make 1.0 of 1."""
    check(value)
    return value


Count = Annotated[int, Ge(0)]
Positive = Annotated[int, Ge(1)]
Seed = Annotated[int, Ge(0), Le(2**63 - 1)]  # what torch takes
Threads = Annotated[int, Ge(0), Le(1024)]
Number = Annotated[float, WrapValidator(unconverted)]
Amount = Annotated[float, Ge(0), WrapValidator(unconverted)]
Place = Annotated[Path, SkipValidation]  # an address is no `Path`


def option(default: Any, text: str, *, several: bool = False) -> Any:
    """Return a dataclass field with its default and its help text; `several` globs may be given one by one."""
    return field(default=default, metadata={"help": text, "several": several})


@dataclass_transform(frozen_default=True)
def options_class(kind: type[T]) -> type[T]:
    """Make a class a frozen dataclass whose constructor checks its values against their types and never converts them.

    Where one breaks its rule, the constructor raises a `ValueError` of one line: "--batch-size must be at least 1; got 0".
    """
    for name, hint in get_type_hints(kind, include_extras=True).items():
        if name in kind.__annotations__:  # the others are those of a base class
            choices = [item for item in get_args(hint) if get_origin(item) is Literal]
            kind.__annotations__[name] = choices[0] if choices else hint
    made = dataclass(frozen=True, config=ConfigDict(strict=True, allow_inf_nan=False))(kind)
    construct: Callable[..., None] = made.__init__

    @wraps(construct)
    def checked(self: T, *args: Any, **values: Any) -> None:
        try:
            construct(self, *args, **values)
        except ValidationError as error:
            raise ValueError(schema.explain(error, made, lambda name, _: "--" + name.replace("_", "-"))) from error

    made.__init__ = checked  # type: ignore[method-assign, assignment]
    return cast(type[T], made)


def _listed(text: str) -> str:
    integers(text, "--channels")
    return text


def _frame(text: str) -> str:
    if text not in FRAMES and not text.isdecimal():
        raise ValueError(f"--frames must be {', '.join(FRAMES)} or a number from 0; got '{text}'")
    return text


def _axis(text: str) -> str:
    if text not in ("z", "y", "x"):
        raise ValueError(f"--axis must be z, y or x; got '{text}'")
    return text


def _window(text: str) -> str:
    ends = numbers(text, "--window")
    if len(ends) != 2 or not all(map(math.isfinite, ends)) or not ends[0] < ends[1]:
        raise ValueError(f"--window must be two numbers LOW,HIGH with LOW below HIGH; got '{text}'")
    return text


@options_class
class Reading:
    """Which part of a file is the image, and which values become black and white; None where nothing is said."""

    _: KW_ONLY
    array: str | None = option(
        None, "of NPZ and HDF5 files with several arrays: the name of the one that holds the image"
    )
    channels: Annotated[str, AfterValidator(_listed)] | None = option(
        None,
        "of files with several channels or time points: I is read as gray, I,J,K as red, green and blue; -1 is black",
    )
    frames: Annotated[str, AfterValidator(_frame)] | None = option(
        None,
        "of files with several images: auto (every slice of a volume or stack, the first image of an animation), first, "
        "middle, all, or a number from 0",
    )
    axis: Annotated[str, AfterValidator(_axis)] | None = option(
        None, "along which volumes are cut into slices: z (axial), y (coronal) or x (sagittal)"
    )
    every: Positive | None = option(None, "of the slices of a volume or stack, take each N-th")
    window: Annotated[str, AfterValidator(_window)] | None = option(
        None, "values LOW,HIGH that become black and white, such as -160,240 (Hounsfield units) for CT"
    )

    def selected(self) -> dict[str, Any]:
        """Return those given of `array`, `channels`, `frames`, `axis` and `every`, as the fields of recipes and `Selection`."""
        channels = integers(self.channels, "--channels") if self.channels else None
        frames = int(self.frames) if self.frames and self.frames.isdecimal() else self.frames
        values = {"array": self.array, "channels": channels, "frames": frames, "axis": self.axis, "every": self.every}
        return {name: value for name, value in values.items() if value is not None}

    def bounds(self) -> tuple[float, float] | None:
        """Return the window's ends, if one is given."""
        low, high = numbers(self.window, "--window") if self.window else (None, None)
        return None if low is None or high is None else (low, high)


def check_resume(resume: bool, overwrite: bool, what: str) -> None:
    """Raise `ValueError` where both --resume and --overwrite are given for `what`, such as "the run"."""
    if resume and overwrite:
        raise ValueError(f"--resume and --overwrite exclude each other: one keeps {what}, the other deletes it")


def numbers(text: str, name: str) -> tuple[float, ...]:
    """Read numbers separated by commas. Raises `ValueError` naming the option."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(f"{name} must be numbers separated by commas; got '{text}'") from error


def integers(text: str, name: str) -> tuple[int, ...]:
    """Read whole numbers separated by commas. Raises `ValueError` naming the option."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(f"{name} must be whole numbers separated by commas; got '{text}'") from error


def check_ght(values: Sequence[float]) -> None:
    """Raise `ValueError` unless these are GHT's nu, tau, kappa >= 0 and omega in [0, 1], all finite."""
    if len(values) != 4 or not all(map(math.isfinite, values)) or min(values) < 0 or values[3] > 1:
        raise ValueError(f"ght must be four numbers nu, tau, kappa >= 0 and omega in [0, 1]; got {tuple(values)}")


def plain(config: Any) -> dict[str, Any]:
    """Return the fields of a dataclass as JSON-ready values: paths as text, tuples as lists."""

    def ready(value: Any) -> Any:
        if isinstance(value, Path):
            return str(value)
        return [ready(item) for item in value] if isinstance(value, tuple) else value

    return {key: ready(value) for key, value in asdict(config).items()}
