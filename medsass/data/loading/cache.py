"""A cache of decoded images in memory, so that each image is decoded only once."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakSet

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils import dlpack

from medsass.data import dali
from medsass.data.loading import memory, pipeline
from medsass.data.loading.pipeline import PipelineConfig
from medsass.data.loading.prefetch import HasFeeds, Prefetcher
from medsass.data.loading.reader import Reader
from medsass.data.shards.manifest import Split

_BLOCK = 64  # images that are decoded, and whose pixels are stored, together


class Cache:
    """The decoded images of all samples, and their masks if there are any, once `fill` has run.

    Args:
        config: The pipeline that takes the images.
        where: "host" or "device".
        needed: Bytes that the images will take.

    Attributes:
        sizes: (N, 2) int64, heights and widths of the images.
        filled: Whether `fill` has run.
    """

    def __init__(self, config: PipelineConfig, where: str, needed: int) -> None:
        self.where, self.needed = where, needed
        self.filled = False
        self.sizes = np.zeros((0, 2), np.int64)
        self._config = replace(config, batch=_BLOCK, cached="")
        self._pixels: dict[str, list[Any]] = {}  # by the pipeline's input, DALI's tensors
        _CACHES.add(self)

    def feeds(self, numbers: NDArray[np.int64]) -> dict[str, Any]:
        """Return the inputs of a pipeline for these samples."""
        return {name: dali.batch([column[number] for number in numbers]) for name, column in self._pixels.items()}

    def fill(self, reader: Reader, make: Callable[[NDArray[np.int64]], HasFeeds]) -> None:
        """Decode all samples of `reader`; `make` reads the files of samples. Raises what reading and decoding raise."""
        count = len(reader.samples)
        blocks = [np.arange(first, min(first + _BLOCK, count)) for first in range(0, count, _BLOCK)]
        prefetcher = Prefetcher(
            lambda number: make(blocks[number]),
            lambda source: pipeline.build_decoder(self._config, source),
            len(blocks),
        )
        pixels: dict[str, list[Any]] = {name: [] for name in ["images", "masks"][: 1 + self._config.masks]}
        sizes = []
        try:
            for number in range(len(blocks)):
                _, outputs = prefetcher.get(number, self._config.device == "cuda")
                sizes += [tuple(shape[:2]) for shape in outputs[0].shape()]
                for column, output in zip(pixels.values(), outputs, strict=True):
                    images = [dlpack.from_dlpack(output[index]) for index in range(len(output))]
                    # copies, one after the other in one block of exactly their size
                    block = torch.cat([image.flatten().view(torch.uint8) for image in images])
                    block = block.to("cuda" if self.where == "device" else "cpu")
                    chunks = block.split([image.nbytes for image in images])  # type: ignore[no-untyped-call]
                    pairs = zip(chunks, images, strict=True)
                    column += [dali.tensor(chunk.view(image.dtype).view(image.shape)) for chunk, image in pairs]
        finally:
            prefetcher.close()
        self._pixels = pixels
        if self.where == "device":
            torch.cuda.synchronize()  # DALI reads it on its own streams
        self.sizes = np.array(sizes, np.int64).reshape(-1, 2)
        self.filled = True


_CACHES: WeakSet[Cache] = WeakSet()  # of this process


@dataclass(frozen=True)
class CachePlan:
    """Where decoded images can be cached: "host", "device", or "" for nowhere; a note for the user; the bytes needed."""

    where: str = ""
    note: str = ""
    needed: int = 0


def plan(wanted: str, split: Split, samples: int, config: PipelineConfig, world: int) -> CachePlan:
    """Plan a cache of `samples` decoded images, which may take at most half of the free memory.

    Args:
        wanted: "none", "host" or "device"; on a CPU "device" is the host.
        split: The split that holds the samples.
        samples: Number of samples that are read.
        config: The pipeline that takes the images.
        world: Processes of the training; each process on this machine has its own cache on the host.
    """
    if wanted == "none":
        return CachePlan()
    where = wanted if config.device == "cuda" else "host"
    needed = decoded_bytes(split, samples, config)
    if where == "host":
        copies, free, place = memory.processes(world), memory.host(), "the host's memory"
    else:
        copies, free, place = 1, memory.device(), "the GPU's memory"
    takes, left = copies * needed, free - promised(where) * copies
    amounts = [f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB" for size in (takes, max(0, left))]
    memory_note = f"{amounts[0]} of {place}, of which {amounts[1]} are free"
    if takes > left / 2:
        rest = f"more than half; images are decoded again in each epoch (--cache {wanted} is not used)"
        return CachePlan("", f"decoded images would take {memory_note}: {rest}")
    each = f" ({copies} processes)" if copies > 1 else ""
    return CachePlan(where, f"decoded images take {memory_note}{each}", needed)


def promised(where: str) -> int:
    """Return the bytes on the "host" or the "device" that unfilled caches of this process will still take."""
    return sum(cache.needed for cache in _CACHES if cache.where == where and not cache.filled)


def decoded_bytes(split: Split, samples: int, config: PipelineConfig) -> int:
    """Return the most bytes that so many decoded samples can take; of a subset it is not known which sizes it holds."""
    each = (3 if config.depth == 8 else 2) + config.masks
    sides = [(name.split("x"), count) for name, count in split.sizes.items()]
    areas = sorted(((int(width) * int(height), count) for (width, height), count in sides), reverse=True)
    total, left = 0, samples
    for area, count in areas:
        total += area * min(count, left) * each
        left -= min(count, left)
    return total
