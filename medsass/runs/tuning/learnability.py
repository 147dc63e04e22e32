"""Learnability: how well a small network that learns the labels of one half of the images predicts those of the other half.

Labels that follow from the images can be learnt, chance cannot: labels that generalise are more likely to show real objects
(the agreement of independent learners in Blum and Mitchell's co-training, 1998, used as a measure).
"""

import torch
from torch import nn
from torch.nn import functional as F

from medsass.labels import criteria
from medsass.methods.losses import cross_entropy, tversky
from medsass.models import network

SIDE, STEPS, BATCH, WIDTH = 64, 120, 16, 16


def learnability(images: torch.Tensor, masks: torch.Tensor, seed: int = 0) -> float:
    """Return the mean IoU, over both halves, of a small network's masks with the labels of the half that it did not learn.

    Args:
        images: as `network.normalise` takes them.
        masks: (N, H, W) uint8 in {0, 1}.
        seed: of weights, batches and flips.
    """
    pixels = F.interpolate(network.normalise(images).float(), (SIDE, SIDE), mode="area")
    target = (F.interpolate(masks[:, None].float(), (SIDE, SIDE), mode="area")[:, 0] >= 0.5).byte()
    halves = torch.arange(len(pixels)) % 2
    overlaps = []
    for i in (0, 1):
        net, unseen = _learnt(pixels[halves == i], target[halves == i], seed), pixels[halves != i]
        with torch.no_grad():
            logits = torch.cat([net(unseen[start : start + BATCH]) for start in range(0, len(unseen), BATCH)])
        overlaps.append(criteria.overlap(logits[:, 0] > 0, target[halves != i]))
    return float(torch.cat(overlaps).mean())


def _learnt(pixels: torch.Tensor, target: torch.Tensor, seed: int) -> nn.Module:
    """A network trained on `pixels` (N, 3, SIDE, SIDE) and `target` (N, SIDE, SIDE), in eval mode."""
    rng = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = Small().to(pixels.device)
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, STEPS)
    for _ in range(STEPS):
        chosen = torch.randint(len(pixels), (BATCH,), generator=rng).to(pixels.device)
        flips = [axis for axis in (-1, -2) if torch.rand((), generator=rng) < 0.5]
        x, y = pixels[chosen].flip(flips), target[chosen].flip(flips)
        logits = net(x)
        optimizer.zero_grad()
        (cross_entropy(logits, y) + tversky(logits, y)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return net.eval()


class Small(nn.Module):
    """A U-Net of three levels (Ronneberger et al. 2015), 0.1 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        w = WIDTH
        self.down, self.up = (
            nn.ModuleList(
                nn.Sequential(nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU(inplace=True))
                for i, o in widths
            )
            for widths in (((3, w), (w, 2 * w), (2 * w, 4 * w)), ((6 * w, 2 * w), (3 * w, w)))
        )
        self.head = nn.Conv2d(w, 1, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return (N, 1, H, W) logits of (N, 3, H, W) images; H and W are multiples of 4."""
        x, passed = images, list[torch.Tensor]()
        for block in self.down:
            x = block(F.max_pool2d(x, 2) if passed else x)
            passed.append(x)
        for block, skip in zip(self.up, passed[-2::-1], strict=True):
            x = block(torch.cat([F.interpolate(x, scale_factor=2.0), skip], 1))
        return torch.as_tensor(self.head(x))
