"""Whether a small network that learns the labels of one half of the images gives those of the other half.

What follows from the images can be learnt, what is chance cannot: labels that generalise are more likely to be of
something (the agreement of independent learners of Blum and Mitchell's co-training, 1998, taken as a measure).
"""

import torch
from torch import nn
from torch.nn import functional as F

from medsass.labels import criteria
from medsass.methods.losses import cross_entropy, tversky
from medsass.models import network

SIDE, STEPS, BATCH, WIDTH = 64, 120, 16, 16


def learnability(images: torch.Tensor, masks: torch.Tensor, seed: int = 0) -> float:
    """Mean IoU, over both halves, of a small network's masks with the labels of the half that it did not learn.

    images: as `network.normalise` takes them. masks: (N, H, W) uint8 in {0, 1}.
    """
    pixels = F.interpolate(network.normalise(images).float(), (SIDE, SIDE), mode="area")
    target = (F.interpolate(masks[:, None].float(), (SIDE, SIDE), mode="area")[:, 0] >= 0.5).byte()
    halves = torch.arange(len(pixels)) % 2
    found = [_learnt(pixels[halves == i], target[halves == i], seed)(pixels[halves != i]) > 0 for i in (0, 1)]
    truth = [target[halves != i] for i in (0, 1)]
    return float(
        torch.cat([criteria.overlap(guess[:, 0], mask) for guess, mask in zip(found, truth, strict=True)]).mean()
    )


def _learnt(pixels: torch.Tensor, target: torch.Tensor, seed: int) -> nn.Module:
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
    net.eval()

    @torch.no_grad()
    def segment(images: torch.Tensor) -> torch.Tensor:
        return torch.cat([net(images[i : i + BATCH]) for i in range(0, len(images), BATCH)])

    return segment  # type: ignore[return-value]


class Small(nn.Module):
    """A U-Net of three levels (Ronneberger et al. 2015), 0.1 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        w = WIDTH
        self.down = nn.ModuleList([_block(3, w), _block(w, 2 * w), _block(2 * w, 4 * w)])
        self.up = nn.ModuleList([_block(6 * w, 2 * w), _block(3 * w, w)])
        self.head = nn.Conv2d(w, 1, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) -> (N, 1, H, W) logits; H and W are multiples of 4."""
        x, passed = images, list[torch.Tensor]()
        for block in self.down:
            x = block(F.max_pool2d(x, 2) if passed else x)
            passed.append(x)
        for block, skip in zip(self.up, passed[-2::-1], strict=True):
            x = block(torch.cat([F.interpolate(x, scale_factor=2.0), skip], 1))
        return torch.as_tensor(self.head(x))


def _block(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )
