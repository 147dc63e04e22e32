"""DALI: shards -> device batches. One pipeline definition serves the CPU and the GPU.

Decoding, cropping, flipping, resizing and colour jitter are DALI operators on the batch. Crop, flip and resize are one
operator, a resize from a region of interest whose ends are swapped where the image is flipped: each pixel is resampled
once, with antialiasing, and image and mask take the same region. The batch is uint8, or uint16 where the shards are;
labels and normalisation follow from the augmented pixels, so that a pseudo-label is the label of what the network sees
(paper, algorithm 1).
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from medsass.data import decoder, remote, tar
from medsass.data.decoder import import_dali

# Encoded samples; shards are stored in hashed order, so this is a second shuffle, not the only one. DALI fills it before
# the first batch, from a split that has fewer samples by reading it again and again.
_SHUFFLE_BUFFER = 2048
_DECODE_DEVICE = {"cpu": "cpu", "cuda": "mixed"}


@dataclass(frozen=True)
class Augment:
    """Random changes of a training image; the paper's list (appendix D) without its two perspective warps.

    crop: smallest share of each side that a random resized crop keeps, (0, 1]; the two sides are drawn apart, so the
        aspect ratio varies too. flip: horizontal and vertical, each with probability 1/2.
    jitter: brightness, contrast and saturation are scaled by 1 +- jitter. hue: turned by +- that many degrees. 16-bit
        images have neither saturation nor hue; their contrast is scaled about their own mean.
    """

    crop: float = 0.6
    flip: bool = True
    jitter: float = 0.2
    hue: float = 6.0


@dataclass(frozen=True)
class LoaderConfig:
    """Which samples, in what form, for which rank. `augment` None: in stored order, resized, nothing else.

    shards: a folder, or an address: DALI streams from s3://, others are fetched into a cache first (`data.remote`).
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


@dataclass(frozen=True)
class Batch:
    """One step's data.

    images: (N, size, size, 3) uint8 RGB, augmented; of 16-bit shards (N, size, size) uint16.
    masks: (N, size, size) uint8 in {0, 1}, or None where they were not asked for.
    info: each sample's JSON as a dict, or an empty list where they were not asked for.
    """

    images: torch.Tensor
    masks: torch.Tensor | None = None
    info: list[dict[str, Any]] = field(default_factory=list)


class Loader:
    """Iterates over one split, an epoch at a time; each epoch in another order, the same for the same seed.

    The last batch is smaller where the batch size does not divide the number of samples. With several ranks every rank
    gets the same number of batches and each sample is seen by one rank, but for the few repeated to even them out.
    `state()` between epochs can be given to a new loader as `state`: it goes on as the old one would have.
    `samples` is their number, `depth` 8 or 16, the bits of a channel.
    Raises `ValueError` for a split that does not exist or is empty, `ImportError` without DALI, `OSError` where shards
    at an address cannot be read.
    """

    def __init__(self, config: LoaderConfig, state: bytes | None = None) -> None:
        self.config = config
        dataset = remote.load(config.shards)
        split = dataset.split(config.split)
        self.depth = dataset.depth
        self.samples = split.masks if config.masks else split.samples
        if not self.samples:
            raise ValueError(f"{config.shards}: no image of split '{config.split}' has a mask")
        plugin = import_dali("nvidia.dali.plugin.pytorch")
        policy = import_dali("nvidia.dali.plugin.base_iterator").LastBatchPolicy
        outputs = ["images"] + ["masks"] * config.masks + ["info"] * config.info
        paths = remote.tars(config.shards, split.shards)
        with remote.one_line(config.shards):
            self._iterator = plugin.DALIGenericIterator(
                [_pipeline(config, paths, self.depth, min(self.samples, _SHUFFLE_BUFFER), state)],
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
            images = outputs["images"]
            if self.depth == 16:
                images = images[..., 0].view(torch.uint16)
            masks = outputs["masks"][..., 0] if self.config.masks else None
            yield Batch(images, masks, [_parse(row) for row in outputs.get("info", ())])

    def _next(self, iterator: Iterator[Any]) -> dict[str, Any]:
        """DALI's next outputs by name; none after the last batch of an epoch."""
        with remote.one_line(self.config.shards):
            (outputs,) = next(iterator, ({},))
        return dict(outputs)

    def state(self) -> bytes:
        """The loader's position, to be called between epochs."""
        (checkpoint,) = self._iterator.checkpoints()
        return bytes(checkpoint)


def _pipeline(config: LoaderConfig, paths: Sequence[str], depth: int, buffer: int, state: bytes | None) -> Any:
    dali, fn, types = import_dali(), import_dali("nvidia.dali.fn"), import_dali("nvidia.dali.types")

    @dali.pipeline_def  # type: ignore[untyped-decorator]
    def define() -> tuple[Any, ...]:
        components = [";".join(tar.IMAGES)] + ["mask.png"] * config.masks + ["json"] * config.info
        encoded, *others = _as_list(
            fn.readers.webdataset(
                name="reader",
                paths=list(paths),
                index_paths=[path.removesuffix(".tar") + ".idx" for path in paths],
                ext=components,
                missing_component_behavior="skip",
                random_shuffle=config.augment is not None,
                shuffle_after_epoch=config.augment is not None,
                initial_fill=buffer,
                shard_id=config.rank,
                num_shards=config.world,
                pad_last_batch=True,
            )
        )
        begin, end = _region(fn, types, config.augment)
        region = {"roi_start": begin, "roi_end": end, "roi_relative": True, "size": [config.size, config.size]}
        images = fn.decoders.image(encoded, device=_DECODE_DEVICE[config.device], **decoder.options(depth))
        images = fn.resize(images, interp_type=types.INTERP_LINEAR, antialias=True, **region)
        if depth == 16:  # DALI's iterator has no name for torch's uint16: the same bits go as int16
            outputs = [fn.reinterpret(_jitter_gray(fn, types, images, config.augment), dtype=types.INT16)]
        else:
            outputs = [_jitter(fn, images, config.augment)]
        if config.masks:
            masks = fn.decoders.image(others.pop(0), device="cpu", output_type=types.GRAY)
            masks = fn.resize(masks, interp_type=types.INTERP_NN, **region)
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


def _region(fn: Any, types: Any, augment: Augment | None) -> tuple[Any, Any]:
    """Start and end (y, x) of the region that becomes the image, as shares of its height and width."""
    if augment is None:
        return [0.0, 0.0], [1.0, 1.0]
    begin, extent = types.Constant([0.0, 0.0]), types.Constant([1.0, 1.0])
    if augment.crop < 1:
        extent = fn.random.uniform(range=(augment.crop, 1.0), shape=2)
        begin = fn.random.uniform(range=(0.0, 1.0), shape=2) * (1.0 - extent)
    if not augment.flip:
        return begin, begin + extent
    swap = fn.random.coin_flip(shape=2)
    return begin + extent * swap, begin + extent * (1 - swap)


def _jitter(fn: Any, images: Any, augment: Augment | None) -> Any:
    changes: dict[str, Any] = {}
    if augment and augment.jitter:
        for name in ("brightness", "contrast", "saturation"):
            changes[name] = fn.random.uniform(range=(1 - augment.jitter, 1 + augment.jitter))
    if augment and augment.hue:
        changes["hue"] = fn.random.uniform(range=(-augment.hue, augment.hue))
    return fn.color_twist(images, **changes) if changes else images


def _jitter_gray(fn: Any, types: Any, images: Any, augment: Augment | None) -> Any:
    """Brightness and contrast in 16 bit, which DALI's colour operators refuse. Contrast is scaled about the image's own
    mean: microscopes use a small part of 16 bits, and about their middle all of it would go to black.
    """
    if not augment or not augment.jitter:
        return images
    brightness = fn.random.uniform(range=(1 - augment.jitter, 1 + augment.jitter))
    contrast = fn.random.uniform(range=(1 - augment.jitter, 1 + augment.jitter))
    mean = fn.reductions.mean(images)
    return fn.cast(brightness * (mean + contrast * (images - mean)), dtype=types.UINT16)


def _as_list(outputs: Any) -> list[Any]:
    return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]


def _parse(row: torch.Tensor) -> dict[str, Any]:
    return dict(json.loads(bytes(row.numpy()).rstrip(b"\0")))
