"""SimMIM: predict the pixels of masked patches by one linear layer (Xie et al. 2022, arXiv 2111.09886).

Numbers are the paper's: sections 3 and 4.1, and for ViT-B section 4.2. At this scale:
- masked squares of 32 pixels are a seventh of the paper's 224 x 224 image: at other sizes they are the nearest to a
  seventh that patches of 8 pixels and the image allow, or a small image would be masked at once.
- positions are the encoder's learned embeddings, for the published code's shared relative bias is not timm's.
- the rate 8e-4 for 2048 images is that of the paper's text; for fewer it falls with the square root (`Regime`).
- no clipping and no stochastic depth; class and mask token are decayed with the rest.
"""

import math
from typing import Any

import torch
from torch import nn

from medsass.config import TrainConfig
from medsass.data.loading.augment import Augment, View
from medsass.data.loading.loader import Batch
from medsass.methods.baseline import drawn
from medsass.methods.lightly import import_lightly
from medsass.methods.method import Method, Outcome, Regime, check_baseline, encoder_of
from medsass.models import network

_PATCH = 8
_RATIO = 0.6  # share of the squares that is masked, section 4.1.2
_ROWS = 7  # squares in a row: 224 / 32


class SimMIM(Method):
    """An encoder of the whole image with tokens in place of what is masked, and a linear head."""

    regime = Regime(lr=8e-4, lr_batch=2048, weight_decay=0.05, decay_norms=False, warmup=20 / 800)

    def __init__(self, config: TrainConfig) -> None:
        augment = Augment(area=(0.67, 1.0), vertical=False, jitter=0.0, hue=0.0)  # section 4.1.1
        super().__init__(encoder_of(config), (View(config.size, augment),), "encoder")
        self.patchify = import_lightly("models.utils").patchify
        vit: Any = self.network.encoder
        self.mask = nn.Parameter(torch.zeros(vit.embed_dim))
        nn.init.trunc_normal_(self.mask, std=0.02)
        self.head = nn.Linear(vit.embed_dim, _PATCH**2 * 3)

    def forward(self, batch: Batch, progress: float) -> Outcome:  # noqa: ARG002 - nothing here changes over time
        """Mean absolute error of the masked pixels, normalised by the dataset's mean and deviation (equation 1)."""
        images = network.normalise(batch.images)
        with drawn(self.training):
            masked = random_mask(len(images), images.shape[2]).to(images.device)
        seen = encode(self.network.encoder, images, masked, self.mask)
        errors = (self.head(seen).float() - self.patchify(images, _PATCH)).abs().mean(-1)
        masked = masked.flatten(1)
        return Outcome((errors * masked).sum() / masked.sum(), features=seen.mean(1).detach())


def check(config: TrainConfig) -> None:
    """Refuse options of segmentation, and encoders that are no vision transformers."""
    check_baseline(config, vit=True)


def build(config: TrainConfig, polarity: str) -> Method:  # noqa: ARG001 - the contract's signature
    """SimMIM of the encoder of `config.model`."""
    return SimMIM(config)


def encode(vit: Any, images: torch.Tensor, masked: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
    """(N, patches, C) of normalised images whose patches `masked`, (N, rows, rows), are replaced by `token`, (C,)."""
    patches = torch.where(masked.unsqueeze(-1), token, vit.patch_embed(images))
    result: torch.Tensor = vit.norm(vit.blocks(vit.norm_pre(vit._pos_embed(patches))))[:, 1:]
    return result


def random_mask(count: int, size: int) -> torch.Tensor:
    """(count, size / 8, size / 8) bool, true in random squares: as many in each, the ratio rounded up (section 3.2).

    On the CPU, so that the one generator whose state is stored draws them.
    """
    patches, side = size // _PATCH, square(size)
    rows = patches // side
    chosen = torch.rand(count, rows**2).argsort(1) < math.ceil(_RATIO * rows**2)
    return chosen.view(count, rows, rows).repeat_interleave(side, 1).repeat_interleave(side, 2)


def square(size: int) -> int:
    """Side, in patches, of a masked square of an image of size x size pixels: it fits and is next to a seventh of it."""
    patches = size // _PATCH
    return min((side for side in range(1, patches + 1) if patches % side == 0), key=lambda k: abs(k - patches / _ROWS))
