"""U-Nets with a ResNet encoder, by segmentation-models-pytorch: the paper's and a small one for CPUs."""

from dataclasses import dataclass

import segmentation_models_pytorch as smp
import torch
from torch import nn


@dataclass(frozen=True)
class Shape:
    """A U-Net: smp's encoder name, and the decoder's channels from the deepest block up; depth = their number."""

    encoder: str
    decoder: tuple[int, ...]


# Appendix A.1: encoder and decoder of depth three, 256, 128 and 64 channels, attention in the decoder (scSE, as in the
# work it cites). unet-resnet18 is ours: the same shape at a fraction of the cost.
SHAPES = {"unet-resnet50": Shape("resnet50", (256, 128, 64)), "unet-resnet18": Shape("resnet18", (128, 64, 32))}


def build(name: str) -> nn.Module:
    """The untrained U-Net `name` of `SHAPES`: (N, 3, H, W) float normalised images -> (N, 1, H, W) logits, H and W multiples of 8.

    unet-resnet50: 4.5 M parameters; unet-resnet18: 1.2 M. smp builds more than it calls at depth three: the encoder's
    layer3 and layer4, and the first attention of the last decoder block, which has no skip connection. They are removed,
    so that no optimiser, checkpoint or gradient bucket carries dead weights.
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
    result: nn.Module = model.to(memory_format=torch.channels_last)
    return result
