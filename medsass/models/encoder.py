"""The output of an encoder, as a map or as a vector: the same functions for ResNets and vision transformers.

An encoder is the `encoder` of a network: smp's ResNet, as far as its U-Net calls it, or timm's VisionTransformer. Both end
at an eighth of the image's size.
"""

from typing import Any, cast

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn


def width(encoder: nn.Module) -> int:
    """Return C, the channels of map and vectors: ResNet-50 512, ResNet-18 128, ViT-small 384, ViT-tiny 192."""
    return int(encoder.embed_dim if isinstance(encoder, VisionTransformer) else cast(Any, encoder).out_channels[-1])


def feature_map(encoder: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Map (N, 3, H, W) to (N, C, H/8, W/8): a ResNet's deepest map, or a ViT's patch tokens after its last normalisation."""
    if not isinstance(encoder, VisionTransformer):
        return cast(torch.Tensor, encoder(images)[-1])
    tokens = cast(torch.Tensor, encoder.forward_features(images))[:, 1:]  # the class token comes first
    count, _, rows, columns = images.shape
    return tokens.reshape(count, rows // 8, columns // 8, -1).permute(0, 3, 1, 2)


def pooled(encoder: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Map (N, 3, H, W) to (N, C): the mean of the feature map over its positions."""
    return feature_map(encoder, images).mean((2, 3))


def summary(encoder: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Map (N, 3, H, W) to (N, C), the input of joint embedding heads: `pooled` for a ResNet, a ViT's class token."""
    if not isinstance(encoder, VisionTransformer):
        return pooled(encoder, images)
    return cast(torch.Tensor, encoder.forward_features(images))[:, 0]
