"""Average a network's answers over flips of the image."""

from collections.abc import Callable

import torch

FLIPS = ((), (-1,), (-2,), (-2, -1))

Segment = Callable[[torch.Tensor], torch.Tensor]  # (N, 3, H, W) images -> (N, 1, H, W) logits


def averaged(segment: Segment) -> Segment:
    """Return `segment` with its probabilities averaged over the four flips of the image."""

    def mean(images: torch.Tensor) -> torch.Tensor:
        found = [torch.sigmoid(flipped(segment, images, flip)) for flip in FLIPS]
        return torch.logit(torch.stack(found).mean(0), eps=1e-6)[:, None]

    return mean


def flipped(segment: Segment, images: torch.Tensor, flip: tuple[int, ...]) -> torch.Tensor:
    """Return the logits, (N, H, W) float32, of the images flipped along the axes `flip`, flipped back."""
    if not flip:
        return segment(images)[:, 0].float()
    return segment(images.flip(flip).contiguous(memory_format=torch.channels_last))[:, 0].float().flip(flip)
