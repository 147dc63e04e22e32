"""The contract of a training method, and its lookup by name.

A method is a module `methods/<name>.py` (a hyphen of the name is an underscore there) with

    build(config: TrainConfig, polarity: str) -> Method

a function or the class itself, where `polarity` is that of the dataset's foreground. `config/train.py` refuses the
options that a method cannot serve.
"""

import importlib
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
from torch import nn

from medsass.config import METHODS, TrainConfig
from medsass.config.options import WEIGHTS, Kept
from medsass.data.loading.augment import View
from medsass.data.loading.loader import Batch
from medsass.models import checkpoint, network


@dataclass(frozen=True)
class Regime:
    """The optimisation of a method unless the user says otherwise; a baseline's is its paper's.

    Attributes:
        optimizer: "adamw", "sgd" or "lars".
        lr: peak learning rate, for batches of `lr_batch` images.
        lr_batch: for another batch size the learning rate scales linearly for SGD and LARS (Goyal et al. 2017), and with the
            square root for AdamW, whose steps do not grow with the gradient (Malladi et al. 2022); at 0 it is constant.
        weight_decay: at the beginning; it goes to `final_weight_decay` by half a cosine, or is constant if that is None.
        decay_norms: whether parameters of one dimension (biases, the scales of normalisations) are decayed too.
        betas: the two betas of AdamW.
        momentum: the momentum of SGD and LARS.
        warmup: share of all steps in which the learning rate rises.
        clip: largest norm of each parameter's gradient; 0 does not clip.
        patience: epochs without a lower validation loss before a run stops; 0: never.
        ranks: whether a lower validation loss means better weights; if not, the last epoch's weights are stored. It does not
            if two networks only have to agree with each other: their loss is lowest where they have collapsed.
    """

    optimizer: Literal["adamw", "sgd", "lars"] = "adamw"
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
        """Return the regime of a run: the user's numbers where given, the learning rate for the run's batch size.

        Raises `ValueError` for LARS without weight decay.
        """
        names = ("weight_decay", "warmup", "patience")
        given = {name: value for name in names if (value := getattr(config, name)) is not None}
        scale = config.batch_size / self.lr_batch if self.lr_batch else 1.0
        lr = self.lr * (scale**0.5 if self.optimizer == "adamw" else scale)
        regime = replace(self, **given, lr=config.lr if config.lr is not None else lr, lr_batch=0)
        if config.weight_decay is not None:
            regime = replace(regime, final_weight_decay=None)
        if regime.optimizer == "lars" and regime.weight_decay == 0:
            raise ValueError(
                "--weight-decay 0 would switch LARS off, which scales only decayed weights; take 1e-9 or so"
            )
        return regime


@dataclass(frozen=True)
class Outcome:
    """The result of one forward pass.

    Attributes:
        loss: scalar.
        logits, target: (N, 1, H, W) and (N, H, W) uint8 in {0, 1}, from methods that segment.
        features: (N, C), detached, from methods that can collapse: the embeddings whose spread would show it.
    """

    loss: torch.Tensor
    logits: torch.Tensor | None = None
    target: torch.Tensor | None = None
    features: torch.Tensor | None = None


class Method(nn.Module):
    """A training method: computes a loss from a batch, and holds the networks, heads and momentum teachers for that.

    A checkpoint holds its state dict. The optimiser takes the parameters that require gradients.

    Attributes:
        network: the network that is trained; has an `encoder`.
        keeps: "network" or "encoder", the part that the run stores.
        views: how each training image is cropped and coloured, once for each view; at least one.
        val_views: the same for validation images; by default the first view without augmentation.
        needs_masks: whether batches must hold the ground truth.
        segments: whether it trains towards masks, which it makes itself if it needs none.
        least_batch: smaller batches are skipped; a single image may have no statistics to be normalised by.
        timeless: whether a step is the same computation whatever the progress, so that it can be recorded once.
    """

    regime = Regime()
    needs_masks = False
    segments = False
    least_batch = 1
    timeless = False

    def __init__(self, network: nn.Module, views: tuple[View, ...], keeps: Kept) -> None:
        super().__init__()
        self.network, self.views, self.keeps = network, views, keeps
        self.val_views: tuple[View, ...] = (View(views[0].size),)

    def forward(self, batch: Batch, progress: float) -> Outcome:
        """Compute the loss of a batch; `progress` is the share of the training that is done, in [0, 1]."""
        raise NotImplementedError

    def before_step(self, progress: float) -> None:
        """Change the gradients before a step of the optimiser."""

    def after_step(self, progress: float) -> None:
        """Update after a step of the optimiser, such as a teacher's moving average."""

    @property
    def final(self) -> nn.Module:
        """The network that is stored and validated: the one that is trained, or a teacher."""
        return self.network

    def networks(self) -> tuple[nn.Module, ...]:
        """Return the networks that run in a step and are worth compiling."""
        return (self.network,)

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the weights to store: the state dict of `final`, or its `encoder.*` part."""
        state = self.final.state_dict()
        if self.keeps == "network":
            return state
        return {name: value for name, value in state.items() if name.startswith("encoder.")}


def make(config: TrainConfig, polarity: str) -> Method:
    """Build the method that `config.method` names, for a dataset whose foreground has that polarity.

    Raises `ValueError` if `config` asks for something that the method cannot do, or starts from a run that does not fit;
    `OSError` if that run cannot be read; `ImportError` if the method needs a package.
    """
    return cast(Method, _module(config.method).build(config, polarity))


def _module(name: str) -> Any:
    assert name in METHODS
    return importlib.import_module(f"medsass.methods.{name.replace('-', '_')}")


def network_of(config: TrainConfig) -> nn.Module:
    """Build the U-Net that `config` names, with the weights of the run `config.init` if there is one."""
    result = network.build(config.model)
    if config.init:
        checkpoint.load_into(config.init / WEIGHTS, result, config.model)
    return result
