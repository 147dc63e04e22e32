"""BYOL: predict a momentum network's projection of another view (Grill et al. 2020, arXiv 2006.07733).

Every number is the paper's: sections 3.1 to 3.3, augmentations of appendix B. Two differences matter at this scale: a
batch of 16, not 4096, so that LARS takes small steps (lr 0.2 x 16 / 256), and 50 epochs, not 1000.
"""

from dataclasses import replace

import torch
from torch.nn import functional as F

from medsass.config import TrainConfig
from medsass.data.loading.augment import View
from medsass.data.loading.loader import Batch
from medsass.methods.baseline import PHOTO, Encoder, follow, frozen, import_lightly
from medsass.methods.method import Method, Outcome, Regime
from medsass.models import network

_MOMENTUM = 0.996  # tau_base, section 3.3
_HIDDEN, _OUT = 4096, 256  # of projector and predictor, section 3.3


class BYOL(Method):
    """Online encoder, projector and predictor, and a target encoder and projector that follow the online ones.

    The loss does not rank epochs: it is lowest where the networks agree on everything.
    """

    # Section 3.3; biases and normalisations are exempt from decay and from LARS.
    regime = Regime(
        "lars", lr=0.2, lr_batch=256, weight_decay=1.5e-6, decay_norms=False, warmup=10 / 1000, patience=0, ranks=False
    )
    least_batch = 2

    def __init__(self, config: TrainConfig, polarity: str) -> None:  # noqa: ARG002 - the contract's signature
        # T and T' of table 6: one view of each image by either
        photo = replace(PHOTO, area=(0.08, 1.0), saturation=0.2)
        pair = replace(photo, blur=1.0), replace(photo, blur=0.1, solarize=0.2)
        online = Encoder(config)
        super().__init__(online, tuple(View(config.size, augment) for augment in pair), "encoder")
        self.val_views = self.views
        heads = import_lightly("models.modules.heads")
        self.projector = heads.BYOLProjectionHead(online.width, _HIDDEN, _OUT)
        self.predictor = heads.BYOLPredictionHead(_OUT, _HIDDEN, _OUT)
        self.target, self.target_projector = frozen(online), frozen(self.projector)

    def forward(self, batch: Batch, progress: float) -> Outcome:  # noqa: ARG002 - nothing here changes over time
        """Compute the mean loss between both views, each predicting the other (equation 2, made symmetric)."""
        first, second = (network.normalise(images) for images in batch.views)
        online = [self.projector(self.network(view)) for view in (first, second)]
        with torch.no_grad():
            targets = [self.target_projector(self.target(view)) for view in (second, first)]
        loss = torch.stack([distance(self.predictor(z), t) for z, t in zip(online, targets, strict=True)]).sum()
        return Outcome(loss, features=online[0].detach())

    def after_step(self, progress: float) -> None:
        """Update the target (equation 1, and the schedule of tau below it)."""
        follow(self.target, self.network, _MOMENTUM, progress)
        follow(self.target_projector, self.projector, _MOMENTUM, progress)


build = BYOL


def distance(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean squared distance, in [0, 4], between the unit vectors of two (N, C) (equation 2)."""
    difference = F.normalize(prediction.float(), dim=1) - F.normalize(target.float(), dim=1)
    return difference.square().sum(1).mean()
