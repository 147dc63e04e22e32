"""MedSASS with three components that make it rely less on uncertain labels, and more on a teacher as that becomes stable.

`--parts` chooses among the components:

- weights: pixels near the threshold and images of low separability count less (`confidence`);
- consistency: half of the images are changed once more after they were labelled, so that the network must give the same
  mask under other colours, other light and noise (strong augmentation after weak labelling: Sohn et al., FixMatch, 2020);
- teacher: a moving average of the network, applied to the image that was labelled, replaces more and more of the
  threshold's mask (`teacher`). The training stores the teacher, not the network.

Guards against collapse: an image's teacher counts only where its mask overlaps with the threshold's, in proportion to
how stable it is under a flip, and the threshold's mask never loses its whole share.
"""

from functools import partial

import torch
from torch import nn

from medsass.config import TrainConfig
from medsass.config.train import components
from medsass.data.loading.loader import Batch
from medsass.methods import confidence, teacher
from medsass.methods.medsass import MedSASS
from medsass.methods.method import Outcome, Regime
from medsass.methods.teacher import Teacher

_GAIN, _SHIFT, _NOISE = 0.25, 0.25, 0.1  # of each channel's deviation in the image


class MedSASSPlus(MedSASS):
    """MedSASS with the components that `--parts` names."""

    regime = Regime(patience=0, ranks=False)  # the loss is lowest for the network that is most like the threshold

    def __init__(self, config: TrainConfig, polarity: str) -> None:
        super().__init__(config, polarity)
        self.components = components(config)
        self.otsu = config.labels == "otsu"
        self.teacher = Teacher(self.network) if "teacher" in self.components else None
        self.share: torch.Tensor
        self.register_buffer("share", torch.zeros(()))

    def forward(self, batch: Batch, progress: float) -> Outcome:  # noqa: ARG002 - reaches this step as `share`
        """Compute the weighted loss between the logits of the changed images and the target of the unchanged ones.

        In evaluation: the loss of the network that is stored, with the threshold's mask as the target.
        """
        labels, images = self.labelled(batch)
        if not self.training:
            logits = self.final(images)
            return Outcome(self.loss(logits, labels.mask), logits, labels.mask)
        target = labels.mask
        if self.teacher and (images.is_cuda or self.share > 0):  # on a GPU always: no wait, and each step is the same
            opinion, stability = self.teacher(images)
            target = teacher.blended(target, opinion, stability, self.share)
        weight = confidence.weights(batch, labels, self.otsu) if "weights" in self.components else None
        logits = self.network(changed(images) if "consistency" in self.components else images)
        return Outcome(self.loss(logits, target, weight), logits, labels.mask)

    def after_step(self, progress: float) -> None:
        """Update the teacher and its share."""
        if self.teacher:
            self.teacher.follow(self.network)
            self.share.fill_(teacher.share(progress))

    @property
    def final(self) -> nn.Module:
        """The teacher's network if there is one."""
        return self.teacher.network if self.teacher else self.network

    def networks(self) -> tuple[nn.Module, ...]:
        """Return the network, and the teacher's."""
        return (self.network, self.teacher.network) if self.teacher else (self.network,)


build = MedSASSPlus


def changed(images: torch.Tensor) -> torch.Tensor:
    """Give half of the (N, 3, H, W) normalised images other colours, other light and noise.

    Each changes in proportion to its contrast: m + (1 + u a) (x - m) + u s (b + c), with m and s the mean and standard
    deviation of each image's channel, u uniform in [-1, 1] for each image, 0 where it is negative, a and b uniform in
    +-0.25 for each image and channel, c normal with deviation 0.1 for each value.

    A network trained on changed images only would be slow to learn the unchanged ones, which are those that count.
    """
    spread, mean = torch.std_mean(images, (2, 3), correction=0, keepdim=True)
    draw = partial(torch.rand, device=images.device, dtype=images.dtype)
    a, b = (2 * draw((2, *mean.shape)) - 1).unbind()
    u = (2 * draw((len(images), 1, 1, 1)) - 1).clamp_min(0)
    change = _SHIFT * b + _NOISE * torch.randn_like(images)
    return mean + (1 + u * _GAIN * a) * (images - mean) + u * spread * change
