"""What a user can set: one frozen dataclass per command.

A field's help text and choices stand beside it; `cli.py` makes the command-line options from them and the README
shows the same names. Values are checked when the object is made, so that a run never starts with a wrong one.
"""

import math
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
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


@dataclass(frozen=True)
class ShardConfig:
    """`medsass shard SOURCE OUT`. SOURCE and OUT are folders, or s3://, gs:// or https:// addresses (OUT: s3, gs)."""

    source: Path
    out: Path
    recipe: str = option("folder", "dataset recipe: a bundled name or a path to a .toml file")
    variant: str = option("", "one of the recipe's variants, such as nuclear or whole-cell; its first by default")
    group_by: str = option("", "what stays whole within one split, by the recipe's names; its first by default")
    images: str = option("", "glob of the images below SOURCE (recipe 'folder')")
    masks: str = option("", "glob of the masks below SOURCE, paired by stem, or a pattern with {stem}, {name}, {dir}")
    foreground: str = option(
        "", "levels of a mask that are foreground: binary (two levels), nonzero, half, or numbers such as 1,3"
    )
    size: int = option(0, "store images and masks resized to N x N pixels; 0 keeps their own size", least=0)
    tile: int | None = option(
        None,
        "cut images and slides into tiles of N x N pixels; 0 stores them whole; by default as the recipe says",
        least=0,
    )
    stride: int = option(0, "distance between tiles; 0 takes the tile's size, so that they do not overlap", least=0)
    min_foreground: float = option(
        0.0, "leave out tiles with a smaller share of foreground, by Otsu's threshold on the reduced image", least=0
    )
    level: int = option(0, "pyramid level of slides that is read; 0 is full resolution", least=0)
    encode: str = option(
        "keep", "how images are stored. GPUs decode jpeg and jpeg2000, DALI decodes png on the CPU; keep: the file's own "
        "bytes where DALI reads them as they are, else png", choices=ENCODINGS,
    )  # fmt: skip
    depth: int = option(8, "bits of a stored channel: 8, or 16 for single-channel images", choices=(8, 16))
    range: str = option(
        "recipe", "what becomes 0 and the largest value where pixels of another depth are converted: each image's own "
        "extremes, its 0.5 and 99.5 percentiles, or its type's whole range", choices=("recipe", *RANGES),
    )  # fmt: skip
    near_duplicates: bool = option(False, "also keep look-alikes (perceptual hash) out of later splits")
    max_shard_bytes: int = option(256 << 20, "start a new tar file when this size would be passed", least=20480)
    workers: int = option(0, "threads that read and encode images; 0 takes all cores", least=0)
    strict: bool = option(False, "stop at the first bad sample instead of leaving it out")
    dry_run: bool = option(False, "only say what would be written, from the files' names")
    resume: bool = option(False, "go on where an interrupted run with the same options stopped")
    overwrite: bool = option(False, "replace the shards that OUT holds, or an interrupted run of them")

    def __post_init__(self) -> None:
        check(self)
        for name in ("stride", "min_foreground"):
            if getattr(self, name) and self.tile == 0:
                raise ValueError(f"--{name.replace('_', '-')} goes with --tile")
        if self.tile and self.stride > self.tile:
            raise ValueError(f"--stride must be at most --tile ({self.tile}), or pixels are lost; got {self.stride}")
        if self.min_foreground > 1:
            raise ValueError(f"--min-foreground is a share and at most 1; got {self.min_foreground}")
        if self.resume and self.overwrite:
            raise ValueError(
                "--resume and --overwrite exclude each other: one keeps what is there, the other deletes it"
            )
        if self.depth == 16 and self.encode == "jpeg":
            raise ValueError("--encode jpeg holds 8 bits; take png or jpeg2000 with --depth 16")


@dataclass(frozen=True)
class VerifyConfig:
    """`medsass verify SHARDS`."""

    shards: Path

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
    method: str = option(
        "medsass", "how to train: medsass from pseudo-labels, supervised from the shards' masks, the others an encoder "
        "alone", choices=METHODS,
    )  # fmt: skip
    model: str = option("unet-resnet50", "network, trained from scratch", choices=MODELS)
    labels: str = option("otsu", "threshold that makes the pseudo-labels", choices=LABELS)
    polarity: str = option("recipe", "which side of the threshold is foreground", choices=("recipe", *POLARITIES))
    parts: str = option(
        "weights,consistency,teacher",
        "medsass-plus: which of its parts are on, separated by commas; none switches all off",
    )
    loss: str = option("focal-tversky", "loss between prediction and target", choices=LOSSES)
    scope: str = option(
        "auto", "what is kept: the network (E+D), or its encoder (E); auto: the network where the method trains one",
        choices=("auto", "network", "encoder"),
    )  # fmt: skip
    init: Path | None = option(None, "run directory whose weights training starts from; by default from scratch")
    label_fraction: float = option(1.0, "supervised: share of the training split's labels that is used", least=0)
    size: int = option(224, "images are resized to N x N pixels; a multiple of 8, of 16 for a ViT", least=8)
    epochs: int = option(50, "passes over the training split", least=1)
    batch_size: int = option(16, "images a step, over all processes", least=1)
    accumulate: int = option(
        1, "parts that each step's images are computed in, one after the other, to save memory", least=1
    )
    auto_batch: bool = option(False, "raise --accumulate until a step fits the GPU's memory")
    patience: int | None = option(
        None, "stop after this many epochs without a lower validation loss; 0 never stops; by default the method's own: "
        "5, or 0 where that loss ranks nothing", least=0,
    )  # fmt: skip
    lr: float | None = option(None, "peak learning rate; by default the method's own, 0.001 of medsass", least=0)
    weight_decay: float | None = option(None, "weight decay; by default the method's own, 0.01 of medsass", least=0)
    warmup: float | None = option(
        None, "share of all steps in which the learning rate rises from 0; by default the method's own", least=0
    )
    crop: float = option(
        0.6, "random resized crop: smallest share of each side that is kept; 1 switches it off", least=0
    )
    flip: bool = option(True, "random horizontal and vertical flips")
    jitter: float = option(0.2, "brightness, contrast and saturation vary by up to this share", least=0)
    hue: float = option(6.0, "hue varies by up to this many degrees", least=0)
    ght: str = option("0,0,0,0.5", "ght labels: nu,tau,kappa,omega; the default is minimum error thresholding")
    block_size: int = option(51, "adaptive labels: side of the neighbourhood in pixels, odd", least=3)
    offset: float = option(0.0, "adaptive labels: the constant C subtracted from the neighbourhood's mean")
    refine: str = option(
        "", "steps that refine the labels, such as vignette,blur:3,border,holes; of darkest, brightest, blur:SIGMA, "
        "vignette, border, holes, open:R, close:R, min:SHARE, largest:K; or recipe, for those of the shards' recipe",
    )  # fmt: skip
    chosen_on: str = option("", "what the labels were chosen on, as tune writes it; kept with the run")
    seed: int = option(0, "seed of weights, shuffling and augmentation", least=0)
    device: str = option("auto", "where to run; auto takes the GPU where there is one", choices=DEVICES)
    threads: int = option(0, "DALI's CPU threads; 0 takes all cores", least=0)
    precision: str = option(
        "auto", "arithmetic of the network; auto: bf16 on a GPU that has it, fp16 on others, fp32 on a CPU",
        choices=PRECISIONS,
    )  # fmt: skip
    compile: bool = option(True, "compile networks that segment, on a GPU (torch.compile)")
    graphs: bool = option(True, "replay the steps of methods that segment as a CUDA graph, on one GPU")
    cache: str = option("none", "keep decoded images in the memory of the host or of the GPU", choices=CACHES)
    sync_batchnorm: bool = option(False, "batch statistics over all GPUs in place of each one's own")
    save_every: float = option(10.0, "minutes between checkpoints within an epoch; each epoch ends with one", least=0)
    profile: bool = option(False, "trace some steps, and say where their time goes, in RUN/profile")
    wandb: str = option("", "also log to this project of Weights & Biases")
    resume: bool = option(False, "go on from RUN's last checkpoint")
    overwrite: bool = option(False, "replace what RUN holds")

    def __post_init__(self) -> None:
        check(self)
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"--batch-size must be a multiple of --accumulate ({self.accumulate}); got {self.batch_size}"
            )
        if self.size % 8:
            raise ValueError(f"--size must be a multiple of 8, or of 16 for a ViT; got {self.size}")
        if self.block_size % 2 == 0:
            raise ValueError(f"--block-size must be odd; got {self.block_size}")
        if not self.crop <= 1 or self.crop == 0:
            raise ValueError(f"--crop must be above 0 and at most 1; got {self.crop}")
        if not 0 < self.label_fraction <= 1:
            raise ValueError(f"--label-fraction must be above 0 and at most 1; got {self.label_fraction}")
        if self.warmup is not None and not self.warmup <= 1:
            raise ValueError(f"--warmup must be at most 1; got {self.warmup}")
        if self.resume and self.overwrite:
            raise ValueError("--resume and --overwrite exclude each other: one keeps the run, the other deletes it")


@dataclass(frozen=True)
class TuneConfig:
    """`medsass tune SHARDS`."""

    shards: Path
    out: Path = option(Path("labels.toml"), "write the choice into this TOML file, for train --config")
    sheet: Path | None = option(None, "draw images with the masks of the best few into this PNG file")
    images: int = option(96, "images of the training split that are looked at", least=8)
    size: int = option(224, "they are resized to N x N pixels, best the size that will be trained at", least=32)
    polarity: str = option(
        "recipe",
        "which side of the threshold is foreground; auto takes the one that holds less of the images' frames",
        choices=("recipe", *POLARITIES),
    )
    learn: int = option(
        0, "order so many of the best also by how well a small network that learns them on one half of the images gives them "
        "on the other; takes minutes on a CPU", least=0,
    )  # fmt: skip
    score: bool = option(False, "also say how well the ranking follows the shards' masks, which have no part in it")
    seed: int = option(0, "seed of the choice of images, of their other light and of the small networks", least=0)
    device: str = option("auto", "where to run; auto takes the GPU where there is one", choices=DEVICES)
    threads: int = option(0, "DALI's CPU threads; 0 takes all cores", least=0)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class EvaluateConfig:
    """`medsass evaluate RUN SHARDS`."""

    run: Path
    shards: Path
    split: str = option("test", "split to score")
    protocol: str = option(
        "auto", "whose masks: network, the run's own; paper, an untrained decoder's on its encoder; linear, a 1x1 head's, "
        "trained on SHARDS' training labels upon the frozen encoder; auto: network, or linear of an encoder alone",
        choices=PROTOCOLS,
    )  # fmt: skip
    flips: bool = option(False, "average the network's probabilities over the four flips of each image")
    batch_size: int = option(16, "images a step; does not change the scores of network and paper", least=1)
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
    refine: str = option(
        "", "steps that refine the labels, such as vignette,blur:3,border,holes; of darkest, brightest, blur:SIGMA, "
        "vignette, border, holes, open:R, close:R, min:SHARE, largest:K; or recipe, for those of the shards' recipe",
    )  # fmt: skip
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
    tile: int = option(
        0, "predict in overlapping tiles of N x N pixels; 0: only slides and what is too large for one piece, in tiles "
        "of the run's shards, or of the size it was trained at", least=0,
    )  # fmt: skip
    overlap: float = option(0.25, "share of a tile's side that it has in common with the next one, below 1", least=0)
    level: int | None = option(
        None, "pyramid level of slides that is read; 0 is full resolution; by default that of the run's shards", least=0
    )
    overlay: bool = option(False, "also write the image with the mask's outline; of slides an overview")
    flips: bool = option(False, "average the network's probabilities over the four flips of each image")
    probability: bool = option(False, "also write the foreground probability, 0..1 as 0..65535, PNG (slides: TIFF)")
    device: str = option("auto", "where to run; auto takes the GPU where there is one", choices=DEVICES)
    overwrite: bool = option(False, "replace masks that are already in the folder")

    def __post_init__(self) -> None:
        check(self)
        if self.overlap >= 1:
            raise ValueError(f"--overlap must be below 1; got {self.overlap}")


@dataclass(frozen=True)
class ProbeConfig:
    """`medsass probe RUN SHARDS`. Defaults are the paper's (appendix D)."""

    run: Path
    shards: Path
    split: str = option("test", "split to score")
    epochs: int = option(50, "passes over the training split", least=1)
    patience: int = option(5, "stop after this many epochs without a lower validation loss; 0 never stops", least=0)
    batch_size: int = option(16, "images a step", least=1)
    lr: float = option(1e-3, "peak learning rate of AdamW", least=0)
    seed: int = option(0, "seed of the head's weights, shuffling and augmentation", least=0)
    device: str = option("auto", "where to run; auto takes the GPU where there is one", choices=DEVICES)
    threads: int = option(0, "DALI's CPU threads; 0 takes all cores", least=0)
    json: Path | None = option(None, "write the scores into this file")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class ExportConfig:
    """`medsass export RUN`."""

    run: Path
    format: str = option(
        "safetensors", "safetensors: all that the run keeps, for smp; timm: its encoder, for timm.create_model; onnx: the "
        "network, or the feature map of an encoder alone", choices=("safetensors", "timm", "onnx"),
    )  # fmt: skip
    out: Path | None = option(None, "folder of the files; by default RUN/export")
    overwrite: bool = option(False, "replace what the folder holds")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class ExperimentConfig:
    """`medsass experiment GRID OUT`."""

    grid: Path
    out: Path
    data: Path | None = option(None, "folder that the grid's sources and shards are below; by default the grid's own")
    jobs: int = option(0, "cells that run side by side; 0: one on a CPU, on GPUs as many as fit", least=0)
    device: str = option("auto", "where to run; auto takes the GPU where there is one", choices=DEVICES)
    threads: int = option(0, "DALI's CPU threads; 0 takes all cores", least=0)
    dry_run: bool = option(False, "only list the cells, and which of them are finished")

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
