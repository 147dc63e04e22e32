"""MedSASS: the target is the pseudo-label of the very image that the network sees (Singh and Cirrone, algorithm 1)."""

from dataclasses import dataclass

import torch

from medsass.config import TrainConfig, numbers
from medsass.data.loader import Batch
from medsass.labels import Labeler
from medsass.methods.losses import LOSSES, Loss


@dataclass(frozen=True)
class MedSASS:
    """Threshold each augmented image; train the network towards the mask. No ground truth is ever read."""

    labeler: Labeler
    loss: Loss
    needs_masks: bool = False

    def target(self, batch: Batch) -> torch.Tensor:
        """The pseudo-labels of the batch."""
        return self.labeler(batch.images).mask


def build(config: TrainConfig, polarity: str) -> MedSASS:
    """MedSASS with the labels and the loss that `config` names."""
    return MedSASS(labeler(config, polarity), LOSSES[config.loss])


def labeler(config: TrainConfig, polarity: str) -> Labeler:
    """The labeler of a run; `evaluate` scores its bare labels too."""
    return Labeler(config.labels, polarity, numbers(config.ght, "--ght"), config.block_size, config.offset)
