"""Shards -> device batches.

The samples of a batch and their random changes are functions of seed, epoch and step (`order`, `augment`), computed here
and not by DALI, whose readers and random operators hide their position: so a training resumes from any step, on any number
of ranks, as if it had never stopped. The bytes are read here too (`reader`), so that an error names the damaged shard.
DALI does what it is good at (`pipeline`): it decodes, resizes and changes pixels, on the CPU or on the GPU. The batch is
uint8, or uint16 where the shards are; labels and normalisation follow from the augmented pixels, so that a pseudo-label is
the label of what the network sees (paper, algorithm 1).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils import dlpack

from medsass.data import dali
from medsass.data.loading import augment, cache, colour, order, pipeline, samples
from medsass.data.loading.augment import Augment, View
from medsass.data.loading.cache import Cache
from medsass.data.loading.inputs import InputBuilder, Inputs
from medsass.data.loading.order import Order
from medsass.data.loading.pipeline import PipelineConfig
from medsass.data.loading.prefetch import PipelineError, Prefetcher
from medsass.data.loading.reader import Reader
from medsass.data.shards import remote
from medsass.data.shards.manifest import Manifest

_AHEAD = 1024  # most images whose files are read ahead, unless two batches are more

__all__ = ["Augment", "Batch", "Loader", "LoaderConfig", "View"]


@dataclass(frozen=True)
class LoaderConfig:
    """The samples of a loader, their form and their rank.

    Args:
        shards: A folder, or an address: s3:// is read on demand, others are first fetched into a cache (`remote`).
        split: Name of the split.
        size: Pixels a side of the first view.
        batch_size: Images of a step, over all ranks and micro-batches.
        device: "cpu" or "cuda".
        augment: Random changes of the first view; None for samples in stored order, only resized.
        masks: Also give ground truth; samples without a mask are skipped.
        info: Also give each sample's JSON.
        micro_batches: Batches into which each rank's images of a step are divided (`--accumulate`).
        threads: CPU threads; 0 for all cores.
        more: Further views of the same images, each with its own random changes; masks go with the first view.
        fraction: Share of the samples that is read, (0, 1], rounded up; of those with a mask if `masks`. It is chosen by
            `seed`, the same in every epoch, and a larger share holds a smaller one.
        cache: "host" or "device" keeps decoded images in that memory if they take at most half of what is free there;
            batches are the same. Without a GPU both are the host. "none" keeps nothing.
    """

    shards: Path
    split: str
    size: int
    batch_size: int
    device: str = "cpu"
    augment: Augment | None = None
    masks: bool = False
    info: bool = False
    seed: int = 0
    rank: int = 0
    world: int = 1
    micro_batches: int = 1
    threads: int = 0
    more: tuple[View, ...] = ()
    fraction: float = 1.0
    cache: str = "none"

    @property
    def views(self) -> tuple[View, ...]:
        """All views of an image, the first one included."""
        return (View(self.size, self.augment), *self.more)


@dataclass(frozen=True)
class Batch:
    """The data of a step, or of one of its micro-batches. Its tensors are its own: they may be kept.

    Args:
        images: (N, size, size, 3) uint8 RGB, augmented; (N, size, size) uint16 from 16-bit shards.
        masks: (N, size, size) uint8 in {0, 1}, or None if not requested.
        info: JSON of each sample as a dict; empty if not requested.
        more: The further views in the order of `LoaderConfig.more`, each like `images` in its own size.
        keys: Keys of the samples.
        share: Images of this batch over all images of its step, on all ranks and in all micro-batches.
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
    """Batches of one split, an epoch at a time.

    Where a view is augmented, each epoch has its own order, and every rank the same number of batches of the same size;
    the last step repeats samples if needed (`order.Order`). Otherwise samples come in stored order, each once, and a rank
    may have fewer batches than another. Batches raise `ValueError` or `OSError` that names the sample where its tar file
    is damaged or cannot be read.

    Args:
        config: The samples, their form and their rank.
        dataset: The shards' manifest, if the caller has already read it.

    Attributes:
        samples: Number of samples that are read.
        depth: Bits a channel, 8 or 16.
        cache_note: Memory that the cache takes, or why there is no cache, for the user; "" if none was requested.

    Raises:
        ValueError: The split does not exist or is empty, the fraction is out of range, the batch size cannot be divided,
            masks are requested of a view that is warped, or an index is damaged.
        ImportError: DALI is not installed.
        OSError: Shards at an address cannot be read.
    """

    def __init__(self, config: LoaderConfig, dataset: Manifest | None = None) -> None:
        c = self.config = config
        if c.masks and c.augment and c.augment.warp:
            raise ValueError("masks cannot follow Augment.warp; ask for masks or for warp, not for both")
        dataset = dataset or remote.load(c.shards)
        split = dataset.split(c.split)
        self.depth = dataset.options.depth
        total = split.masks if c.masks else split.samples
        if not total:
            raise ValueError(f"{c.shards}: no image of split '{c.split}' has a mask; shard it anew with --masks")
        self.samples = order.subset_size(total, c.fraction)
        shuffled = any(view.augment for view in c.views)
        self._order = Order(self.samples, c.batch_size, shuffled, c.seed, c.rank, c.world, c.micro_batches)
        dali.import_dali()
        chosen = samples.load(c.shards, split.shards)
        if c.masks:
            chosen = chosen.take(chosen.spans["mask.png"][:, 1] >= 0)
        if self.samples < len(chosen):
            chosen = chosen.take(order.subset(chosen.keys, self.samples, c.seed))
        self._reader = Reader(chosen)
        form = PipelineConfig(c.views, self.depth, c.masks, c.device, c.threads, self._order.largest)
        plan = cache.plan(c.cache, split, self.samples, form, c.world)
        self.cache_note = plan.note
        self._cache = Cache(form, plan.where, plan.needed) if plan.where else None
        self._pipeline = replace(form, cached=plan.where)
        self._inputs = InputBuilder(self._pipeline, self._order, self._reader, self._cache, c.info)
        self._prefetcher: Prefetcher[Inputs] | None = None
        self._passes = 0

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return self._order.steps

    def __len__(self) -> int:
        """Return the number of batches of an epoch on this rank."""
        return len(self._order)

    def __iter__(self) -> Iterator[Batch]:
        """Return the next epoch, from the first one on."""
        self._passes += 1
        return self.epoch(self._passes - 1)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Return the batches of epoch `number`, counted from 0, on this rank, from batch `start` on.

        The batches that come next are prepared ahead, also across epochs; any other batch restarts the prefetching.
        """
        for index in range(start, len(self)):
            yield self._batch(number * len(self) + index)

    def close(self) -> None:
        """Stop the threads and close the files. A later epoch would start them again."""
        if self._prefetcher:
            self._prefetcher.close()
        self._prefetcher = None
        self._reader.close()

    def _batch(self, number: int) -> Batch:
        """Return batch `number`, counted through all epochs."""
        cuda = self.config.device == "cuda"
        try:
            if not self._prefetcher:
                if self._cache and not self._cache.filled:
                    self._cache.fill(self._reader, self._inputs.encoded)
                build, ahead = partial(pipeline.build, self._pipeline), max(2, min(6, _AHEAD // self._pipeline.batch))
                self._prefetcher = Prefetcher(self._inputs, build, ahead=ahead)
            inputs, outputs = self._prefetcher.get(number, cuda)
        except PipelineError as error:
            raise self._reason(error) from None
        found = [dlpack.from_dlpack(output.as_tensor()) for output in outputs]
        for index, parameters in inputs.parameters.items():
            view = self.config.views[index]
            if not cuda and colour.is_last(view, self.depth):  # then the pipeline has not changed its colours
                changes = parameters[:, augment.columns(view, self.depth)["colour0"]]
                found[index] = torch.from_numpy(colour.apply(found[index].numpy(), changes))
        masks = found.pop()[..., 0] if self.config.masks else None
        images, *more = (views[..., 0] for views in found) if self.depth == 16 else found
        return Batch(images, masks, inputs.info, tuple(more), inputs.keys, inputs.share)

    def _reason(self, error: PipelineError) -> BaseException:
        """Return an error that names the sample on which DALI failed, else DALI's own; torch's if memory ran out."""
        if "out of memory" in str(error.__cause__) or "llocation failed" in str(error.__cause__):
            kind = torch.OutOfMemoryError if self.config.device == "cuda" else MemoryError
            return kind(str(error.__cause__))
        for item in (item for inputs in error.batches for item in inputs.encoded):
            try:
                for what, depth in (("image", self.depth), ("mask.png", 1)):
                    if what in item.files:
                        dali.decode(item.files[what], depth)
            except ValueError as failure:
                return self._reader.samples.damaged(item.number, str(failure))
        return error.__cause__ or error
