"""A training."""

from dataclasses import dataclass
from pathlib import Path

from medsass.config.options import (
    CACHES,
    DEVICES,
    LABELS,
    LOSSES,
    METHODS,
    MODELS,
    POLARITIES,
    PRECISIONS,
    block_size_option,
    check,
    ght_option,
    offset_option,
    option,
    refine_option,
)


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
    ght: str = ght_option()
    block_size: int = block_size_option()
    offset: float = offset_option()
    refine: str = refine_option()
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
