"""Shared by the self-supervised baselines: refused options, encoders, views and momentum teachers.

All of them train the encoder of a U-Net of this package. For a ResNet that is the part up to its second stage: the third
and fourth, which their papers train too, have no place in a U-Net of depth three and would be thrown away. So the heads
take the mean of the second stage's map, and are as wide as in the papers (512 inputs in place of 2048 of a ResNet-50). For
a vision transformer it is the whole; the heads take the class token.

Numbers that a paper gives in epochs are kept as shares of the training, since ours lasts 50 epochs and theirs up to 1000.
Learning rates are the papers' for their batches, scaled to ours by `Regime`. Final learning rates differ from theirs: ours
fall to 0.
"""

import copy
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn

from medsass.config import TrainConfig
from medsass.data.loading.augment import Augment
from medsass.methods.method import network_of
from medsass.methods.optim import cosine
from medsass.models import encoder

# Common to the augmentations of BYOL (table 6), SimSiam (appendix A) and DINO (its code), which are for photographs:
# hence no vertical flips. A hue of 0.1 of a turn is 36 degrees.
PHOTO = Augment(vertical=False, jitter=0.4, hue=36.0, jitter_chance=0.8, gray=0.2)


def import_lightly(module: str) -> Any:
    """Import a module of lightly, such as "models.utils". Raises `ImportError` that says what to install."""
    try:
        return importlib.import_module(f"lightly.{module}")
    except ImportError as error:
        raise ImportError("the self-supervised baselines need lightly: pip install 'medsass[baselines]'") from error


class Encoder(nn.Module):
    """The network of `config.model` reduced to its encoder; `width` is the C of its output."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.encoder = cast(nn.Module, network_of(config).encoder)
        self.width = encoder.width(self.encoder)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map normalised images to the heads' input (N, C)."""
        return encoder.summary(self.encoder, images)


def frozen(module: nn.Module) -> nn.Module:
    """Return a copy that no optimiser changes.

    It stays in training mode with the rest, so that its batch normalisation uses the batch's statistics and keeps its own
    running ones, as in the published code of BYOL and DINO.
    """
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, start: float, progress: float) -> None:
    """Set each parameter of the teacher to momentum x its own + (1 - momentum) x the student's.

    The momentum goes from `start` at progress 0 to 1 at progress 1 by half a cosine (BYOL, section 3.3; DINO, section 3.2).
    """
    momentum = 1 - (1 - start) * cosine(progress)
    for old, new in zip(teacher.parameters(), student.parameters(), strict=True):
        old.mul_(momentum).add_(new, alpha=1 - momentum)


@contextmanager
def drawn(training: bool) -> Iterator[None]:
    """Draw masks anew at each step in training, and always the same in validation, so that epochs can be compared."""
    if training:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield
