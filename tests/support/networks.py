"""Networks whose steps take milliseconds, for tests of what stands around a network.

unet-resnet18 is two convolutions, and vision transformers have two blocks of their twelve.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from medsass.models import network, vit_unet

NAME = "unet-resnet18"
WIDTH = 8
_build = network.build


class Encoder(nn.Module):
    """Maps (N, 3, H, W) images to [images, (N, 8, H, W) features], with the attributes of smp's encoders."""

    out_channels = (3, WIDTH)

    def __init__(self, norm: bool = True) -> None:
        super().__init__()
        middle = nn.BatchNorm2d(WIDTH) if norm else nn.Identity()
        self.layers = nn.Sequential(nn.Conv2d(3, WIDTH, 3, padding=1), middle, nn.ReLU())

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [images, self.layers(images)]


class Light(nn.Module):
    """Maps (N, 3, H, W) images to (N, 1, H, W) logits. Without `norm` the images of a batch do not affect one another."""

    def __init__(self, norm: bool = True) -> None:
        super().__init__()
        self.encoder = Encoder(norm)
        self.decoder = nn.Conv2d(WIDTH, 1, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.encoder(images)[-1])


def build(name: str, norm: bool = True) -> nn.Module:
    """Build the network `name`, in the place of `NAME` a light one."""
    return Light(norm) if name == NAME else _build(name)


@contextmanager
def light() -> Iterator[None]:
    """Let `network.build` build light networks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "build", build)
        patch.setattr(vit_unet, "VisionTransformer", functools.partial(VisionTransformer, depth=2))
        yield
