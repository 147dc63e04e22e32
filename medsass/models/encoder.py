"""What an encoder sees in images, as a map or as a vector: the same functions for ResNets and vision transformers.

An encoder is the `encoder` of a network: smp's ResNet as far as its U-Net calls it, or timm's VisionTransformer. Both end
at an eighth of the image's size.
"""

from typing import Any, cast

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn


def is_vit(encoder: nn.Module) -> bool:
    """Whether it is a vision transformer."""
    return isinstance(encoder, VisionTransformer)


def width(encoder: nn.Module) -> int:
    """C, the channels of the map and of both vectors: 512 of ResNet-50, 128 of ResNet-18, 384 of ViT-small, 192 of ViT-tiny."""
    known = cast(Any, encoder)
    return int(known.embed_dim if is_vit(encoder) else known.out_channels[-1])


def feature_map(encoder: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """(N, 3, H, W) -> (N, C, H/8, W/8): the deepest map of a ResNet; a ViT's patch tokens after its last normalisation."""
    if not is_vit(encoder):
        return cast(torch.Tensor, encoder(images)[-1])
    tokens = _tokens(encoder, images)[:, 1:]
    count, _, rows, columns = images.shape
    return tokens.reshape(count, rows // 8, columns // 8, -1).permute(0, 3, 1, 2)


def pooled(encoder: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """(N, 3, H, W) -> (N, C): the mean of the feature map over its positions."""
    return feature_map(encoder, images).mean((2, 3))


def summary(encoder: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """(N, 3, H, W) -> (N, C), what the heads of joint embedding methods see: `pooled` of a ResNet, a ViT's class token."""
    return _tokens(encoder, images)[:, 0] if is_vit(encoder) else pooled(encoder, images)


def _tokens(encoder: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """(N, 1 + H/8 * W/8, C): class token, then patches row by row, after the last normalisation."""
    return cast(torch.Tensor, cast(VisionTransformer, encoder).forward_features(images))
