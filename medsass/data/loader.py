"""DALI: shards -> device batches. One pipeline definition serves the CPU and the GPU.

Decoding, resizing and the random changes of `augment` are DALI operators on the batch. Crop, flip and resize are one
operator, a resize from a region of interest whose ends are swapped where the image is flipped: each pixel is resampled
once, with antialiasing, and image and mask take the same region. An image of which a batch holds several views is
decoded once. The batch is uint8, or uint16 where the shards are; labels and normalisation follow from the augmented
pixels, so that a pseudo-label is the label of what the network sees (paper, algorithm 1).
"""

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from medsass.data import augment, decoder, remote, subset, tar
from medsass.data.augment import Augment, View
from medsass.data.decoder import import_dali

# Encoded samples; shards are stored in hashed order, so this is a second shuffle, not the only one. DALI fills it before
# the first batch, from a split that has fewer samples by reading it again and again.
_SHUFFLE_BUFFER = 2048
_DECODE_DEVICE = {"cpu": "cpu", "cuda": "mixed"}

__all__ = ["Augment", "Batch", "Loader", "LoaderConfig", "View"]


@dataclass(frozen=True)
class LoaderConfig:
    """Which samples, in what form, for which rank. `augment` None: in stored order, resized, nothing else.

    shards: a folder, or an address: DALI streams from s3://, others are fetched into a cache first (`data.remote`).
    more: further views of the same images, each with random changes of its own; masks go with the first view.
    fraction: share of the samples that is read, (0, 1], rounded up; of those with a mask where masks are asked for. It
        is chosen by `seed`, the same in every epoch, and a larger share holds a smaller one.
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
    threads: int = 0  # 0: all cores
    more: tuple[View, ...] = ()
    fraction: float = 1.0

    @property
    def views(self) -> tuple[View, ...]:
        """All views of an image, the first one included."""
        return (View(self.size, self.augment), *self.more)


@dataclass(frozen=True)
class Batch:
    """One step's data.

    images: (N, size, size, 3) uint8 RGB, augmented; of 16-bit shards (N, size, size) uint16.
    masks: (N, size, size) uint8 in {0, 1}, or None where they were not asked for.
    info: each sample's JSON as a dict, or an empty list where they were not asked for.
    more: the further views of the same images in the order of `LoaderConfig.more`, each like `images` in its own size.
    """

    images: torch.Tensor
    masks: torch.Tensor | None = None
    info: list[dict[str, Any]] = field(default_factory=list)
    more: tuple[torch.Tensor, ...] = ()

    @property
    def views(self) -> tuple[torch.Tensor, ...]:
        """All views of the images, the first one included."""
        return (self.images, *self.more)


class Loader:
    """Iterates over one split, an epoch at a time; each epoch in another order, the same for the same seed.

    The last batch is smaller where the batch size does not divide the number of samples. With several ranks every rank
    gets the same number of batches and each sample is seen by one rank, but for the few repeated to even them out.
    `state()` between epochs can be given to a new loader as `state`: it goes on as the old one would have.
    `samples` is the number of those that are read, `depth` 8 or 16, the bits of a channel.
    Raises `ValueError` for a split that does not exist or is empty, for a fraction that is none, and for masks of a
    view that is warped; `ImportError` without DALI; `OSError` where shards at an address cannot be read.
    """

    def __init__(self, config: LoaderConfig, state: bytes | None = None) -> None:
        self.config = config
        if config.masks and config.augment and config.augment.warp:
            raise ValueError("masks cannot follow Augment.warp; ask for masks or for warp, not for both")
        dataset = remote.load(config.shards)
        split = dataset.split(config.split)
        self.depth = dataset.depth
        samples = split.masks if config.masks else split.samples
        if not samples:
            raise ValueError(f"{config.shards}: no image of split '{config.split}' has a mask")
        self.samples = subset.size(samples, config.fraction)
        plugin = import_dali("nvidia.dali.plugin.pytorch")
        policy = import_dali("nvidia.dali.plugin.base_iterator").LastBatchPolicy
        self._more = [f"more{number}" for number in range(len(config.more))]
        outputs = ["images", *self._more] + ["masks"] * config.masks + ["info"] * config.info
        tars = remote.tars(config.shards, split.shards)
        indices = [subset.index_of(path) for path in tars]
        with remote.one_line(config.shards), tempfile.TemporaryDirectory(prefix="medsass-") as folder:
            if self.samples < samples:
                tars, indices = subset.write(Path(folder), tars, self.samples, config.seed, config.masks)
            self._iterator = plugin.DALIGenericIterator(
                [_pipeline(config, _Source(tars, indices, self.samples, self.depth), state)],
                outputs,
                reader_name="reader",
                last_batch_policy=policy.PARTIAL,
                auto_reset=True,
            )

    def __len__(self) -> int:
        """Batches an epoch on this rank."""
        return len(self._iterator)

    def __iter__(self) -> Iterator[Batch]:
        iterator = iter(self._iterator)
        while outputs := self._next(iterator):
            images, *more = (self._pixels(outputs[name]) for name in ["images", *self._more])
            masks = outputs["masks"][..., 0] if self.config.masks else None
            yield Batch(images, masks, [_parse(row) for row in outputs.get("info", ())], tuple(more))

    def _pixels(self, images: torch.Tensor) -> torch.Tensor:
        return images[..., 0].view(torch.uint16) if self.depth == 16 else images

    def _next(self, iterator: Iterator[Any]) -> dict[str, Any]:
        """DALI's next outputs by name; none after the last batch of an epoch."""
        with remote.one_line(self.config.shards):
            (outputs,) = next(iterator, ({},))
        return dict(outputs)

    def state(self) -> bytes:
        """The loader's position, to be called between epochs."""
        (checkpoint,) = self._iterator.checkpoints()
        return bytes(checkpoint)


@dataclass(frozen=True)
class _Source:
    """Tar files, the index of each, how many samples these name, and the bits of a channel."""

    tars: Sequence[str]
    indices: Sequence[str]
    samples: int
    depth: int


def _pipeline(config: LoaderConfig, source: _Source, state: bytes | None) -> Any:
    dali, fn, types = import_dali(), import_dali("nvidia.dali.fn"), import_dali("nvidia.dali.types")

    @dali.pipeline_def  # type: ignore[untyped-decorator]
    def define() -> tuple[Any, ...]:
        shuffled = any(view.augment for view in config.views)
        components = [";".join(tar.IMAGES)] + ["mask.png"] * config.masks + ["json"] * config.info
        encoded, *others = _as_list(
            fn.readers.webdataset(
                name="reader",
                paths=list(source.tars),
                index_paths=list(source.indices),
                ext=components,
                missing_component_behavior="skip",
                random_shuffle=shuffled,
                shuffle_after_epoch=shuffled,
                initial_fill=min(source.samples, _SHUFFLE_BUFFER),
                shard_id=config.rank,
                num_shards=config.world,
                pad_last_batch=True,
            )
        )
        regions = [_region(encoded, view) for view in config.views]
        decoded = fn.decoders.image(encoded, device=_DECODE_DEVICE[config.device], **decoder.options(source.depth))
        outputs = []
        for view, region in zip(config.views, regions, strict=True):
            images = fn.resize(decoded, interp_type=types.INTERP_LINEAR, antialias=True, **region)
            images = augment.change(images, view, source.depth)
            # DALI's iterator has no name for torch's uint16: the same bits go as int16
            outputs.append(fn.reinterpret(images, dtype=types.INT16) if source.depth == 16 else images)
        if config.masks:
            masks = fn.decoders.image(others.pop(0), device="cpu", output_type=types.GRAY)
            masks = fn.resize(masks, interp_type=types.INTERP_NN, **regions[0])
            masks = fn.cast(masks > 127, dtype=types.UINT8)
            outputs.append(masks.gpu() if config.device == "cuda" else masks)
        if config.info:
            outputs.append(fn.pad(others.pop(0)))  # zeros behind the text make the batch rectangular
        return tuple(outputs)

    pipeline = define(
        batch_size=config.batch_size,
        num_threads=config.threads or os.cpu_count(),
        device_id=torch.cuda.current_device() if config.device == "cuda" else None,
        seed=config.seed,
        enable_checkpointing=True,
        checkpoint=state,
        prefetch_queue_depth=2,
    )
    pipeline.build()
    return pipeline


def _region(encoded: Any, view: View) -> dict[str, Any]:
    """The resize's arguments that make the view of an image file."""
    begin, end = augment.region(encoded, view.augment)
    return {"roi_start": begin, "roi_end": end, "roi_relative": True, "size": [view.size, view.size]}


def _as_list(outputs: Any) -> list[Any]:
    return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]


def _parse(row: torch.Tensor) -> dict[str, Any]:
    return dict(json.loads(bytes(row.numpy()).rstrip(b"\0")))
