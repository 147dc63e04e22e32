"""Some training images, as `tune` and the warnings of `train` look at them: whole, without augmentation."""

from pathlib import Path

import torch

from medsass.data.loading.loader import Loader, LoaderConfig
from medsass.data.shards import remote
from medsass.data.shards.manifest import Manifest

_BATCH = 16


def glimpse(
    shards: Path, count: int, size: int, where: str, seed: int = 0, threads: int = 0, masks: bool = False,
    dataset: Manifest | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:  # fmt: skip
    """About `count` images of the training split, chosen by `seed`: (N, size, size, 3) uint8 RGB or (N, size, size) uint16.
    With `masks`, of those that have one, and their masks too: (N, size, size) uint8 in {0, 1}. dataset: the shards' manifest,
    where the caller has read it already.
    """
    dataset = dataset or remote.load(shards)
    split = dataset.split("train")
    total = split.masks if masks else split.samples
    share = min(1.0, round(count / max(1, total), 6)) or 1.0
    config = LoaderConfig(shards, "train", size, _BATCH, where, masks=masks, seed=seed, threads=threads, fraction=share)
    batches = list(Loader(config, dataset))
    truth = torch.cat([batch.masks for batch in batches if batch.masks is not None]) if masks else None
    return torch.cat([batch.images for batch in batches]), truth
