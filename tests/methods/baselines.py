"""Small baselines, fixed batches and the encoders' input, for several tests."""

from pathlib import Path

import torch

from medsass.config import TrainConfig
from medsass.data.loading.loader import Batch
from medsass.methods import method
from medsass.methods.method import Method

KINDS = [
    ("byol", "unet-resnet18"),
    ("simsiam", "unet-resnet18"),
    ("dino", "unet-resnet18"),
    ("dino", "unet-vit-tiny"),
    ("mae", "unet-vit-tiny"),
    ("simmim", "unet-vit-tiny"),
]
# Module constants that make heads and batches small.
SMALL = {
    "medsass.methods.byol._HIDDEN": 64,
    "medsass.methods.simsiam._OUT": 64,
    "medsass.methods.simsiam._BOTTLENECK": 16,
    "medsass.methods.dino._OUT": 32,
    "medsass.methods.dino._LOCAL": 2,
}


def made(name: str, model: str, seed: int = 0, **options: object) -> Method:
    """Build a method in training mode, with weights from the seed."""
    torch.manual_seed(seed)
    config = TrainConfig(Path("shards"), Path("run"), method=name, model=model, **{"size": 32, **options})  # type: ignore[arg-type]
    return method.make(config, "bright")


def batch(chosen: Method, count: int = 4, depth: int = 8, seed: int = 0) -> Batch:
    """Draw pixels for each of the method's views."""
    generator = torch.Generator().manual_seed(seed)
    images = []
    for view in chosen.views:
        shape = (count, view.size, view.size, 3) if depth == 8 else (count, view.size, view.size)
        values = torch.randint(0, 2**depth, shape, generator=generator)
        images.append(values.to(torch.uint8 if depth == 8 else torch.uint16))
    return Batch(images[0], more=tuple(images[1:]))


def normalised(images: torch.Tensor) -> torch.Tensor:
    """Map (N, H, W, 3) uint8 to (N, 3, H, W) by ImageNet's mean and deviation."""
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return ((images / 255 - mean) / deviation).permute(0, 3, 1, 2)


def disturbed(module: torch.nn.Module, seed: int = 1) -> None:
    """Change all parameters a little, so that a copy differs from its original."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for item in module.parameters():
            item += 0.05 * torch.randn(item.shape, generator=generator)


def patches(images: torch.Tensor, side: int = 8) -> torch.Tensor:
    """Map (N, 3, H, W) to (N, patches, side * side * 3): row by row, each patch as pixels of three channels."""
    rows = [
        images[:, :, y : y + side, x : x + side].permute(0, 2, 3, 1).flatten(1)
        for y in range(0, images.shape[2], side)
        for x in range(0, images.shape[3], side)
    ]
    return torch.stack(rows, 1)
