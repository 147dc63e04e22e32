"""SimMIM: predict the pixels of masked patches with one linear layer (Xie et al. 2022, arXiv 2111.09886).

Numbers are the paper's: sections 3 and 4.1, and for ViT-B section 4.2. At this scale:

- masked squares of 32 pixels are a seventh of the paper's 224 x 224 image. At other sizes they are as close to a seventh
  as patches of 8 pixels and the image allow; squares of 32 pixels would mask a small image almost completely.
- positions are the encoder's learned embeddings, since timm has no shared relative bias as in the published code.
- the learning rate 8e-4 for 2048 images is that of the paper's text; it scales with the batch's square root (`Regime`).
- there is no clipping and no stochastic depth; class and mask token are decayed with the rest.
"""

import math
from typing import Any

import torch
from torch import nn

from medsass.config import TrainConfig
from medsass.data.loading.augment import Augment, View
from medsass.data.loading.loader import Batch
from medsass.methods.baseline import Encoder, drawn, import_lightly
from medsass.methods.method import Method, Outcome, Regime
from medsass.models import network

_PATCH = 8
_RATIO = 0.6  # share of the squares that is masked, section 4.1.2
_ROWS = 7  # squares in a row: 224 / 32


class SimMIM(Method):
    """An encoder of the whole image, with a learned token in place of each masked patch, and a linear head."""

    regime = Regime(lr=8e-4, lr_batch=2048, weight_decay=0.05, decay_norms=False, warmup=20 / 800)

    def __init__(self, config: TrainConfig, polarity: str) -> None:  # noqa: ARG002 - the contract's signature
        augment = Augment(area=(0.67, 1.0), vertical=False, jitter=0.0, hue=0.0)  # section 4.1.1
        super().__init__(Encoder(config), (View(config.size, augment),), "encoder")
        self.patchify = import_lightly("models.utils").patchify
        vit: Any = self.network.encoder
        self.mask = nn.Parameter(torch.zeros(vit.embed_dim))
        nn.init.trunc_normal_(self.mask, std=0.02)
        self.head = nn.Linear(vit.embed_dim, _PATCH**2 * 3)

    def forward(self, batch: Batch, progress: float) -> Outcome:  # noqa: ARG002 - nothing here changes over time
        """Compute the mean absolute error of the masked pixels, as `network.normalise` scales them (equation 1)."""
        images = network.normalise(batch.images)
        with drawn(self.training):
            masked = random_mask(len(images), images.shape[2]).to(images.device)
        seen = encode(self.network.encoder, images, masked, self.mask)
        errors = (self.head(seen).float() - self.patchify(images, _PATCH)).abs().mean(-1)
        masked = masked.flatten(1)
        return Outcome((errors * masked).sum() / masked.sum(), features=seen.mean(1).detach())


build = SimMIM


def encode(vit: Any, images: torch.Tensor, masked: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
    """Encode normalised images to (N, patches, C), with the patches `masked` (N, rows, rows) replaced by `token` (C,)."""
    patches = torch.where(masked.unsqueeze(-1), token, vit.patch_embed(images))
    result: torch.Tensor = vit.norm(vit.blocks(vit.norm_pre(vit._pos_embed(patches))))[:, 1:]
    return result


def random_mask(count: int, size: int) -> torch.Tensor:
    """Return (count, size / 8, size / 8) bool, true in random squares: the same number in each image (section 3.2).

    A square's side divides the image's, and is as close as possible to a seventh of it. The ratio is rounded up. Drawn on
    the CPU: the state of its generator is in the checkpoint.
    """
    patches = size // _PATCH
    divisors = (side for side in range(1, patches + 1) if patches % side == 0)
    side = min(divisors, key=lambda divisor: abs(divisor - patches / _ROWS))
    rows = patches // side
    chosen = torch.rand(count, rows**2).argsort(1) < math.ceil(_RATIO * rows**2)
    return chosen.view(count, rows, rows).repeat_interleave(side, 1).repeat_interleave(side, 2)
