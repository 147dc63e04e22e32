"""The contract of a training method, and the lookup by name.

A method is a file `methods/<name>.py` that defines `def build(config: TrainConfig, polarity: str)`, by which text it is
found, and may define `check(config)`, which refuses options that it cannot do before anything is built.
"""

import importlib
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import nn

from medsass.config import METHODS, TrainConfig
from medsass.data.loading.augment import Augment, View
from medsass.data.loading.loader import Batch
from medsass.labels import refine
from medsass.models import checkpoint, network, vit_unet


@dataclass(frozen=True)
class Regime:
    """How a method is optimised where the user does not say otherwise; a baseline's is its paper's.

    optimizer: a name of `optim.OPTIMIZERS`. lr: peak learning rate, for batches of `lr_batch` images. From there it follows
        the batch's size: in proportion for SGD and LARS (Goyal et al. 2017), with its square root for AdamW, whose steps
        do not grow with the gradient (Malladi et al. 2022); with lr_batch 0 it does not depend on the batch.
    weight_decay: at the beginning; it goes to `final_weight_decay` by half a cosine, or stays where that is None.
    decay_norms: whether parameters of one dimension (biases, the scales of normalisations) are decayed too.
    betas: of AdamW. momentum: of SGD and LARS. warmup: share of all steps. clip: largest norm of each parameter's gradient;
        0 does not clip.
    patience: epochs without a lower validation loss before a run stops; 0: never.
    ranks: whether a lower validation loss means better weights; if not, the last epoch's weights are kept. It does not
        where two networks only have to agree with each other: their loss is lowest where they have collapsed.
    """

    optimizer: str = "adamw"
    lr: float = 1e-3
    lr_batch: int = 0
    weight_decay: float = 1e-2
    final_weight_decay: float | None = None
    decay_norms: bool = True
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = 0.9
    warmup: float = 0.05
    clip: float = 0.0
    patience: int = 5
    ranks: bool = True

    def of(self, config: TrainConfig) -> "Regime":
        """The numbers as a run uses them: the user's where given, the learning rate at the batch's size."""
        given = {
            name: value
            for name in ("weight_decay", "warmup", "patience")
            if (value := getattr(config, name)) is not None
        }
        scale = config.batch_size / self.lr_batch if self.lr_batch else 1.0
        lr = self.lr * (scale**0.5 if self.optimizer == "adamw" else scale)
        regime = replace(self, **given, lr=config.lr if config.lr is not None else lr, lr_batch=0)
        if config.weight_decay is not None:
            regime = replace(regime, final_weight_decay=None)
        if regime.optimizer == "lars" and regime.weight_decay == 0:
            raise ValueError(
                "--weight-decay 0 would switch LARS off, which scales decayed weights alone; take 1e-9 or so"
            )
        return regime


@dataclass(frozen=True)
class Outcome:
    """Of one forward pass. loss: scalar. logits (N, 1, H, W) and target (N, H, W) uint8 in {0, 1}: of methods that
    segment. features (N, C), detached: of methods that can collapse, the embeddings whose spread would show it.
    """

    loss: torch.Tensor
    logits: torch.Tensor | None = None
    target: torch.Tensor | None = None
    features: torch.Tensor | None = None


class Method(nn.Module):
    """What a training step computes from a batch, and all that it needs for that: networks, heads, momentum teachers.

    The state dict is what a checkpoint holds of it. The optimiser takes the parameters that require gradients.
    network: what `weights` are of; has an `encoder`. keeps: "network" or "encoder", what of it outlives the training.
    views: of each training image, how it is cropped and coloured; at least one. val_views: of each validation image; by
    default the first view without augmentation. needs_masks: whether batches must hold the ground truth. segments: whether
    it trains towards masks, of its own making where it needs none. least_batch: images below which a batch is passed over,
    as where one image alone has no statistics to be normalised by. timeless: whether a step is the same computation
    whatever the progress, so that it can be recorded once.
    """

    regime = Regime()
    needs_masks = False
    segments = False
    least_batch = 1
    timeless = False

    def __init__(self, network: nn.Module, views: tuple[View, ...], keeps: str) -> None:
        super().__init__()
        self.network, self.views, self.keeps = network, views, keeps
        self.val_views: tuple[View, ...] = (View(views[0].size),)

    def forward(self, batch: Batch, progress: float) -> Outcome:
        """Loss of a batch; `progress` is the share of the training that is done, in [0, 1]."""
        raise NotImplementedError

    def before_step(self, progress: float) -> None:
        """What happens to the gradients before each step of the optimiser."""

    def after_step(self, progress: float) -> None:
        """What follows each step of the optimiser, such as a teacher's moving average."""

    @property
    def kept(self) -> nn.Module:
        """What is stored for later use, and judged in validation: the network, or what follows it."""
        return self.network

    def networks(self) -> tuple[nn.Module, ...]:
        """All that runs in a step and is worth compiling."""
        return (self.network,)

    def weights(self) -> dict[str, torch.Tensor]:
        """What is stored for later use: the state dict of `kept`, or of it what is named `encoder.*`."""
        state = self.kept.state_dict()
        if self.keeps == "network":
            return state
        return {name: value for name, value in state.items() if name.startswith("encoder.")}


class Encoder(nn.Module):
    """A network of which nothing but the encoder is there."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder


def check(config: TrainConfig) -> None:
    """Raise `ValueError` naming the option that the method or the model cannot do. Nothing is built."""
    if config.refine != "recipe":
        refine.parse(config.refine)  # whatever the method, its labels are what `evaluate` compares with
    multiple = network.multiple(config.model)
    if config.size % multiple:
        raise ValueError(f"--size must be a multiple of {multiple} for {config.model}; got {config.size}")
    if config.method != "medsass-plus" and config.parts != TrainConfig.parts:
        raise ValueError(f"--parts is for --method medsass-plus, not {config.method}; drop it")
    getattr(_module(config), "check", lambda _: None)(config)


def make(config: TrainConfig, polarity: str) -> Method:
    """The method that `config.method` names, for a dataset whose foreground has that polarity.

    Raises `ValueError` or `OSError` where `config` asks for what the method cannot do, or starts from a run that does
    not fit, and `ImportError` where the method needs a package.
    """
    check(config)
    return cast(Method, _module(config).build(config, polarity))


def _module(config: TrainConfig) -> Any:
    assert config.method in METHODS
    return importlib.import_module(f"medsass.methods.{config.method.replace('-', '_')}")


def user_view(config: TrainConfig) -> View:
    """The view of methods that segment: the augmentation that the user's options describe."""
    return View(config.size, Augment(config.crop, config.flip, config.jitter, config.hue))


def network_of(config: TrainConfig) -> nn.Module:
    """The U-Net that `config` names, its weights those of the run `config.init` where there is one."""
    result = network.build(config.model)
    if config.init:
        checkpoint.load_into(config.init / checkpoint.WEIGHTS, result, config.model)
    return result


def encoder_of(config: TrainConfig) -> Encoder:
    """The encoder of `config.model`, for a baseline, which trains nothing else."""
    return Encoder(cast(nn.Module, network_of(config).encoder))


def check_baseline(config: TrainConfig, vit: bool = False) -> None:
    """The `check` of a baseline: it trains an encoder alone, without labels, and augments as its paper does. vit: it is for
    vision transformers. Raises `ValueError` naming the option that does not fit.
    """
    for name in _SEGMENTATION:
        if getattr(config, name) != TrainConfig.__dataclass_fields__[name].default:
            raise ValueError(
                f"--{name.replace('_', '-')} is for methods that segment; --method {config.method} trains an encoder "
                "as its own paper does; drop the option"
            )
    if vit and config.model not in vit_unet.SHAPES:
        raise ValueError(
            f"--method {config.method} is for vision transformers, and {config.model} has none; "
            "take --model unet-vit-small or unet-vit-tiny"
        )
    if config.scope == "network":
        raise ValueError(f"--method {config.method} trains an encoder alone; drop --scope network")


# Options without a meaning where only an encoder is trained. The polarity is one of the labels that it is compared with.
_SEGMENTATION = ("labels", "refine", "loss", "crop", "flip", "jitter", "hue", "label_fraction")
