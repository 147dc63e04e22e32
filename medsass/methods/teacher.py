"""A teacher, which is a moving average of the network: where its masks are stable they replace the threshold's.

The moving average of weights is Tarvainen and Valpola's (Mean teachers, 2017, section 3), with the power function schedule
of Karras et al. (Analyzing and improving the training dynamics of diffusion models, 2024, section 3.1): it reaches back over
a fixed share of the steps done so far, so that it means the same in short and in long trainings.
"""

import copy

import torch
from torch import nn

from medsass.labels.criteria import overlap
from medsass.models.flips import FLIPS, flipped

GAMMA = 6.94  # of the power function: it reaches back over about a tenth of the steps so far (sigma_rel = 0.10)
BEGIN, END, MOST = 0.3, 0.8, 0.8  # progress at which the teacher's share starts and stops growing; its largest share
# IoU with the threshold's mask below which the teacher is ignored for an image: it may have collapsed.
LEAST_AGREEMENT = 0.5


class Teacher(nn.Module):
    """A copy of `network` that no gradient reaches."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self.steps: torch.Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def train(self, mode: bool = True) -> "Teacher":  # noqa: ARG002
        """Stay in eval mode always: batch statistics are its own."""
        return self

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map the network's input (N, 3, H, W) to logits (N, H, W) float32 and their stability (N,) float32 in [0, 1].

        Stability is the IoU of the masks of the image and the flipped image.
        """
        plain, other = (flipped(self.network, images, flip) for flip in FLIPS[:2])
        return (plain + other) / 2, overlap(plain > 0, other > 0)

    @torch.no_grad()
    def follow(self, network: nn.Module) -> None:
        """Do step t = 1, 2, ... of the moving average, with the momentum (1 - 1 / t) ** (GAMMA + 1).

        The first step copies the network. Batch statistics are always copied.
        """
        self.steps += 1
        rate = 1 - (1 - 1 / self.steps) ** (GAMMA + 1)  # stays on the device: nothing waits for it
        ours = tuple(self.network.parameters())
        change = torch._foreach_sub(tuple(network.parameters()), ours)
        torch._foreach_mul_(change, rate)
        torch._foreach_add_(ours, change)
        torch._foreach_copy_(tuple(self.network.buffers()), tuple(network.buffers()))


def share(progress: float) -> float:
    """Return the share of the target that a perfectly stable teacher makes up."""
    return MOST * min(1.0, max(0.0, (progress - BEGIN) / (END - BEGIN)))


def blended(mask: torch.Tensor, logits: torch.Tensor, stability: torch.Tensor, most: torch.Tensor) -> torch.Tensor:
    """Blend the threshold's mask with the teacher's `aligned` probability p: (1 - k) mask + k p, (N, H, W) float32 in [0, 1].

    For each image k = most * stability, or 0 if the teacher's mask overlaps with `mask`, (N, H, W) uint8 in {0, 1}, by less
    than LEAST_AGREEMENT. `most` is the teacher's `share`, 0-dimensional.
    """
    probability = aligned(logits, mask)
    agrees = overlap(probability > 0.5, mask > 0) >= LEAST_AGREEMENT
    k = (most * stability * agrees)[:, None, None]
    return torch.lerp(mask.float(), probability, k)


def aligned(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return (N, H, W) float32 probabilities, shifted so that as many pixels of the batch are above 1/2 as `mask` holds.

    A loss that counts misses more than false alarms makes masks that are too large, and a network that learns from its own
    masks would make them larger and larger. So the teacher decides where the foreground is, and the threshold how much of
    it there is (distribution alignment: Berthelot et al., ReMixMatch, 2020, section 3.1). Where a batch is divided among
    processes or into micro-batches (--accumulate), each aligns its own images.
    """
    ordered = logits.flatten().sort(descending=True).values
    count = mask.sum(dtype=torch.int64)
    last = ordered[(count - 1).clamp_min(0)[None]]
    next_ = ordered[count.clamp_max(len(ordered) - 1)[None]]
    return torch.sigmoid(logits - (last + next_) / 2)
