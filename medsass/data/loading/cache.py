"""Decoded images that are kept in memory, so that training decodes nothing after the first look at each."""

from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakSet

import numpy as np
import torch
from numpy.typing import NDArray

from medsass.data.loading import memory, pipeline, tensors
from medsass.data.loading.pipeline import Form
from medsass.data.loading.prefetch import Feed
from medsass.data.loading.reader import Reader
from medsass.data.shards.manifest import Split

_BLOCK = 64  # images that are decoded, and whose pixels lie, together


@dataclass(frozen=True)
class Room:
    """Where decoded images can be kept: "host", "device", or "" where they cannot; what to tell the user of it; and the
    bytes that they need.
    """

    where: str = ""
    note: str = ""
    needed: int = 0


class Cache:
    """The decoded images of all samples, and their masks where they are asked for, once `fill` has run.

    sizes: (N, 2) int64, their heights and widths.
    """

    def __init__(self, form: Form, where: str, needed: int) -> None:
        self.where, self.needed = where, needed
        self.filled = False
        self._form = replace(form, batch=_BLOCK, held="")
        self._images: list[Any] = []
        self._masks: list[Any] = []
        self.sizes = np.zeros((0, 2), np.int64)
        _PROMISED.add(self)

    def feeds(self, numbers: NDArray[np.int64]) -> dict[str, Any]:
        """What a pipeline of held images is fed with for these samples."""
        held = {"images": self._images} | ({"masks": self._masks} if self._form.masks else {})
        return {name: tensors.batch([column[number] for number in numbers]) for name, column in held.items()}

    def fill(self, reader: Reader, make: Any) -> None:
        """Decode all samples of `reader`. make: as `Feed`'s, of encoded samples by their numbers. Raises what reading
        and decoding raise.
        """
        count = len(reader.samples)
        blocks = [np.arange(first, min(first + _BLOCK, count)) for first in range(0, count, _BLOCK)]
        feed: Feed[Any] = Feed(
            lambda number: make(blocks[number]), lambda source: pipeline.build_decoder(self._form, source), len(blocks)
        )
        images: list[Any] = []
        masks: list[Any] = []
        sizes = []
        try:
            for number in range(len(blocks)):
                _, (decoded, *more) = feed.get(number, self._form.device == "cuda")
                sizes += [tuple(shape[:2]) for shape in decoded.shape()]
                images += self._kept(decoded)
                for held in more:
                    masks += self._kept(held)
        finally:
            feed.close()
        self._images, self._masks = images, masks
        if self.where == "device":
            torch.cuda.synchronize()  # DALI reads it on streams of its own
        self.sizes = np.array(sizes, np.int64).reshape(-1, 2)
        self.filled = True

    def _kept(self, decoded: Any) -> list[Any]:
        """Copies of a batch of images as DALI's tensors, one after the other in a memory of just their size."""
        found = tensors.split(decoded)
        block = torch.cat([image.flatten().view(torch.uint8) for image in found])
        block = block.to("cuda" if self.where == "device" else "cpu")
        parts = block.split([image.nbytes for image in found])  # type: ignore[no-untyped-call]
        pairs = zip(parts, found, strict=True)
        return [tensors.tensor(part.view(image.dtype).view(image.shape)) for part, image in pairs]


_PROMISED: WeakSet[Cache] = WeakSet()  # caches of this process; those that are not filled yet take memory later


def room(wanted: str, split: Split, samples: int, form: Form, world: int) -> Room:
    """Whether `samples` of a split, decoded, fit into at most half of the memory that is free where they are `wanted`:
    "none", "host" or "device". On the host every process of the `world` on this machine keeps its own.
    """
    if wanted == "none":
        return Room()
    where = wanted if form.device == "cuda" else "host"
    needed = bytes_of(split, samples, form)
    if where == "host":
        copies, free, place = memory.processes(world), memory.host(), "the host's memory"
    else:
        copies, free, place = 1, memory.device(), "the GPU's memory"
    takes, left = copies * needed, free - promised(where) * copies
    amount = f"{_written(takes)} of {place}, of which {_written(max(0, left))} are free"
    if takes > left / 2:
        rest = f"more than half; images are decoded anew in each epoch (--cache {wanted} is not used)"
        return Room("", f"decoded images would take {amount}: {rest}")
    each = f" ({copies} processes)" if copies > 1 else ""
    return Room(where, f"decoded images take {amount}{each}", needed)


def promised(where: str) -> int:
    """Bytes on the "host" or the "device" that caches of this process will still take."""
    return sum(cache.needed for cache in _PROMISED if cache.where == where and not cache.filled)


def _written(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def bytes_of(split: Split, samples: int, form: Form) -> int:
    """Bytes of so many decoded samples of a split, at most: of a share of them it is not known which it holds."""
    each = (3 if form.depth == 8 else 2) + form.masks
    sides = [(name.split("x"), count) for name, count in split.sizes.items()]
    areas = sorted(((int(width) * int(height), count) for (width, height), count in sides), reverse=True)
    total, left = 0, samples
    for area, count in areas:
        total += area * min(count, left) * each
        left -= min(count, left)
    return total
