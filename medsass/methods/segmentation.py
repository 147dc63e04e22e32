"""Methods that train a U-Net towards a mask: they differ in where the mask comes from."""

import torch

from medsass.config import TrainConfig
from medsass.data.loading.loader import Batch
from medsass.methods.losses import LOSSES
from medsass.methods.method import Method, Outcome, network_of, user_view
from medsass.models import network


class Segmentation(Method):
    """Trains the whole U-Net, encoder and decoder together, towards `target`.

    With --scope encoder the same training is kept in part: the decoder, through which the encoder had its gradient, is
    dropped at the end (paper, section 4.1: "we only keep the encoder and discard everything else").
    """

    segments = True
    timeless = True

    def __init__(self, config: TrainConfig) -> None:
        keeps = "encoder" if config.scope == "encoder" else "network"
        super().__init__(network_of(config), (user_view(config),), keeps)
        self.loss = LOSSES[config.loss]

    def target(self, batch: Batch) -> torch.Tensor:
        """(N, H, W) uint8 in {0, 1}: the masks that the network is to predict."""
        raise NotImplementedError

    def prepare(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """The target, and the network's input (N, 3, H, W), channels-last."""
        return self.target(batch), network.normalise(batch.images)

    def forward(self, batch: Batch, progress: float) -> Outcome:  # noqa: ARG002 - nothing here changes over time
        """Loss between the network's logits of the augmented images and the target."""
        target, images = self.prepare(batch)
        logits = self.network(images)
        return Outcome(self.loss(logits, target), logits, target)
