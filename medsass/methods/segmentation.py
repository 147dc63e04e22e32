"""Methods that train a U-Net towards a mask; they differ in where the mask comes from."""

import torch

from medsass.config import TrainConfig
from medsass.data.loading.augment import Augment, View
from medsass.data.loading.loader import Batch
from medsass.methods.losses import LOSSES
from medsass.methods.method import Method, Outcome, network_of


class Segmentation(Method):
    """Trains the whole U-Net, encoder and decoder together, towards the target that `prepare` gives.

    With --scope encoder the training is the same, but the decoder, through which the encoder had its gradient, is dropped
    at the end (paper, section 4.1: "we only keep the encoder and discard everything else").
    """

    segments = True
    timeless = True

    def __init__(self, config: TrainConfig, polarity: str) -> None:  # noqa: ARG002 - the contract's signature
        view = View(config.size, Augment(config.crop, config.flip, config.jitter, config.hue))
        super().__init__(network_of(config), (view,), "encoder" if config.scope == "encoder" else "network")
        self.loss = LOSSES[config.loss]

    def prepare(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the masks to predict, (N, H, W) uint8 in {0, 1}, and the network's input (N, 3, H, W), channels-last."""
        raise NotImplementedError

    def forward(self, batch: Batch, progress: float) -> Outcome:  # noqa: ARG002 - nothing here changes over time
        """Compute the loss between the network's logits of the augmented images and the target."""
        target, images = self.prepare(batch)
        logits = self.network(images)
        return Outcome(self.loss(logits, target), logits, target)
