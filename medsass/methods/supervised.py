"""Supervised training on the shards' own masks: the upper reference (paper, appendix C)."""

import torch

from medsass.data.loading.loader import Batch
from medsass.methods.segmentation import Segmentation
from medsass.models import network


class Supervised(Segmentation):
    """Trains the network towards the ground truth, which is augmented with the image."""

    needs_masks = True

    def prepare(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the ground truth, and the network's input."""
        assert batch.masks is not None
        return batch.masks, network.normalise(batch.images)


build = Supervised
