"""Compare a run's model with another library's copy of it."""

from collections.abc import Callable
from typing import cast

import torch
from torch import nn

from medsass.models import encoder

BATCHES = (1, 3)  # images of the two comparisons
TOLERANCE = 1e-4  # largest difference, relative to the largest absolute value


class RunModel(nn.Module):
    """The model that a run stores, in evaluation mode on the CPU: a network or an encoder alone.

    Called with images (N, 3, H, W) it gives a network's logits (N, 1, H, W), or an encoder's feature map (N, C, H/8, W/8).

    Attributes:
        name: the network's.
        size: side in pixels of the images that it was trained on.
        module: the network, or, if `is_encoder`, its encoder.
        kind: "network" or "encoder", also the stem of its files.
    """

    def __init__(self, name: str, size: int, module: nn.Module, is_encoder: bool) -> None:
        super().__init__()
        self.name, self.size, self.module, self.is_encoder = name, size, module, is_encoder
        self.kind = "encoder" if is_encoder else "network"
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits or the feature map of normalised images."""
        result = encoder.feature_map(self.module, images) if self.is_encoder else self.module(images)
        return cast(torch.Tensor, result)

    @property
    def encoder(self) -> nn.Module:
        """The encoder, also of a network."""
        return self.module if self.is_encoder else cast(nn.Module, self.module.encoder)

    def encoder_only(self) -> "RunModel":
        """Return the model that the run would have stored with its encoder alone."""
        return RunModel(self.name, self.size, self.encoder, True)


def compare(model: RunModel, theirs: Callable[[torch.Tensor], torch.Tensor]) -> tuple[float, float]:
    """Return the largest absolute difference of `theirs` from our output, and the largest absolute value of ours.

    Raises `ValueError` if the difference is too large, or ours is not finite.
    """
    difference = scale = 0.0
    for count in BATCHES:
        images = noise(model.size, count)
        with torch.no_grad():
            ours, other = model(images), theirs(images)
        if not ours.isfinite().all():
            raise ValueError(
                f"the {model.kind}'s answer is not finite: this training diverged; train again with a lower --lr"
            )
        difference = max(difference, float((ours - other).abs().nan_to_num(torch.inf).max()))
        scale = max(scale, float(ours.abs().max()))
    if difference > TOLERANCE * scale:
        raise ValueError(
            f"the exported {model.kind} answers differently from the run's (by {difference:.2g} where values reach "
            f"{scale:.2g}), so it was not written; try other versions of torch and of the library that it is for"
        )
    return difference, scale


def noise(size: int, count: int) -> torch.Tensor:
    """Return (count, 3, size, size) normally distributed values, which normalised images roughly are."""
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(count))
