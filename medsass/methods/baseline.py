"""What the self-supervised baselines share: views, encodings and momentum teachers.

All of them train the encoder that a U-Net of this package keeps. Of a ResNet that is the part down to its second stage:
the third and fourth, which their papers train too, have no place in a U-Net of depth three and would be thrown away. So
the mean of the second stage's map feeds their heads, which are as wide as in the papers (512 inputs in place of 2048 of
a ResNet-50). Of a vision transformer it is the whole; the class token feeds the heads.

Numbers that a paper gives in epochs are kept as shares of the training, since ours lasts 50 epochs and theirs up to
1000. Learning rates are the papers' for their batches, brought to ours by `Regime`. Their ends differ: ours fall to 0.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import nn

from medsass.data.loading.augment import Augment
from medsass.data.loading.loader import Batch
from medsass.methods.optim import cosine
from medsass.models import encoder, network

# What the augmentations of BYOL (table 6), SimSiam (appendix A) and DINO (its code) have in common, for photographs:
# hence no vertical flips. A hue of 0.1 of a turn is 36 degrees.
PHOTO = Augment(vertical=False, jitter=0.4, hue=36.0, jitter_chance=0.8, gray=0.2)


def normalised(batch: Batch) -> list[torch.Tensor]:
    """Each view of a batch as the encoder takes it, (N, 3, H, W) float32."""
    return [network.normalise(images) for images in batch.views]


def summary(owner: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """(N, C): what the heads see of normalised images, by the `encoder` of `owner`."""
    return encoder.summary(cast(nn.Module, owner.encoder), images)


def width(owner: nn.Module) -> int:
    """C of `summary`."""
    return encoder.width(cast(nn.Module, owner.encoder))


def frozen(module: nn.Module) -> nn.Module:
    """A copy that no optimiser changes. It stays in training mode with the rest, so that its batch normalisation uses
    the batch's statistics and keeps its own running ones, as in the published code of BYOL and DINO.
    """
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Move each parameter of the teacher: momentum x its own + (1 - momentum) x the student's."""
    for old, new in zip(teacher.parameters(), student.parameters(), strict=True):
        old.mul_(momentum).add_(new, alpha=1 - momentum)


def momentum(start: float, progress: float) -> float:
    """From `start` at progress 0 to 1 at progress 1 by half a cosine (BYOL, section 3.3; DINO, section 3.2)."""
    return 1 - (1 - start) * cosine(progress)


@contextmanager
def drawn(training: bool) -> Iterator[None]:
    """Where masks are drawn: in training anew at each step, in validation always alike, so that epochs can be compared."""
    if training:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield
