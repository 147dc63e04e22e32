"""SimSiam: predict the other view's projection, which takes no gradient (Chen and He 2021, arXiv 2011.10566).

Every number is the paper's (section 3, "baseline settings", and appendix A). The heads have the widths for a ResNet-50
also where the encoder is smaller. The predictor's learning rate does not decay (section 4.2). There is no warm-up, as the
batch is small.
"""

from dataclasses import replace

import torch
from torch.nn import functional as F

from medsass.config import TrainConfig
from medsass.data.loading.augment import View
from medsass.data.loading.loader import Batch
from medsass.methods.baseline import PHOTO, Encoder, import_lightly
from medsass.methods.method import Method, Outcome, Regime
from medsass.models import network

_OUT, _BOTTLENECK = 2048, 512


class SimSiam(Method):
    """One encoder and projector for both views, and a predictor.

    The loss does not rank epochs: it is lowest, -1, where every image has the same projection.
    """

    regime = Regime("sgd", lr=0.05, lr_batch=256, weight_decay=1e-4, warmup=0.0, patience=0, ranks=False)
    least_batch = 2

    def __init__(self, config: TrainConfig, polarity: str) -> None:  # noqa: ARG002 - the contract's signature
        encoder = Encoder(config)
        view = View(config.size, replace(PHOTO, area=(0.2, 1.0), blur=0.5))  # the augmentation of MoCo v2, twice
        super().__init__(encoder, (view, view), "encoder")
        self.val_views = self.views
        heads = import_lightly("models.modules.heads")
        self.projector = heads.SimSiamProjectionHead(encoder.width, _OUT, _OUT)
        self.predictor = heads.SimSiamPredictionHead(_OUT, _BOTTLENECK, _OUT)
        for item in self.predictor.parameters():
            item.constant = True  # its learning rate does not decay (section 4.2)

    def forward(self, batch: Batch, progress: float) -> Outcome:  # noqa: ARG002 - nothing here changes over time
        """Compute the mean of D(p1, stopgrad(z2)) / 2 + D(p2, stopgrad(z1)) / 2 (equation 4); in [-1, 1]."""
        first, second = (self.projector(self.network(network.normalise(images))) for images in batch.views)
        loss = distance(self.predictor(first), second.detach()) + distance(self.predictor(second), first.detach())
        return Outcome(loss / 2, features=first.detach())


build = SimSiam


def distance(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean negative cosine between the rows of two (N, C) (equation 1)."""
    return -F.cosine_similarity(prediction.float(), target.float(), dim=1).mean()
