"""Options of train, and of label and tune, which make its labels alone."""

from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Le
from pydantic import AfterValidator

from medsass.config import refine
from medsass.config.options import (
    DEVICE_HELP,
    FOLLOW_HELP,
    THREADS_HELP,
    Amount,
    Cache,
    Count,
    Device,
    Loss,
    Method,
    Model,
    Number,
    Place,
    Polarity,
    Positive,
    Precision,
    Reading,
    Seed,
    Threads,
    Threshold,
    check_ght,
    check_resume,
    numbers,
    option,
    options_class,
)

_GHT_HELP = "ght labels: nu,tau,kappa,omega; the default is minimum error thresholding"
_BLOCK_SIZE_HELP = "adaptive labels: side of the neighbourhood in pixels, odd"
_OFFSET_HELP = "adaptive labels: the constant C subtracted from the neighbourhood's mean"
_REFINE_HELP = (
    "steps that refine the labels, such as vignette,blur:3,border,holes; of darkest, brightest, red, green, blue, "
    "blur:SIGMA, vignette, border, holes, open:R, close:R, min:SHARE, largest:K; or recipe, for those of the shards' recipe"
)


def _odd(block_size: int) -> int:
    if block_size % 2 == 0:
        raise ValueError(f"--block-size must be odd; got {block_size}")
    return block_size


def _ght(text: str) -> str:
    check_ght(numbers(text, "--ght"))
    return text


def _refine(text: str) -> str:
    if text != "recipe":
        refine.parse(text)
    return text


_BlockSize = Annotated[int, Ge(3), AfterValidator(_odd)]
_Ght = Annotated[str, AfterValidator(_ght)]
_Refine = Annotated[str, AfterValidator(_refine)]


@options_class
class LabelConfig(Reading):
    """`medsass label SOURCE OUT`."""

    source: Place
    out: Place
    method: Annotated[str, Threshold] = option("otsu", "threshold that makes the labels")
    polarity: Annotated[str, Literal["recipe", Polarity]] = option(
        "recipe", "foreground side; recipe: the shards' own, auto for images"
    )
    ght: _Ght = option("0,0,0,0.5", _GHT_HELP)
    block_size: _BlockSize = option(51, _BLOCK_SIZE_HELP)
    offset: Number = option(0.0, _OFFSET_HELP)
    refine: _Refine = option("", _REFINE_HELP)
    device: Annotated[str, Device] = option("auto", DEVICE_HELP)
    follow_links: bool = option(False, FOLLOW_HELP)
    overwrite: bool = option(False, "replace masks that are already in OUT")


@options_class
class TuneConfig:
    """`medsass tune SHARDS`."""

    shards: Place
    out: Place = option(Path("labels.toml"), "write the choice into this TOML file, for train --config")
    sheet: Place | None = option(None, "draw images with the masks of the best few into this PNG file")
    images: Annotated[int, Ge(8)] = option(96, "number of training images to look at")
    size: Annotated[int, Ge(32)] = option(224, "resize them to N x N pixels, best the size of the training")
    polarity: Annotated[str, Literal["recipe", Polarity]] = option(
        "recipe",
        "which side of the threshold is foreground; auto: dark for colour images on a light ground, else the side with "
        "less of the images' borders",
    )
    learn: Count = option(
        0,
        "also rank this many of the best by a small network: trained on one half of the images, how well does it "
        "reproduce the labels of the other; takes minutes on a CPU",
    )
    score: bool = option(False, "also report how well the ranking agrees with the shards' masks, which it does not use")
    seed: Seed = option(0, "seed of the choice of images, of their changed light and of the small networks")
    device: Annotated[str, Device] = option("auto", DEVICE_HELP)
    threads: Threads = option(0, THREADS_HELP)


@options_class
class TrainConfig:
    """`medsass train SHARDS RUN`. Defaults are the paper's where it states one (section 3, appendix A.1)."""

    shards: Place
    run: Place
    method: Annotated[str, Method] = option(
        "medsass",
        "how to train: medsass from pseudo-labels, supervised from the shards' masks, the others an encoder alone",
    )
    model: Annotated[str, Model] = option("unet-resnet50", "network, trained from scratch")
    labels: Annotated[str, Threshold] = option("otsu", "threshold that makes the pseudo-labels")
    polarity: Annotated[str, Literal["recipe", Polarity]] = option(
        "recipe", "which side of the threshold is foreground"
    )
    parts: str = option(
        "weights,consistency,teacher",
        "medsass-plus: which of its parts are on, separated by commas; none switches all off",
    )
    loss: Annotated[str, Loss] = option("focal-tversky", "loss between prediction and target")
    scope: Annotated[str, Literal["auto", "network", "encoder"]] = option(
        "auto", "what is kept: the network (E+D), or its encoder (E); auto: the network where the method trains one"
    )
    init: Place | None = option(None, "run directory whose weights training starts from; by default from scratch")
    label_fraction: Amount = option(1.0, "supervised: share of the training split's labels that is used")
    size: Annotated[int, Ge(8)] = option(224, "images are resized to N x N pixels; a multiple of 8, of 16 for a ViT")
    epochs: Positive = option(50, "passes over the training split")
    batch_size: Positive = option(16, "images a step, over all processes")
    accumulate: Positive = option(
        1, "micro-batches that each step's images are computed in, one after the other, to save memory"
    )
    auto_batch: bool = option(False, "raise --accumulate until a step fits the GPU's memory")
    patience: Count | None = option(
        None,
        "stop after this many epochs without a lower validation loss; 0 never stops; by default the method's own: "
        "5, or 0 where that loss ranks nothing",
    )
    lr: Amount | None = option(None, "peak learning rate; by default the method's own, 0.001 of medsass")
    weight_decay: Amount | None = option(None, "weight decay; by default the method's own, 0.01 of medsass")
    warmup: Annotated[Amount, Le(1)] | None = option(
        None, "share of all steps in which the learning rate rises from 0; by default the method's own"
    )
    crop: Amount = option(0.6, "random resized crop: smallest share of each side that is kept; 1 switches it off")
    flip: bool = option(True, "random horizontal and vertical flips")
    jitter: Amount = option(0.2, "brightness, contrast and saturation vary by up to this share")
    hue: Amount = option(6.0, "hue varies by up to this many degrees")
    ght: _Ght = option("0,0,0,0.5", _GHT_HELP)
    block_size: _BlockSize = option(51, _BLOCK_SIZE_HELP)
    offset: Number = option(0.0, _OFFSET_HELP)
    refine: _Refine = option("", _REFINE_HELP)
    chosen_on: str = option("", "what the labels were chosen on, as tune writes it; kept with the run")
    seed: Seed = option(0, "seed of weights, shuffling and augmentation")
    device: Annotated[str, Device] = option("auto", DEVICE_HELP)
    threads: Threads = option(0, THREADS_HELP)
    precision: Annotated[str, Precision] = option(
        "auto", "arithmetic of the network; auto: bf16 on a GPU that has it, fp16 on others, fp32 on a CPU"
    )
    compile: bool = option(True, "compile networks that segment, on a GPU (torch.compile)")
    graphs: bool = option(True, "replay the steps of methods that segment as a CUDA graph, on one GPU")
    cache: Annotated[str, Cache] = option("none", "keep decoded images in the memory of the host or of the GPU")
    sync_batchnorm: bool = option(False, "batch statistics over all GPUs in place of each one's own")
    save_every: Amount = option(10.0, "minutes between checkpoints within an epoch; each epoch ends with one")
    profile: bool = option(False, "trace some steps, and write into RUN/profile where their time goes")
    wandb: str = option("", "also log to this project of Weights & Biases")
    resume: bool = option(False, "continue from RUN's last checkpoint")
    overwrite: bool = option(False, "replace what RUN holds")

    def __post_init__(self) -> None:
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"--batch-size must be a multiple of --accumulate ({self.accumulate}); got {self.batch_size}"
            )
        if self.size % 8:
            raise ValueError(f"--size must be a multiple of 8, or of 16 for a ViT; got {self.size}")
        if not self.crop <= 1 or self.crop == 0:
            raise ValueError(f"--crop must be above 0 and at most 1; got {self.crop}")
        if not 0 < self.label_fraction <= 1:
            raise ValueError(f"--label-fraction must be above 0 and at most 1; got {self.label_fraction}")
        check_resume(self.resume, self.overwrite, "the run")
        _check_method(self)


# Options that no method but one reads, and those without a meaning where only an encoder is trained. The polarity is not
# among these: it belongs to the labels that the encoder is compared with.
_OWN = {"parts": "medsass-plus"}
_SEGMENTATION = ("labels", "refine", "loss", "crop", "flip", "jitter", "hue", "label_fraction")
ENCODERS, _VIT = ("byol", "dino", "mae", "simmim", "simsiam"), ("mae", "simmim")
COMPONENTS = ("weights", "consistency", "teacher")  # of medsass-plus


def _check_method(config: TrainConfig) -> None:
    """Raise `ValueError` naming an option that the method or the model cannot serve."""
    method, vit = config.method, config.model.startswith("unet-vit")
    if vit and config.size % 16:  # halved four times
        raise ValueError(f"--size must be a multiple of 16 for {config.model}; got {config.size}")
    for name in _changed(config, tuple(_OWN)):
        if method != _OWN[name]:
            raise ValueError(f"--{name} is for --method {_OWN[name]}, not {method}; drop it")
    if method in ("medsass", "medsass-plus") and config.label_fraction < 1:
        raise ValueError("--label-fraction is for --method supervised; medsass reads no labels; drop it")
    components(config)
    if method not in ENCODERS:
        return
    for name in _changed(config, _SEGMENTATION):
        raise ValueError(
            f"--{name.replace('_', '-')} is for methods that segment; --method {method} trains an encoder as its own paper "
            "does; drop the option"
        )
    if method in _VIT and not vit:
        raise ValueError(
            f"--method {method} is for vision transformers, and {config.model} has none; "
            "take --model unet-vit-small or unet-vit-tiny"
        )
    if config.scope == "network":
        raise ValueError(f"--method {method} trains an encoder alone; drop --scope network")


def _changed(config: TrainConfig, names: tuple[str, ...]) -> list[str]:
    """Return those of these fields that differ from their default."""
    return [name for name in names if getattr(config, name) != TrainConfig.__dataclass_fields__[name].default]


def components(config: TrainConfig) -> tuple[str, ...]:
    """Return the components of medsass-plus that --parts names. Raises `ValueError` for an unknown one."""
    found = tuple(name.strip() for name in config.parts.split(",") if name.strip() not in ("", "none"))
    for name in found:
        if name not in COMPONENTS:
            raise ValueError(f"--parts: '{name}' is none of {', '.join(COMPONENTS)}")
    return found
