"""Shards -> device batches.

Which samples make a batch and what happens to them by chance are functions of seed, epoch and step (`order`, `augment`),
worked out here and not by DALI, whose readers and random operators keep their position to themselves: so a training goes
on from any step, on any number of ranks, as if it had never stopped. The bytes are read here too (`reader`), so that a
damaged shard is named. DALI does what it is good at (`pipeline`): it decodes, resizes and changes pixels, on the CPU or
on the GPU. The batch is uint8, or uint16 where the shards are; labels and normalisation follow from the augmented pixels,
so that a pseudo-label is the label of what the network sees (paper, algorithm 1).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medsass.data import dali
from medsass.data.loading import augment, cache, colour, pipeline, samples, subset, tensors
from medsass.data.loading.augment import Augment, View
from medsass.data.loading.cache import Cache
from medsass.data.loading.inputs import Maker, Portion
from medsass.data.loading.order import Order
from medsass.data.loading.pipeline import Form
from medsass.data.loading.prefetch import FailedError, Feed
from medsass.data.loading.reader import Reader
from medsass.data.shards import remote
from medsass.data.shards.manifest import Manifest

_AHEAD = 1024  # images whose files are read ahead at most, but for two batches

__all__ = ["Augment", "Batch", "Loader", "LoaderConfig", "View"]


@dataclass(frozen=True)
class LoaderConfig:
    """Which samples, in what form, for which rank. `augment` None: in stored order, resized, nothing else.

    shards: a folder, or an address: s3:// is read as it is needed, others are fetched into a cache first (`data.remote`).
    batch_size: images of a step, over all ranks and parts. parts: a step's images come in that many batches on each rank.
    more: further views of the same images, each with random changes of its own; masks go with the first view.
    fraction: share of the samples that is read, (0, 1], rounded up; of those with a mask where masks are asked for. It
        is chosen by `seed`, the same in every epoch, and a larger share holds a smaller one.
    cache: keep decoded images in the memory of the "host" or of the "device", if they take at most half of what is free
        there; batches are the same. Without a GPU both are the host.
    """

    shards: Path
    split: str
    size: int
    batch_size: int
    device: str = "cpu"  # "cpu" or "cuda"
    augment: Augment | None = None
    masks: bool = False  # also give ground truth; samples without are passed over
    info: bool = False  # also give each sample's JSON
    seed: int = 0
    rank: int = 0
    world: int = 1
    parts: int = 1
    threads: int = 0  # 0: all cores
    more: tuple[View, ...] = ()
    fraction: float = 1.0
    cache: str = "none"

    @property
    def views(self) -> tuple[View, ...]:
        """All views of an image, the first one included."""
        return (View(self.size, self.augment), *self.more)


@dataclass(frozen=True)
class Batch:
    """One step's data, or a part of it. Its tensors are its own: they may be kept.

    images: (N, size, size, 3) uint8 RGB, augmented; of 16-bit shards (N, size, size) uint16.
    masks: (N, size, size) uint8 in {0, 1}, or None where they were not asked for.
    info: each sample's JSON as a dict, or an empty list where they were not asked for.
    more: the further views of the same images in the order of `LoaderConfig.more`, each like `images` in its own size.
    keys: of each sample. share: this batch's images over all images of its step, on all ranks and in all parts.
    """

    images: torch.Tensor
    masks: torch.Tensor | None = None
    info: list[dict[str, Any]] = field(default_factory=list)
    more: tuple[torch.Tensor, ...] = ()
    keys: tuple[str, ...] = ()
    share: float = 1.0

    @property
    def views(self) -> tuple[torch.Tensor, ...]:
        """All views of the images, the first one included."""
        return (self.images, *self.more)


class Loader:
    """Batches of one split, an epoch at a time. Where a view is augmented, each epoch has another order, and every rank
    the same number of batches of the same size, for which the last step repeats samples where it must (`order.Order`);
    otherwise samples come as they are stored, each once, and a rank may have fewer batches than another.

    dataset: the shards' manifest, where the caller has read it already.
    samples: the number of those that are read. depth: 8 or 16, the bits of a channel. cache_note: what to tell the user
    of the cache: the memory that it takes, or why there is none; "" where none was asked for.
    Raises `ValueError` for a split that does not exist or is empty, for a fraction that is none, for a batch size that
    cannot be dealt out, for masks of a view that is warped, and for indices that are damaged; `ImportError` without DALI;
    `OSError` where shards at an address cannot be read. Batches raise `ValueError` or `OSError` that names the sample
    where its tar file is damaged or cannot be read.
    """

    def __init__(self, config: LoaderConfig, dataset: Manifest | None = None) -> None:
        self.config = config
        if config.masks and config.augment and config.augment.warp:
            raise ValueError("masks cannot follow Augment.warp; ask for masks or for warp, not for both")
        dataset = dataset or remote.load(config.shards)
        split = dataset.split(config.split)
        self.depth = dataset.depth
        total = split.masks if config.masks else split.samples
        if not total:
            raise ValueError(f"{config.shards}: no image of split '{config.split}' has a mask")
        self.samples = subset.size(total, config.fraction)
        shuffled = any(view.augment for view in config.views)
        self._order = Order(
            self.samples, config.batch_size, shuffled, config.seed, config.rank, config.world, config.parts
        )
        dali.import_dali()
        chosen = samples.load(config.shards, split.shards)
        if config.masks:
            chosen = chosen.take(chosen.masked)
        if self.samples < len(chosen):
            chosen = chosen.take(subset.choose(chosen.keys, self.samples, config.seed))
        self._reader = Reader(chosen)
        form = Form(config.views, self.depth, config.masks, config.device, config.threads, self._order.largest)
        room = cache.room(config.cache, split, self.samples, form, config.world)
        self.cache_note = room.note
        self._cache = Cache(form, room.where, room.needed) if room.where else None
        self._form = replace(form, held=room.where)
        self._maker = Maker(config.views, self.depth, config.masks, config.info, self._order, self._reader, self._cache)
        self._feed: Feed[Portion] | None = None
        self._passes = 0

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return self._order.steps

    def __len__(self) -> int:
        """Batches of an epoch on this rank."""
        return len(self._order)

    def __iter__(self) -> Iterator[Batch]:
        """The next epoch, from the first one on."""
        self._passes += 1
        return self.epoch(self._passes - 1)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of epoch `number`, counted from 0, on this rank, from batch `start` on. Batches that come next are
        made ready ahead, those of the next epoch too; going elsewhere starts anew.
        """
        for index in range(start, len(self)):
            yield self._batch(number * len(self) + index)

    def close(self) -> None:
        """End the threads and close the files. A later epoch would start them again."""
        if self._feed:
            self._feed.close()
        self._feed = None
        self._reader.close()

    def _batch(self, number: int) -> Batch:
        cuda = self.config.device == "cuda"
        try:
            self._feed = self._feed or self._started()
            portion, outputs = self._feed.get(number, cuda)
        except FailedError as error:
            raise self._culprit(error) from None
        found = [tensors.whole(output) for output in outputs]
        for view, changes in self._left(portion):
            found[view] = torch.from_numpy(colour.changed(found[view].numpy(), changes))
        masks = found.pop()[..., 0] if self.config.masks else None
        images, *more = (views[..., 0] for views in found) if self.depth == 16 else found
        return Batch(images, masks, portion.info, tuple(more), portion.keys, portion.share)

    def _left(self, portion: Portion) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The views whose colours DALI has left as they are, and how they change."""
        for number, numbers in portion.parameters.items():
            view = self.config.views[number]
            if self.config.device == "cpu" and colour.last(view, self.depth):
                yield number, numbers[:, augment.columns(view, self.depth)["colour0"]]

    def _started(self) -> Feed[Portion]:
        if self._cache and not self._cache.filled:
            self._cache.fill(self._reader, self._maker.encoded)
        form, ahead = self._form, max(2, min(6, _AHEAD // self._form.batch))
        return Feed(self._maker, lambda source: pipeline.build(form, source), ahead=ahead)

    def _culprit(self, error: FailedError) -> BaseException:
        """An error that names the sample on which DALI failed, else DALI's own; one of memory is torch's."""
        if "out of memory" in str(error.__cause__) or "llocation failed" in str(error.__cause__):
            return torch.OutOfMemoryError(str(error.__cause__))
        found = (portion.culprit(self._reader.samples, self.depth) for portion in error.works)
        return next(filter(None, found), None) or error.__cause__ or error
