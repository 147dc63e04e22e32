"""A teacher that follows the network: its masks are steadier than the threshold's, and take over where they are.

The moving average of weights is Tarvainen and Valpola's (Mean teachers, 2017, section 3), with the power function's course
of Karras et al. (Analyzing and improving the training dynamics of diffusion models, 2024, section 3.1): it reaches back over
a fixed share of the steps done so far, so that it means the same in short trainings and in long ones.
"""

import copy
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import nn

from medsass.labels.criteria import overlap

GAMMA = 6.94  # of the power function: the average reaches back over some tenth of the steps so far (sigma_rel = 0.10)
BEGIN, END, MOST = 0.3, 0.8, 0.8  # progress at which the teacher begins and ends to take over, and its largest share
LEAST_AGREEMENT = (
    0.5  # IoU with the threshold's mask below which an image's teacher is not heard: it may have collapsed
)
FLIPS = ((), (-1,), (-2,), (-2, -1))


class Opinion(NamedTuple):
    """What a teacher says. logits: (N, H, W) float32. stability: (N,) float32 in [0, 1], the IoU of its masks of the image as
    it is and flipped.
    """

    logits: torch.Tensor
    stability: torch.Tensor


class Teacher(nn.Module):
    """A copy of `network` that no gradient reaches."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self.steps: torch.Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def train(self, mode: bool = True) -> "Teacher":  # noqa: ARG002
        """It always is as when it is used: batch statistics are its own."""
        return self

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> Opinion:
        """images: (N, 3, H, W), as the network sees them."""
        plain, flipped = (_flipped(self.network, images, flip) for flip in FLIPS[:2])
        return Opinion((plain + flipped) / 2, overlap(plain > 0, flipped > 0))

    @torch.no_grad()
    def follow(self, network: nn.Module) -> None:
        """Step t of the moving average, t = 1, 2, ..., with the momentum (1 - 1 / t) ** (GAMMA + 1); the first takes the
        network as it is. Batch statistics are copied.
        """
        self.steps += 1
        rate = 1 - (1 - 1 / self.steps) ** (GAMMA + 1)  # stays on the device: nothing waits for it
        ours = _list(self.network.parameters())
        change = torch._foreach_sub(_list(network.parameters()), ours)
        torch._foreach_mul_(change, rate)
        torch._foreach_add_(ours, change)
        torch._foreach_copy_(_list(self.network.buffers()), _list(network.buffers()))


def share(progress: float) -> float:
    """How much of the target a perfectly stable teacher makes up."""
    return MOST * min(1.0, max(0.0, (progress - BEGIN) / (END - BEGIN)))


def blended(mask: torch.Tensor, opinion: Opinion, most: torch.Tensor) -> torch.Tensor:
    """(N, H, W) float32 in [0, 1]: (1 - k) mask + k p, p the teacher's `aligned` probability, of each image with
    k = most * stability, or 0 where the teacher's mask overlaps with `mask` by less than LEAST_AGREEMENT. mask: (N, H, W)
    uint8. most: 0-dimensional.
    """
    probability = aligned(opinion.logits, mask)
    agrees = overlap(probability > 0.5, mask > 0) >= LEAST_AGREEMENT
    k = (most * opinion.stability * agrees)[:, None, None]
    return torch.lerp(mask.float(), probability, k)


def aligned(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(N, H, W) float32 probabilities, shifted so that as many pixels of these images are above 1/2 as `mask` holds.

    A loss that counts misses more than false alarms makes masks that are too large, and a network that learns from its own
    would make them larger and larger. So the teacher says where, and the threshold how much (distribution alignment:
    Berthelot et al., ReMixMatch, 2020, section 3.1). Where processes or --accumulate share a batch, each aligns its own part.
    """
    ordered = logits.flatten().sort(descending=True).values
    count = mask.sum(dtype=torch.int64)
    last = ordered[(count - 1).clamp_min(0)[None]]
    next_ = ordered[count.clamp_max(len(ordered) - 1)[None]]
    return torch.sigmoid(logits - (last + next_) / 2)


def averaged(segment: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """`segment`, (N, 3, H, W) to (N, 1, H, W) logits, as the mean of its probabilities over the four flips of the image."""

    def mean(images: torch.Tensor) -> torch.Tensor:
        found = [torch.sigmoid(_flipped(segment, images, flip)) for flip in FLIPS]
        return torch.logit(torch.stack(found).mean(0), eps=1e-6)[:, None]

    return mean


def _flipped(
    segment: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, flip: tuple[int, ...]
) -> torch.Tensor:
    """(N, H, W) float32 logits of the images flipped, flipped back."""
    if not flip:
        return segment(images)[:, 0].float()
    return segment(images.flip(flip).contiguous(memory_format=torch.channels_last))[:, 0].float().flip(flip)


def _list(tensors: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    return list(tensors)
