"""U-Nets with a ResNet encoder, from segmentation-models-pytorch: the paper's and a small one for CPUs."""

from dataclasses import dataclass

import segmentation_models_pytorch as smp
import torch
from segmentation_models_pytorch.base.modules import SCSEModule
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoderBlock
from torch import nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Shape:
    """A U-Net: smp's name of the encoder, and the decoder's channels from the deepest block up, one for each level."""

    encoder: str
    decoder: tuple[int, ...]


# Appendix A.1: encoder and decoder of depth three, 256, 128 and 64 channels, attention in the decoder (scSE, as in the
# work it cites). unet-resnet18 is ours: the same shape at a fraction of the cost.
SHAPES = {"unet-resnet50": Shape("resnet50", (256, 128, 64)), "unet-resnet18": Shape("resnet18", (128, 64, 32))}


def build(name: str) -> nn.Module:
    """Build the untrained U-Net `name` of `SHAPES`.

    It maps (N, 3, H, W) float normalised images, H and W multiples of 8, to (N, 1, H, W) logits. unet-resnet50 has 4.5 M
    parameters, unet-resnet18 1.2 M. At depth three smp builds more than it calls: the encoder's layer3 and layer4, and the
    first attention of the last decoder block, which has no skip connection. They are removed, so that no optimiser,
    checkpoint or gradient bucket carries dead weights.
    """
    shape = SHAPES[name]
    model = smp.Unet(
        shape.encoder,
        encoder_depth=len(shape.decoder),
        encoder_weights=None,
        decoder_channels=shape.decoder,
        decoder_attention_type="scse",
    )
    for unused in ("layer3", "layer4"):
        delattr(model.encoder, unused)
    model.decoder.blocks[-1].attention1 = nn.Identity()
    model.decoder.blocks = nn.ModuleList(_Doubling(block) for block in model.decoder.blocks)
    for module in model.decoder.modules():
        if isinstance(module, SCSEModule):
            module.sSE[0] = _ToOneChannel(module.sSE[0])
    model.segmentation_head[0] = _ToOneChannel(model.segmentation_head[0])
    result: nn.Module = model.to(memory_format=torch.channels_last)
    return result


class _Doubling(nn.Module):
    """smp's decoder block, with the same names and values.

    On a GPU it repeats pixels, as interpolation to the nearest does: the gradient is then a sum over 2 x 2 pixels, where
    torch.compile turns that of `interpolate` into atomic additions.
    """

    def __init__(self, block: UnetDecoderBlock) -> None:
        super().__init__()
        self.conv1, self.attention1 = block.conv1, block.attention1
        self.conv2, self.attention2 = block.conv2, block.attention2

    def forward(
        self,
        feature_map: torch.Tensor,
        target_height: int,  # noqa: ARG002 - always twice as high and wide
        target_width: int,  # noqa: ARG002
        skip_connection: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Map (N, C, H, W), and optionally a skip connection (N, S, 2H, 2W), to (N, D, 2H, 2W)."""
        # smp's own way is faster on a CPU
        x = _doubled(feature_map) if feature_map.is_cuda else F.interpolate(feature_map, scale_factor=2, mode="nearest")
        if skip_connection is not None:
            x = self.attention1(torch.cat([x, skip_connection], dim=1))
        result: torch.Tensor = self.attention2(self.conv2(self.conv1(x)))
        return result


class _ToOneChannel(nn.Module):
    """A convolution to a single channel, with the same names.

    On a GPU it uses other operations, equal but for rounding: PyTorch's own copies channels-last images to channels-first,
    because weights of one channel have no order that it could tell, which took a sixth of unet-resnet50's training step.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        assert convolution.bias is not None
        self.weight, self.bias, self.padding = convolution.weight, convolution.bias, convolution.padding

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, C, H, W) to (N, 1, H, W)."""
        return self.channels_last(x) if x.is_cuda else F.conv2d(x, self.weight, self.bias, padding=self.padding)

    def channels_last(self, x: torch.Tensor) -> torch.Tensor:
        """Compute `forward` without copies of channels-last images."""
        if self.weight.shape[2:] == (1, 1):
            return ((x * self.weight).sum(1, keepdim=True) + self.bias).to(x.dtype)
        eight = F.pad(self.weight, (0, 0, 0, 0, 0, 0, 0, 7))  # channels, the fewest that tensor cores take
        return F.conv2d(x, eight, F.pad(self.bias, (0, 7)), padding=self.padding)[:, :1]


def _doubled(x: torch.Tensor) -> torch.Tensor:
    """Map (N, C, H, W) to (N, C, 2H, 2W), channels-last, with each pixel four times."""
    n, c, h, w = x.shape
    wide = x.permute(0, 2, 3, 1)[:, :, None, :, None].expand(n, h, 2, w, 2, c)
    return wide.reshape(n, 2 * h, 2 * w, c).permute(0, 3, 1, 2)
