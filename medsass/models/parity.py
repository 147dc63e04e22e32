"""What a run keeps, a network or an encoder alone, and how another library's copy of it is compared with it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from medsass.models import encoder

BATCHES = (1, 3)  # images of the two comparisons
TOLERANCE = 1e-4  # largest difference, relative to the largest absolute value


@dataclass(frozen=True)
class Kept:
    """What a run keeps, in evaluation mode on the CPU: the network `name`, or its encoder alone; trained at `size` pixels."""

    name: str
    size: int
    module: nn.Module
    is_encoder: bool

    @property
    def what(self) -> str:
        """What it is, and the stem of its files: "network" or "encoder"."""
        return "encoder" if self.is_encoder else "network"

    @property
    def encoder(self) -> nn.Module:
        """The encoder, of a network too."""
        return self.module if self.is_encoder else cast(nn.Module, self.module.encoder)

    @property
    def alone(self) -> "Kept":
        """The encoder, as if nothing else were kept."""
        return Kept(self.name, self.size, self.encoder, True)


class Answer(nn.Module):
    """Images (N, 3, H, W) -> a network's logits, or an encoder's feature map."""

    def __init__(self, kept: Kept) -> None:
        super().__init__()
        self.module, self.is_encoder = kept.module, kept.is_encoder

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N, 1, H, W), or features (N, C, H/8, W/8)."""
        result = encoder.feature_map(self.module, images) if self.is_encoder else self.module(images)
        return cast(torch.Tensor, result)


def compare(kept: Kept, theirs: Callable[[torch.Tensor], torch.Tensor]) -> tuple[float, float]:
    """The largest absolute difference of `theirs` from our answer, and the largest absolute value of ours.

    Raises `ValueError` where the difference is too large, or ours is not finite.
    """
    difference = scale = 0.0
    for count in BATCHES:
        images = noise(kept.size, count)
        with torch.no_grad():
            ours, other = Answer(kept)(images), theirs(images)
        if not ours.isfinite().all():
            raise ValueError(
                f"the {kept.what}'s answer is not finite: this training diverged; train again with a lower --lr"
            )
        difference = max(difference, float((ours - other).abs().nan_to_num(torch.inf).max()))
        scale = max(scale, float(ours.abs().max()))
    if difference > TOLERANCE * scale:
        raise ValueError(
            f"the exported {kept.what} answers differently from the run's (by {difference:.2g} where values reach "
            f"{scale:.2g}), so it was not written; try other versions of torch and of the library that it is for"
        )
    return difference, scale


def noise(size: int, count: int) -> torch.Tensor:
    """(count, 3, size, size) normally distributed, as normalised images roughly are."""
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(count))
