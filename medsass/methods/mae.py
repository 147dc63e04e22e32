"""MAE: reconstruct the three quarters of an image that the encoder never saw (He et al. 2022, arXiv 2111.06377).

Numbers are the paper's: sections 3 and 4, table 8. At this scale:

- the decoder has half the encoder's width, as the paper's has for ViT-large, and 4 blocks in place of 8: with patches of
  8 pixels it has 784 tokens at 224 x 224, four times the paper's, and would cost more than the encoder of ViT-small.
  In the paper's ablation (table 1) this loses nothing in fine-tuning, and 1.6 points in linear probing.
- the learning rate is the paper's for its batch of 4096, scaled with the square root of the batch (`Regime`); scaled
  linearly, as the paper does between large batches, it would be too small for a batch of 16 to learn in 50 epochs.
- the encoder keeps its learned position embeddings and timm's initial weights, so that all methods start from the same
  network; the paper's embeddings are fixed sines and cosines, as in our decoder.
"""

from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import nn

from medsass.config import TrainConfig
from medsass.data.loading.augment import Augment, View
from medsass.data.loading.loader import Batch
from medsass.methods.baseline import Encoder, drawn, import_lightly
from medsass.methods.method import Method, Outcome, Regime
from medsass.models import network

_PATCH = 8
_RATIO = 0.75  # share of the patches that is masked, section 4.1
_DEPTH, _HEAD = 4, 32  # of the decoder: blocks, and channels of one attention head (512 / 16 in the paper)


class MAE(Method):
    """An encoder of the visible patches, and a decoder that is dropped after training."""

    # Table 8, where 1.5e-4 is for 256 of the 4096 images.
    regime = Regime(lr=2.4e-3, lr_batch=4096, weight_decay=0.05, decay_norms=False, betas=(0.9, 0.95), warmup=40 / 800)

    def __init__(self, config: TrainConfig, polarity: str) -> None:  # noqa: ARG002 - the contract's signature
        augment = Augment(area=(0.2, 1.0), vertical=False, jitter=0.0, hue=0.0)  # table 8: RandomResizedCrop
        super().__init__(Encoder(config), (View(config.size, augment),), "encoder")
        self.utils = import_lightly("models.utils")
        vit: Any = self.network.encoder
        self.decoder = Decoder(vit.embed_dim, vit.embed_dim // 2, config.size // _PATCH, self.utils)

    def forward(self, batch: Batch, progress: float) -> Outcome:  # noqa: ARG002 - nothing here changes over time
        """Compute the mean squared error of the masked patches' pixels, each patch scaled to mean 0 and variance 1."""
        images = network.normalise(batch.images)
        tokens = len(images), (images.shape[2] // _PATCH) ** 2 + 1
        # Drawn on the CPU also for a GPU: the state of its generator is in the checkpoint.
        with drawn(self.training):
            keep, masked = (index.to(images.device) for index in self.utils.random_token_mask(tokens, _RATIO))
        seen = encode(self.network.encoder, images, keep, self.utils)
        guess = self.decoder(seen, keep, masked).float()
        patches: torch.Tensor = self.utils.patchify(images, _PATCH)
        variance, mean = torch.var_mean(patches, -1, keepdim=True)
        target = (patches - mean) / (variance + 1e-6).sqrt()  # (N, patches, 192); section 3, "reconstruction target"
        wanted = self.utils.get_at_index(target, masked - 1)
        return Outcome((guess - wanted).square().mean(), features=seen[:, 1:].mean(1).detach())


build = MAE


def encode(vit: Any, images: torch.Tensor, keep: torch.Tensor, utils: Any) -> torch.Tensor:
    """Encode the class token and some patches, as if there were no others, to (N, L, C).

    keep: (N, L) positions of the tokens, 0 for the class token.
    """
    tokens = vit.norm_pre(vit._pos_embed(vit.patch_embed(images)))
    result: torch.Tensor = vit.norm(vit.blocks(utils.get_at_index(tokens, keep)))
    return result


class Decoder(nn.Module):
    """Transformer over all positions: the encoder's tokens, and a learned token wherever it had none.

    lightly's own is not used: of its two, one is to go with version 1.7, the other came with 1.6.
    """

    def __init__(self, inputs: int, width: int, rows: int, utils: Any) -> None:
        super().__init__()
        self.utils = utils
        self.embed = nn.Linear(inputs, width)
        self.mask = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, rows**2 + 1, width))
        self.blocks = nn.Sequential(*[Block(width, width // _HEAD, qkv_bias=True) for _ in range(_DEPTH)])
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, _PATCH**2 * 3)
        nn.init.normal_(self.mask, std=0.02)
        utils.initialize_2d_sine_cosine_positional_embedding(self.positions, has_class_token=True)  # and fixes it
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, seen: torch.Tensor, keep: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
        """Map encoded tokens (N, L, C) at the positions `keep` to (N, M, 192) pixels at the positions `masked`."""
        known = self.embed(seen)
        tokens = self.utils.repeat_token(self.mask.to(known.dtype), (len(seen), self.positions.shape[1]))
        tokens = self.blocks(self.utils.set_at_index(tokens, keep, known) + self.positions)
        pixels: torch.Tensor = self.out(self.norm(self.utils.get_at_index(tokens, masked)))
        return pixels
