"""U-Nets with a ResNet encoder, by segmentation-models-pytorch: the paper's and a small one for CPUs."""

import functools
from dataclasses import dataclass

import segmentation_models_pytorch as smp
import torch
from torch import nn

# Of ImageNet, as the field's encoders expect; any fixed shift and scale would do for training from scratch.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Shape:
    """A U-Net: smp's encoder name, and the decoder's channels from the deepest block up; depth = their number."""

    encoder: str
    decoder: tuple[int, ...]


# Appendix A.1: encoder and decoder of depth three, 256, 128 and 64 channels, attention in the decoder (scSE, as in the
# work it cites). unet-resnet18 is ours: the same shape at a fraction of the cost.
SHAPES = {"unet-resnet50": Shape("resnet50", (256, 128, 64)), "unet-resnet18": Shape("resnet18", (128, 64, 32))}


def build(name: str) -> nn.Module:
    """The untrained U-Net `name`: (N, 3, H, W) float normalised images -> (N, 1, H, W) logits, H and W multiples of 8.

    unet-resnet50: 4.5 M parameters; unet-resnet18: 1.2 M. smp builds more than it calls at depth three: the encoder's
    layer3 and layer4, and the first attention of the last decoder block, which has no skip connection. They are removed,
    so that no optimiser, checkpoint or gradient bucket carries dead weights.
    Raises `ValueError` for a name that does not exist.
    """
    if name not in SHAPES:
        raise ValueError(f"model must be one of {', '.join(SHAPES)}; got '{name}'")
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


def normalise(images: torch.Tensor) -> torch.Tensor:
    """(N, H, W, 3) uint8 RGB -> (N, 3, H, W) float32, channels-last in memory: (x / 255 - mean) / std.

    (N, H, W) uint16 gray: each image's own [min, max] is mapped to [0, 1] (0 all over where it is constant), repeated for
    three channels, then (x - mean) / std. So what the network sees does not depend on how much of the 16 bits is used.
    """
    mean, std = _constants(images.device)
    if images.dtype == torch.uint16:
        gray = images.float()  # exact, and torch finds no extremes of uint16
        low, high = gray.amin((1, 2), keepdim=True), gray.amax((1, 2), keepdim=True)
        images = ((gray - low) / (high - low).clamp_min(1) * 255).unsqueeze(-1)
    return ((images - mean) / std).permute(0, 3, 1, 2)


@functools.cache
def _constants(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and std times 255 on a device; copied there once, because each copy would wait for it."""
    return torch.tensor(_MEAN, device=device) * 255, torch.tensor(_STD, device=device) * 255


def parameters(model: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(item.numel() for item in model.parameters() if item.requires_grad)
