"""DINO: match a momentum teacher's sharpened output over classes of its own (Caron et al. 2021, arXiv 2104.14294).

Numbers are the paper's (sections 3.1 and 3.2) and its published code's, whose settings for ResNets differ from those for
vision transformers. At this scale:
- 4096 outputs in place of 65536: our datasets have thousands of images, not a million.
- learning rates are those for the paper's batch of 1024 (5e-4 x 1024 / 256 of AdamW), brought to ours by `Regime`.
- courses in epochs are shares of a training of 100, the paper's shorter one: learning rate 10, temperature 30, step by
  step, not epoch by epoch. The last layer rests for the first epoch, as there.
- local crops are 96/224 of the global ones, rounded to patches of 8.
- teacher momentum 0.996 is meant for batches of 1024; with a batch of 16 the teacher is a mean over fewer images.
- no stochastic depth in the student: its encoder is the U-Net's.
"""

import warnings
from dataclasses import replace
from typing import Any

import torch
from torch.nn import functional as F

from medsass.config import TrainConfig
from medsass.data.loading.augment import View
from medsass.data.loading.loader import Batch
from medsass.methods import collective
from medsass.methods.baseline import PHOTO, follow, frozen, momentum, normalised, summary, width
from medsass.methods.lightly import import_lightly
from medsass.methods.method import Method, Outcome, Regime, check_baseline, encoder_of
from medsass.models import encoder

_OUT = 4096  # K, section 3.1
_GLOBAL, _LOCAL = 2, 8  # crops of each image
_MOMENTUM, _CENTRE_MOMENTUM = 0.996, 0.9  # lambda, m of equation 4
_STUDENT_TEMPERATURE = 0.1
_TEMPERATURES, _RISE = (0.04, 0.07), 0.3  # the teacher's first and last, and the share of the training between them


class DINO(Method):
    """Student and teacher, each an encoder and a head. The teacher sees the global crops, the student all.

    What is kept is the teacher's encoder, which the paper evaluates. The loss does not rank epochs: both ways to
    collapse, one class or all alike, can lower it.
    """

    regime = Regime(
        lr=2e-3, lr_batch=1024, weight_decay=0.04, final_weight_decay=0.4, decay_norms=False, warmup=0.1, clip=3.0,
        patience=0, ranks=False,
    )  # fmt: skip

    def __init__(self, config: TrainConfig) -> None:
        network = encoder_of(config)
        vit = encoder.is_vit(network.encoder)
        super().__init__(network, views(config.size, vit), "encoder")
        self.val_views = self.views
        if not vit:
            self.regime = replace(self.regime, optimizer="sgd", lr=0.12, weight_decay=1e-4, final_weight_decay=None)
        self.head, self.teacher_head = _head(width(network)), _head(width(network))
        self.teacher_head.load_state_dict(self.head.state_dict())
        self.teacher_head.requires_grad_(False)
        self.teacher = frozen(network)
        self.centre: torch.Tensor
        self.register_buffer("centre", torch.zeros(_OUT))
        self.epoch = 1 / config.epochs

    def forward(self, batch: Batch, progress: float) -> Outcome:
        """Cross-entropy between the teacher's and the student's distributions over all pairs of different crops."""
        crops = normalised(batch)
        whole, local = torch.cat(crops[:_GLOBAL]), torch.cat(crops[_GLOBAL:])
        seen = torch.cat([summary(self.network, whole), summary(self.network, local)])
        projected, guesses = _classify(self.head, seen)
        with torch.no_grad():
            _, targets = _classify(self.teacher_head, summary(self.teacher, whole))
        count = len(batch.images)
        targets, guesses = targets.view(_GLOBAL, count, -1), guesses.view(len(crops), count, -1)
        loss = cross_entropy(targets - self.centre, guesses, temperature(progress))
        if self.training:
            self.centre.lerp_(collective.mean(targets.mean((0, 1))), 1 - _CENTRE_MOMENTUM)
        return Outcome(loss, features=projected[:count].detach())

    def before_step(self, progress: float) -> None:
        """Keep the last layer still for an epoch: the optimiser passes over what has no gradient."""
        if progress < self.epoch:
            self.head.last_layer.weight_v.grad = None

    def after_step(self, progress: float) -> None:
        """Let the teacher follow (section 3.1, "teacher network")."""
        share = momentum(_MOMENTUM, progress)
        follow(self.teacher, self.network, share)
        follow(self.teacher_head, self.head, share)

    def weights(self) -> dict[str, torch.Tensor]:
        """The teacher's encoder."""
        return self.teacher.state_dict()


def check(config: TrainConfig) -> None:
    """Refuse options of segmentation."""
    check_baseline(config)


def build(config: TrainConfig, polarity: str) -> Method:  # noqa: ARG001 - the contract's signature
    """DINO of the encoder of `config.model`."""
    return DINO(config)


def cross_entropy(targets: torch.Tensor, guesses: torch.Tensor, temperature: float) -> torch.Tensor:
    """Mean over images and pairs of crops of -P_t log P_s (equations 1 and 3); the first crops of both are the same.

    targets: (T, N, K) the teacher's outputs less their centre. guesses: (S, N, K) the student's, S >= T, S > 1.
    """
    with torch.autocast(targets.device.type, enabled=False):
        wanted = F.softmax(targets / temperature, dim=-1)
        log = F.log_softmax(guesses / _STUDENT_TEMPERATURE, dim=-1)
        pairs = -torch.einsum("tnk,snk->ts", wanted, log) / targets.shape[1]
    return (pairs.sum() - pairs.diagonal().sum()) / (pairs.numel() - len(targets))


def temperature(progress: float) -> float:
    """The teacher's temperature: it rises linearly, then stays (appendix A)."""
    first, last = _TEMPERATURES
    return first + (last - first) * min(1.0, progress / _RISE)


def views(size: int, vit: bool) -> tuple[View, ...]:
    """Two global crops, of which one is always blurred and the other at times inverted, then the local ones.

    Areas are those of the published commands: a ResNet's local crops are smaller, its global ones may be.
    """
    large, small = ((0.4, 1.0), (0.05, 0.4)) if vit else ((0.14, 1.0), (0.05, 0.14))
    common = replace(PHOTO, saturation=0.2)
    first = View(size, replace(common, area=large, blur=1.0))
    second = View(size, replace(common, area=large, blur=0.1, solarize=0.2))
    local = View(max(8, round(size * 96 / 224 / 8) * 8), replace(common, area=small, blur=0.5))
    return first, second, *[local] * _LOCAL


def _head(inputs: int) -> Any:
    """Three layers of 2048, 2048 and 256 units, then a layer whose weights have length one (appendix C)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch, about lightly's weight_norm
        return import_lightly("models.modules.heads").DINOProjectionHead(inputs, 2048, 256, _OUT)


def _classify(head: Any, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, 256) projections and (N, K) outputs, both float32: divided by 0.04, bfloat16 would round too coarsely."""
    with torch.autocast(features.device.type, enabled=False):
        projected = head.layers(features.float())
        return projected, head.last_layer(F.normalize(projected, dim=-1))
