"""MedSASS beyond its teacher: what the threshold is unsure of weighs less, and a teacher takes over as it becomes stable.

Parts, each of which `--parts` can leave away:
- weights: pixels near the threshold and images of low separability count less (`confidence`);
- consistency: half of the images are changed once more after they were labelled, so that the network must give
  the same mask to other colours, other light and noise (strong augmentation after weak labelling: Sohn et al., FixMatch,
  2020);
- teacher: a moving average of the network, heard on the image as it was labelled, replaces more and more of the
  threshold's mask (`teacher`). It is also what is kept of the training.
Guards against collapse: an image's teacher is heard only where its mask overlaps with the threshold's, in proportion to
how stable it is under a flip, and the threshold's mask never loses its whole share.
"""

import torch
from torch import nn

from medsass.config import TrainConfig
from medsass.data.loading.loader import Batch
from medsass.methods import confidence, medsass, teacher
from medsass.methods.medsass import MedSASS
from medsass.methods.method import Outcome, Regime
from medsass.methods.teacher import Teacher

PARTS = ("weights", "consistency", "teacher")

_GAIN, _SHIFT, _NOISE = 0.25, 0.25, 0.1  # of each channel's deviation in the image


class MedSASSPlus(MedSASS):
    """MedSASS with the parts that the options name."""

    regime = Regime(patience=0, ranks=False)  # the lowest loss is of the network that is most like the threshold

    def __init__(self, config: TrainConfig, polarity: str) -> None:
        super().__init__(config, polarity)
        self.parts = parts(config)
        self.otsu = config.labels == "otsu"
        self.teacher = Teacher(self.network) if "teacher" in self.parts else None
        self.share: torch.Tensor
        self.register_buffer("share", torch.zeros(()))

    def forward(self, batch: Batch, progress: float) -> Outcome:  # noqa: ARG002 - comes in by `share`
        """Weighted loss between the logits of the images, changed once more, and the target of the images as they are. In
        evaluation: the loss of what is kept, with the threshold's mask for the target.
        """
        labels, images = self.labelled(batch)
        if not self.training:
            logits = self.kept(images)
            return Outcome(self.loss(logits, labels.mask), logits, labels.mask)
        target = labels.mask
        if self.teacher and (images.is_cuda or self.share > 0):  # a GPU is not waited for, and replays the same step
            target = teacher.blended(target, self.teacher(images), self.share)
        weight = confidence.weights(batch, labels, self.otsu) if "weights" in self.parts else None
        logits = self.network(changed(images) if "consistency" in self.parts else images)
        return Outcome(self.loss(logits, target, weight), logits, labels.mask)

    def after_step(self, progress: float) -> None:
        """Let the teacher follow, and take over a little more."""
        if self.teacher:
            self.teacher.follow(self.network)
            self.share.fill_(teacher.share(progress))

    @property
    def kept(self) -> nn.Module:
        """The teacher's network where there is one."""
        return self.teacher.network if self.teacher else self.network

    def networks(self) -> tuple[nn.Module, ...]:
        """The network, and the teacher's."""
        return (self.network, self.teacher.network) if self.teacher else (self.network,)


def changed(images: torch.Tensor) -> torch.Tensor:
    """(N, 3, H, W) normalised images, half of them as they are, the others with other colours, other light and noise, each in
    proportion to what the image shows: m + (1 + u a) (x - m) + u s (b + c), m and s mean and standard deviation of each
    image's channel, u uniform in [-1, 1] for each image, 0 where it is negative, a and b uniform in +-0.25 for each image and
    channel, c normal with deviation 0.1 for each value.

    A network that met changed images only would be slow to learn what the others show, which are those that count.
    """
    spread, mean = torch.std_mean(images, (2, 3), correction=0, keepdim=True)
    a, b = _uniform(images, 2, *mean.shape).unbind()
    u = _uniform(images, len(images), 1, 1, 1).clamp_min(0)
    change = _SHIFT * b + _NOISE * torch.randn_like(images)
    return mean + (1 + u * _GAIN * a) * (images - mean) + u * spread * change


def _uniform(like: torch.Tensor, *shape: int) -> torch.Tensor:
    """In [-1, 1], where and of the type that `like` is."""
    return 2 * torch.rand(shape, device=like.device, dtype=like.dtype) - 1


def parts(config: TrainConfig) -> tuple[str, ...]:
    """The parts that --parts names. Raises `ValueError` for one that does not exist."""
    found = tuple(part.strip() for part in config.parts.split(",") if part.strip() not in ("", "none"))
    for part in found:
        if part not in PARTS:
            raise ValueError(f"--parts: '{part}' is none of {', '.join(PARTS)}")
    return found


def check(config: TrainConfig) -> None:
    """Raise `ValueError` for parts that do not exist, and as `medsass.check`."""
    medsass.check(config)
    parts(config)


def build(config: TrainConfig, polarity: str) -> MedSASSPlus:
    """MedSASS with the parts, the labels and the loss that `config` names."""
    return MedSASSPlus(config, polarity)
