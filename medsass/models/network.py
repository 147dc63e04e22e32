"""Build a network by its name, and prepare its input.

A network has an `encoder` and maps (N, 3, H, W) float normalised images to (N, 1, H, W) logits.
"""

import functools

import torch
from torch import nn

from medsass.models import unet, vit_unet

# Of ImageNet, as the field's encoders expect; any fixed shift and scale would do for training from scratch.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_BUILDERS = dict.fromkeys(unet.SHAPES, unet.build) | dict.fromkeys(vit_unet.SHAPES, vit_unet.build)


def build(name: str) -> nn.Module:
    """Build the untrained network `name` on the CPU, channels-last, with weights from torch's global generator.

    Raises `ValueError` for an unknown name.
    """
    if name not in _BUILDERS:
        raise ValueError(f"model must be one of {', '.join(_BUILDERS)}; got '{name}'")
    return _BUILDERS[name](name)


def normalise(images: torch.Tensor) -> torch.Tensor:
    """Map (N, H, W, 3) uint8 RGB to (N, 3, H, W) float32, channels-last in memory: (x / 255 - mean) / std.

    (N, H, W) uint16 gray: each image's own [min, max] is mapped to [0, 1] (a constant image to 0), repeated for three
    channels, then (x - mean) / std. So the network's input does not depend on how much of the 16 bits is used.
    """
    mean, std = _constants(images.device)
    if images.dtype == torch.uint16:
        gray = images.float()  # exact; torch has no amin and amax of uint16
        low, high = gray.amin((1, 2), keepdim=True), gray.amax((1, 2), keepdim=True)
        images = ((gray - low) / (high - low).clamp_min(1) * 255).unsqueeze(-1)
    return ((images - mean) / std).permute(0, 3, 1, 2)


@functools.cache
def _constants(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and std times 255, cached on the device: each copy would wait for it."""
    return torch.tensor(MEAN, device=device) * 255, torch.tensor(STD, device=device) * 255


def parameters(model: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(item.numel() for item in model.parameters() if item.requires_grad)
