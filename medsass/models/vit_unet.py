"""U-Nets with a vision transformer beside the convolutions (paper, appendix A.1 and figure 5): ViT-small, and one for CPUs.

The image takes two paths. Four down blocks of convolutions halve it four times and give the skip connections; the ViT
reads it in patches of 8 x 8 pixels. The ViT-convolution (VC) block brings the patch tokens to the size of the deepest map,
and the sum of both goes through four up blocks. Shapes of unet-vit-small at 224 x 224 pixels, channels x height x width:

    image 3 x 224 x 224 -> ViT 384 x 28 x 28 -> VC 512 x 14 x 14
    image -> first 64 x 224 x 224 -> down 128 x 112 x 112, 256 x 56 x 56, 512 x 28 x 28, 512 x 14 x 14
    sum 512 x 14 x 14 -> up 256 x 28 x 28, 128 x 56 x 56, 64 x 112 x 112, 64 x 224 x 224 -> out 1 x 224 x 224

Details that the paper leaves open, and our choices:

- channels: those of the U-Net that upsamples without weights (64, 128, 256, 512, 512 downwards). An up block ends with
  the channels of the next skip connection, so that both halves of a concatenation are equally wide.
- double convolution: twice 3 x 3 convolution without bias, batch normalisation and ReLU.
- VC: no activation between its two layers, as none is named. Both act on each position alone and bilinear weights sum to
  one, so the order of layers and resizing makes no difference; we resize first, to fewer positions, and the paper's last
  resize only moves the channels to where convolutions have them. The result is added to the deepest map, not concatenated.
- upsampling and resizing: pixel centres keep their place (align_corners=False), so flips commute with them.
- the encoder, which is all that encoder-only training stores, is the ViT without any convolution of the U-Net.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn import functional as F

from medsass.models import encoder


@dataclass(frozen=True)
class Shape:
    """A ViT U-Net: the transformer's width and heads, and the convolutions' channels from the image to the deepest map."""

    width: int
    heads: int
    channels: tuple[int, ...]


# unet-vit-tiny is ours: DeiT-tiny's width and half the channels, at a fraction of the cost.
SHAPES = {
    "unet-vit-small": Shape(384, 6, (64, 128, 256, 512, 512)),
    "unet-vit-tiny": Shape(192, 3, (32, 64, 128, 256, 256)),
}


def build(name: str) -> nn.Module:
    """Build the untrained U-Net `name` of `SHAPES`.

    It maps (N, 3, H, W) float normalised images to (N, 1, H, W) logits; H and W are multiples of 16, for four halvings.
    unet-vit-small has 35.5 M parameters, 21.7 M of them the ViT's; unet-vit-tiny 9.0 M and 5.5 M. All get a gradient,
    also the class token: the patches attend to it.
    """
    return ViTUNet(SHAPES[name]).to(memory_format=torch.channels_last)


class ViTUNet(nn.Module):
    """A U-Net whose `encoder` is timm's VisionTransformer, with timm's names of the weights.

    Its position embeddings are those of 28 x 28 patches (224 pixels), resampled for images of another size.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        channels = shape.channels
        self.encoder = VisionTransformer(
            patch_size=8, embed_dim=shape.width, num_heads=shape.heads, num_classes=0, dynamic_img_size=True
        )
        self.first = _double_convolution(3, channels[0])
        self.down = nn.ModuleList(
            nn.Sequential(nn.MaxPool2d(2), _double_convolution(*pair)) for pair in pairwise(channels)
        )
        self.bridge = ViTConvolution(shape.width, channels[-1])
        skips = channels[-2::-1]
        ends = (*skips[1:], channels[0])
        deeps = (channels[-1], *ends)
        self.up = nn.ModuleList(
            _double_convolution(skip + deep, end) for skip, deep, end in zip(skips, deeps, ends, strict=False)
        )
        self.out = nn.Conv2d(channels[0], 1, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map (N, 3, H, W) to (N, 1, H, W) logits."""
        maps = [self.first(images)]
        for down in self.down:
            maps.append(down(maps[-1]))
        deep = maps.pop()
        deep = deep + self.bridge(encoder.feature_map(self.encoder, images), deep.shape[2:])
        for up in self.up:
            wide = F.interpolate(deep, scale_factor=2, mode="bilinear")
            deep = up(torch.cat([maps.pop(), wide], 1))
        logits: torch.Tensor = self.out(deep)
        return logits


class ViTConvolution(nn.Module):
    """The VC block: resize, 1 x 1 convolution, linear layer over the channels, resize."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(width, channels, 1)
        self.linear = nn.Linear(channels, channels)

    def forward(self, tokens: torch.Tensor, size: torch.Size) -> torch.Tensor:
        """Map patch tokens, laid out as (N, width, h, w), to (N, channels, H, W) where (H, W) is `size`."""
        small = self.convolution(F.interpolate(tokens, size=size, mode="bilinear"))
        result: torch.Tensor = self.linear(small.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return result


def _double_convolution(channels: int, out: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs in (channels, out):
        convolution = nn.Conv2d(inputs, out, 3, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
