"""MedSASS: the target is the pseudo-label of the augmented image, the network's own input (Singh and Cirrone, algorithm 1)."""

import torch

from medsass.config import TrainConfig, numbers
from medsass.data.loading.loader import Batch
from medsass.labels import Labeler, Labels, Normalise
from medsass.methods.segmentation import Segmentation
from medsass.models import network


class MedSASS(Segmentation):
    """Thresholds each augmented image and trains the network towards the mask. No ground truth is ever read."""

    def __init__(self, config: TrainConfig, polarity: str) -> None:
        super().__init__(config, polarity)
        self.labeler = labeler(config, polarity)

    def prepare(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the pseudo-labels of the batch, and the network's input."""
        labels, images = self.labelled(batch)
        return labels.mask, images

    def labelled(self, batch: Batch) -> tuple[Labels, torch.Tensor]:
        """Return labels and input; of 8-bit images one kernel makes both, in the type that the network computes in."""
        images = batch.images
        if images.dtype != torch.uint8:
            return self.labeler(images), network.normalise(images)
        kind = images.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
        labels = self.labeler(images, Normalise(network.MEAN, network.STD, dtype))
        assert labels.input is not None
        return labels, labels.input


build = MedSASS


def labeler(config: TrainConfig, polarity: str) -> Labeler:
    """Return the labeler of a run; `evaluate` also scores its labels by themselves."""
    return Labeler(
        config.labels, polarity, numbers(config.ght, "--ght"), config.block_size, config.offset, config.refine
    )
