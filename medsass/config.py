"""What a user can set: one frozen dataclass per command.

A field's help text and choices stand beside it; `cli.py` makes the command-line options from them and the README
shows the same names. Values are checked when the object is made, so that a run never starts with a wrong one.
"""

import math
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

DEVICES = ("auto", "cpu", "cuda")
LABELS = ("otsu", "ght", "adaptive-mean", "adaptive-gaussian")
LOSSES = ("focal-tversky", "tversky", "focal", "cross-entropy")
METHODS = ("medsass", "supervised")
MODELS = ("unet-resnet50", "unet-resnet18")
POLARITIES = ("bright", "dark", "auto")


def option(default: Any, text: str, *, choices: tuple[str, ...] = (), least: float | None = None) -> Any:
    """A dataclass field with its help text and the rule its value must keep: one of `choices`, or at least `least`."""
    return field(default=default, metadata={"help": text, "choices": choices, "least": least})


def check(config: Any) -> None:
    """Raise `ValueError` naming the option, its rule and the value seen, if a field of `config` breaks its rule."""
    for item in fields(config):
        value, name = getattr(config, item.name), "--" + item.name.replace("_", "-")
        choices, least = item.metadata.get("choices"), item.metadata.get("least")
        if choices and value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name} must be a finite number; got {value}")
        if least is not None and value < least:
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


@dataclass(frozen=True)
class ShardConfig:
    """`medsass shard SOURCE OUT`."""

    source: Path
    out: Path
    recipe: str = option("folder", "dataset recipe: a bundled name or a path to a .toml file")
    images: str = option("", "glob of the images below SOURCE (recipe 'folder')")
    masks: str = option("", "glob of the masks below SOURCE, paired by stem, or a pattern with {stem}, {name}, {dir}")
    size: int = option(0, "store images and masks resized to N x N pixels; 0 keeps their own size", least=0)
    max_shard_bytes: int = option(256 << 20, "start a new tar file when this size would be passed", least=20480)
    workers: int = option(0, "threads that read and check images; 0 takes all cores", least=0)
    strict: bool = option(False, "stop at the first bad sample instead of leaving it out")
    overwrite: bool = option(False, "replace the shards that OUT holds")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class InfoConfig:
    """`medsass info SHARDS`."""

    shards: Path
    preview: Path | None = option(None, "draw a contact sheet of images with their masks into this PNG file")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class TrainConfig:
    """`medsass train SHARDS RUN`. Defaults are the paper's where it states one (section 3, appendix A.1)."""

    shards: Path
    run: Path
    method: str = option("medsass", "how to train: from pseudo-labels, or from the shards' masks", choices=METHODS)
    model: str = option("unet-resnet50", "network, trained from scratch", choices=MODELS)
    labels: str = option("otsu", "threshold that makes the pseudo-labels", choices=LABELS)
    polarity: str = option("recipe", "which side of the threshold is foreground", choices=("recipe", *POLARITIES))
    loss: str = option("focal-tversky", "loss between prediction and target", choices=LOSSES)
    size: int = option(224, "images are resized to N x N pixels; a multiple of 8", least=8)
    epochs: int = option(50, "passes over the training split", least=1)
    batch_size: int = option(16, "images a step", least=1)
    patience: int = option(5, "stop after this many epochs without a lower validation loss; 0 never stops", least=0)
    lr: float = option(1e-3, "peak learning rate of AdamW", least=0)
    weight_decay: float = option(1e-2, "weight decay of AdamW", least=0)
    warmup: float = option(0.05, "share of all steps in which the learning rate rises from 0", least=0)
    crop: float = option(
        0.6, "random resized crop: smallest share of each side that is kept; 1 switches it off", least=0
    )
    flip: bool = option(True, "random horizontal and vertical flips")
    jitter: float = option(0.2, "brightness, contrast and saturation vary by up to this share", least=0)
    hue: float = option(6.0, "hue varies by up to this many degrees", least=0)
    ght: str = option("0,0,0,0.5", "ght labels: nu,tau,kappa,omega; the default is minimum error thresholding")
    block_size: int = option(51, "adaptive labels: side of the neighbourhood in pixels, odd", least=3)
    offset: float = option(0.0, "adaptive labels: the constant C subtracted from the neighbourhood's mean")
    seed: int = option(0, "seed of weights, shuffling and augmentation", least=0)
    device: str = option("auto", "where to run; auto takes the GPU where there is one", choices=DEVICES)
    threads: int = option(0, "DALI's CPU threads; 0 takes all cores", least=0)
    resume: bool = option(False, "go on from RUN's last finished epoch")
    overwrite: bool = option(False, "replace what RUN holds")

    def __post_init__(self) -> None:
        check(self)
        if self.size % 8:
            raise ValueError(f"--size must be a multiple of 8 (the network halves it three times); got {self.size}")
        if self.block_size % 2 == 0:
            raise ValueError(f"--block-size must be odd; got {self.block_size}")
        if not self.crop <= 1 or self.crop == 0:
            raise ValueError(f"--crop must be above 0 and at most 1; got {self.crop}")
        if not self.warmup <= 1:
            raise ValueError(f"--warmup must be at most 1; got {self.warmup}")
        if self.resume and self.overwrite:
            raise ValueError("--resume and --overwrite exclude each other: one keeps the run, the other deletes it")


@dataclass(frozen=True)
class EvaluateConfig:
    """`medsass evaluate RUN SHARDS`."""

    run: Path
    shards: Path
    split: str = option("test", "split to score")
    batch_size: int = option(16, "images a step; does not change the scores", least=1)
    device: str = option("auto", "where to run; auto takes the GPU where there is one", choices=DEVICES)
    threads: int = option(0, "DALI's CPU threads; 0 takes all cores", least=0)
    json: Path | None = option(None, "write the scores into this file")
    panel: Path | None = option(None, "draw best, median and worst images into this PNG file")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class LabelConfig:
    """`medsass label SOURCE OUT`."""

    source: Path
    out: Path
    method: str = option("otsu", "threshold that makes the labels", choices=LABELS)
    polarity: str = option(
        "recipe", "foreground side; recipe: the shards' own, auto for images", choices=("recipe", *POLARITIES)
    )
    ght: str = option("0,0,0,0.5", "ght labels: nu,tau,kappa,omega; the default is minimum error thresholding")
    block_size: int = option(51, "adaptive labels: side of the neighbourhood in pixels, odd", least=3)
    offset: float = option(0.0, "adaptive labels: the constant C subtracted from the neighbourhood's mean")
    device: str = option("auto", "where to run; auto takes the GPU where there is one", choices=DEVICES)
    overwrite: bool = option(False, "replace masks that are already in OUT")

    def __post_init__(self) -> None:
        check(self)
        if self.block_size % 2 == 0:
            raise ValueError(f"--block-size must be odd; got {self.block_size}")


@dataclass(frozen=True)
class PredictConfig:
    """`medsass predict RUN IMAGE|FOLDER...`."""

    run: Path
    images: tuple[Path, ...]
    out: Path = option(Path("predictions"), "folder that the masks are written to")
    overlay: bool = option(False, "also write the image with the mask's outline")
    probability: bool = option(False, "also write the foreground probability, 0..1 as 16-bit PNG 0..65535")
    device: str = option("auto", "where to run; auto takes the GPU where there is one", choices=DEVICES)
    overwrite: bool = option(False, "replace masks that are already in the folder")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class DemoConfig:
    """`medsass demo OUT`."""

    out: Path
    seed: int = option(0, "seed of the generated images and of the training", least=0)
    device: str = option("auto", "where to run; auto takes the GPU where there is one", choices=DEVICES)
    overwrite: bool = option(False, "replace what OUT holds")

    def __post_init__(self) -> None:
        check(self)
