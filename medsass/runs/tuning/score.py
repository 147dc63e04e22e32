"""Scores of ways to label, on some training images without their truth: one number per criterion."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from medsass.data.loading.loader import Loader, LoaderConfig
from medsass.data.shards import remote
from medsass.data.shards.manifest import Manifest
from medsass.labels import Labeler, criteria, refine
from medsass.runs.tuning.candidates import Candidate

_BATCH = 16
_CROP = 8  # crops 1/8 from each side
_LIGHT = 128  # level
_TINT = 4.0  # levels: JPEG's rounding makes less of gray images
_GAMMA, _GAIN, _NOISE = 0.3, 0.2, 5.0  # of `relit`

# The criteria that rank. They were chosen by the rank correlation of their mean with the IoU on some 50 training images each
# of four sets (dermoscopy, X-rays, two kinds of fluorescence): other sets have to prove them. `benchmarks.tune` reports what
# they reach on these. The other criteria have no vote: separation, for one, is Otsu's own aim and cannot see its errors.
VOTES = ("crop", "contrast", "size", "frame")
_LEAST = 1e-3  # least value of a criterion, so that one alone does not decide


def glimpse(
    config: LoaderConfig, count: int, dataset: Manifest | None = None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Load about `count` images of a split, chosen by the configuration's seed: whole, without augmentation. Where the caller has
    read the manifest already, it is `dataset`.

    Returns images (N, S, S, 3) uint8 RGB or (N, S, S) uint16 and, where the configuration asks for masks, only images that
    have one, with their masks (N, S, S) uint8 in {0, 1}.
    """
    dataset = dataset or remote.load(config.shards)
    split = dataset.split(config.split)
    share = round(count / max(1, split.masks if config.masks else split.samples), 6)
    batches = list(Loader(replace(config, fraction=min(1.0, share) or 1.0), dataset))
    truth = torch.cat([batch.masks for batch in batches if batch.masks is not None]) if config.masks else None
    return torch.cat([batch.images for batch in batches]), truth


@dataclass(frozen=True)
class Judged:
    """Scores of C candidates on N images: `values` by criterion (C,) float64, their means, and `masks` (C, N, H, W) uint8."""

    candidates: Sequence[Candidate]
    values: dict[str, NDArray[np.float64]]
    masks: torch.Tensor

    @property
    def scores(self) -> NDArray[np.float64]:
        """The geometric mean of the criteria of VOTES, (C,) float64 in [0, 1]."""
        votes = np.stack([self.values[name] for name in VOTES]).clip(_LEAST)
        return np.asarray(np.exp(np.log(votes).mean(0)))


def side(images: torch.Tensor) -> str:
    """Return the foreground's side of the threshold for a whole set of `images` as for `judge`: "bright" or "dark".

    For colour images with a light ground it is dark: stain and pigment absorb light (Beer and Lambert's law) and cover most
    of many sections. For others it is the side that holds less of the images' frames on average, where pixels outside of
    the field of view count as neither.
    """
    if light(images):
        return "dark"
    step = "vignette" if images.dtype == torch.uint8 else ""
    shares = {}
    for polarity in ("bright", "dark"):
        mask = masks(Labeler(polarity=polarity, refine=step), images).float()
        frame = torch.cat([mask[:, 0], mask[:, -1], mask[:, 1:-1, 0], mask[:, 1:-1, -1]], 1)
        shares[polarity] = float(frame.mean())
    return "bright" if shares["bright"] <= shares["dark"] else "dark"


def light(images: torch.Tensor) -> bool:
    """Return whether images are in colour and have a light ground: in most of them one pixel in twenty has no channel below
    `_LIGHT`.
    """
    if not coloured(images):
        return False
    share = (images.amin(3).flatten(1) >= _LIGHT).float().mean(1)
    return float((share >= 0.05).float().mean()) > 0.5


def coloured(images: torch.Tensor) -> bool:
    """Return whether images are in colour: the channels of a pixel differ by more than `_TINT` levels on average."""
    return images.ndim == 4 and float((images.amax(3) - images.amin(3)).float().mean()) > _TINT


def judge(
    images: torch.Tensor, candidates: Sequence[Candidate], seed: int = 0, each: Callable[[], None] = lambda: None
) -> Judged:
    """Compute all criteria for each candidate: those of `looked`, `criteria.agreement`, and stability, the IoU of its masks
    with those of the images in another light (`relit`).

    Args:
        images: (N, H, W, 3) uint8 RGB, or (N, H, W) uint8 or uint16.
        candidates: the ways to label.
        seed: of the other light.
        each: called after each candidate.
    """
    other = relit(images, seed)
    values: dict[str, list[torch.Tensor]] = {}
    stacked = torch.empty((len(candidates), *images.shape[:3]), dtype=torch.uint8, device=images.device)
    for i, candidate in enumerate(candidates):
        labeler = candidate.labeler(min(images.shape[1:3]))
        stacked[i], found = looked(labeler, images)
        found["stability"] = criteria.overlap(masks(labeler, other), stacked[i])
        for name, value in found.items():
            values.setdefault(name, []).append(value)
        each()
    table = {name: torch.stack(value) for name, value in values.items()}
    table["agreement"] = torch.cat([criteria.agreement(part) for part in torch.split(stacked, _BATCH, 1)], 1)
    return Judged(candidates, {name: value.double().mean(1).cpu().numpy() for name, value in table.items()}, stacked)


def looked(labeler: Labeler, images: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return a labeler's masks (N, H, W) uint8 and, (N,) float32 each, `criteria.CRITERIA` and crop: the IoU with the masks
    of the images without their margin, which a threshold of the whole image may shift.
    """
    gray, mask = (refine.gray_of(images) if images.ndim == 4 else images).float(), masks(labeler, images)
    found = {name: criterion(gray, mask) for name, criterion in criteria.CRITERIA.items()}
    height, width = (side // _CROP for side in mask.shape[1:])
    inner = slice(None), slice(height, -height), slice(width, -width)
    found["crop"] = criteria.overlap(masks(labeler, images[inner].contiguous()), mask[inner])
    return mask, found


def relit(images: torch.Tensor, seed: int) -> torch.Tensor:
    """Return the images in another light: a random gamma per image, a random gain per channel, and noise."""
    rng = torch.Generator().manual_seed(seed)
    most = 255.0 if images.dtype == torch.uint8 else 65535.0
    pixels = images.cpu().float() / most
    pixels = pixels if images.ndim == 4 else pixels[..., None]
    count, channels = len(images), pixels.shape[-1]
    gamma = torch.exp((torch.rand(count, 1, 1, 1, generator=rng) * 2 - 1) * _GAMMA)
    gain = 1 + (torch.rand(count, 1, 1, channels, generator=rng) * 2 - 1) * _GAIN
    noise = torch.randn(pixels.shape, generator=rng) * (_NOISE / 255)
    changed = ((pixels**gamma * gain + noise).clamp(0, 1) * most).round()
    return changed.to(torch.int32).to(images.dtype).view(images.shape).to(images.device)


def masks(labeler: Labeler, images: torch.Tensor) -> torch.Tensor:
    """Label N images, some at a time: (N, H, W) uint8."""
    return torch.cat([labeler(part.contiguous()).mask for part in torch.split(images, _BATCH)])
