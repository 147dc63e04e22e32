"""DINO: match a momentum teacher's sharpened output over classes that it makes up (Caron et al. 2021, arXiv 2104.14294).

Numbers are the paper's (sections 3.1 and 3.2) and its published code's, whose settings for ResNets differ from those for
vision transformers. At this scale:

- 4096 outputs in place of 65536: our datasets have thousands of images, not a million.
- learning rates are those for the paper's batch of 1024 (5e-4 x 1024 / 256 of AdamW), brought to ours by `Regime`.
- schedules in epochs become shares of a training of 100 epochs, the paper's shorter one: learning rate 10, temperature
  30; they advance with each step, not each epoch. The last layer is frozen for the first epoch, as there.
- local crops are 96/224 of the global ones, rounded to patches of 8.
- teacher momentum 0.996 is meant for batches of 1024; with a batch of 16 the teacher averages over fewer images.
- no stochastic depth in the student: its encoder is the U-Net's.
"""

import warnings
from dataclasses import replace
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch.nn import functional as F

from medsass.config import TrainConfig
from medsass.data.loading.augment import View
from medsass.data.loading.loader import Batch
from medsass.methods import collective
from medsass.methods.baseline import PHOTO, Encoder, follow, frozen, import_lightly
from medsass.methods.method import Method, Outcome, Regime
from medsass.models import network

_OUT = 4096  # K, section 3.1
_GLOBAL, _LOCAL = 2, 8  # crops of each image
_MOMENTUM, _CENTRE_MOMENTUM = 0.996, 0.9  # lambda, m of equation 4
_STUDENT_TEMPERATURE = 0.1
_TEMPERATURES, _RISE = (0.04, 0.07), 0.3  # the teacher's first and last, and the share of the training between them


class DINO(Method):
    """Student and teacher, each an encoder and a head. The teacher gets the global crops, the student all.

    The run stores the teacher's encoder, which the paper evaluates. The loss does not rank epochs: both ways to collapse,
    to one class or to equal classes, can lower it.
    """

    regime = Regime(
        lr=2e-3, lr_batch=1024, weight_decay=0.04, final_weight_decay=0.4, decay_norms=False, warmup=0.1, clip=3.0,
        patience=0, ranks=False,
    )  # fmt: skip

    def __init__(self, config: TrainConfig, polarity: str) -> None:  # noqa: ARG002 - the contract's signature
        student = Encoder(config)
        vit = isinstance(student.encoder, VisionTransformer)
        super().__init__(student, views(config.size, vit), "encoder")
        self.val_views = self.views
        if not vit:
            self.regime = replace(self.regime, optimizer="sgd", lr=0.12, weight_decay=1e-4, final_weight_decay=None)
        # Three layers of 2048, 2048 and 256 units, then one whose weight vectors have length one (appendix C)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch's, about lightly's weight_norm
            heads = import_lightly("models.modules.heads")
            self.head = heads.DINOProjectionHead(student.width, 2048, 256, _OUT)
            self.teacher_head = heads.DINOProjectionHead(student.width, 2048, 256, _OUT)
        self.teacher_head.load_state_dict(self.head.state_dict())
        self.teacher_head.requires_grad_(False)
        self.teacher = frozen(student)
        self.centre: torch.Tensor
        self.register_buffer("centre", torch.zeros(_OUT))
        self.epoch = 1 / config.epochs

    def forward(self, batch: Batch, progress: float) -> Outcome:
        """Compute the cross-entropy of the student's with the teacher's distributions, over pairs of different crops."""
        crops = [network.normalise(images) for images in batch.views]
        whole, local = torch.cat(crops[:_GLOBAL]), torch.cat(crops[_GLOBAL:])
        projected, guesses = _classify(self.head, torch.cat([self.network(whole), self.network(local)]))
        with torch.no_grad():
            _, targets = _classify(self.teacher_head, self.teacher(whole))
        count = len(batch.images)
        targets, guesses = targets.view(_GLOBAL, count, -1), guesses.view(len(crops), count, -1)
        first, last = _TEMPERATURES
        temperature = first + (last - first) * min(1.0, progress / _RISE)  # linearly, then it stays (appendix A)
        loss = cross_entropy(targets - self.centre, guesses, temperature)
        if self.training:
            self.centre.lerp_(collective.mean(targets.mean((0, 1))), 1 - _CENTRE_MOMENTUM)
        return Outcome(loss, features=projected[:count].detach())

    def before_step(self, progress: float) -> None:
        """Freeze the last layer for an epoch: the optimiser passes over parameters without a gradient."""
        if progress < self.epoch:
            self.head.last_layer.weight_v.grad = None

    def after_step(self, progress: float) -> None:
        """Update the teacher (section 3.1, "teacher network")."""
        follow(self.teacher, self.network, _MOMENTUM, progress)
        follow(self.teacher_head, self.head, _MOMENTUM, progress)

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the teacher's encoder."""
        return self.teacher.state_dict()


build = DINO


def cross_entropy(targets: torch.Tensor, guesses: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the mean of -P_t log P_s over images and pairs of different crops (equations 1 and 3).

    Args:
        targets: (T, N, K) the teacher's outputs minus their centre.
        guesses: (S, N, K) the student's outputs, S >= T, S > 1; their first T crops are the teacher's.
        temperature: the teacher's.
    """
    with torch.autocast(targets.device.type, enabled=False):
        wanted = F.softmax(targets / temperature, dim=-1)
        log = F.log_softmax(guesses / _STUDENT_TEMPERATURE, dim=-1)
        pairs = -torch.einsum("tnk,snk->ts", wanted, log) / targets.shape[1]
    return (pairs.sum() - pairs.diagonal().sum()) / (pairs.numel() - len(targets))


def views(size: int, vit: bool) -> tuple[View, ...]:
    """Return two global crops, one always blurred and the other sometimes solarized, then the local ones.

    Areas are those of the published commands: a ResNet's local crops are smaller, and its global crops may be.
    """
    large, small = ((0.4, 1.0), (0.05, 0.4)) if vit else ((0.14, 1.0), (0.05, 0.14))
    common = replace(PHOTO, saturation=0.2)
    first = View(size, replace(common, area=large, blur=1.0))
    second = View(size, replace(common, area=large, blur=0.1, solarize=0.2))
    local = View(max(8, round(size * 96 / 224 / 8) * 8), replace(common, area=small, blur=0.5))
    return first, second, *[local] * _LOCAL


def _classify(head: Any, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (N, 256) projections and (N, K) outputs, both float32: divided by 0.04, bfloat16 would be too coarse."""
    with torch.autocast(features.device.type, enabled=False):
        projected = head.layers(features.float())
        return projected, head.last_layer(F.normalize(projected, dim=-1))
