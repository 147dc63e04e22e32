"""Supervised training on the shards' own masks: the upper reference (paper, appendix C)."""

import torch

from medsass.config import TrainConfig
from medsass.data.loading.loader import Batch
from medsass.methods.segmentation import Segmentation


class Supervised(Segmentation):
    """Trains the network towards the ground truth, which is augmented with the image."""

    needs_masks = True

    def target(self, batch: Batch) -> torch.Tensor:
        """Return the batch's ground truth."""
        assert batch.masks is not None
        return batch.masks


def build(config: TrainConfig, polarity: str) -> Supervised:  # noqa: ARG001 - the contract's signature
    """Build supervised training with the loss that `config` names."""
    return Supervised(config)
