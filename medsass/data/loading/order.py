"""Which samples make which batch, and the random numbers of each: functions of seed, epoch and step, and of nothing else.

A step takes the next `batch_size` samples of the epoch's order and deals them out in equal runs to its parts and ranks.
So the images of a step, and what happens to each of them by chance, depend neither on the number of ranks nor on that of
parts, nor on what was read before.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Piece:
    """One batch: the numbers of its samples, (n,) int64, where they stand among the `of` images of their step, and which
    step of which epoch that is.
    """

    samples: NDArray[np.int64]
    epoch: int
    step: int
    place: slice
    of: int

    @property
    def share(self) -> float:
        """The batch's images over all images of its step."""
        return len(self.samples) / self.of


@dataclass(frozen=True)
class Order:
    """The batches of one rank, on which each step has `parts` of them.

    samples: how many there are. batch_size: images of a step, over all ranks and parts. shuffled: each epoch has an order
    of its own, and the last step repeats as many of the epoch's first samples as make its batches equally large: fewer
    than there are batches in a step. Otherwise samples come as they are stored and none is repeated, so that batches of
    the last step may differ by one image, and some may have none: those are left out.
    Raises `ValueError` where `batch_size` cannot be dealt out equally.
    """

    samples: int
    batch_size: int
    shuffled: bool = False
    seed: int = 0
    rank: int = 0
    world: int = 1
    parts: int = 1

    def __post_init__(self) -> None:
        if self.batch_size % self._pieces or self.batch_size < 1:
            least = max(1, self.batch_size // self._pieces) * self._pieces
            raise ValueError(
                f"--batch-size {self.batch_size} cannot be dealt out equally to {self.world} process"
                f"{'es' * (self.world > 1)} in {self.parts} part{'s' * (self.parts > 1)} each (--accumulate): "
                f"take a multiple of {self._pieces} such as {least}"
            )

    @property
    def _pieces(self) -> int:
        return self.world * self.parts

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return -(-self.samples // self.batch_size)

    def __len__(self) -> int:
        """Batches of an epoch on this rank."""
        sizes = self._sizes(self._images(self.steps - 1))
        return (self.steps - 1) * self.parts + sum(sizes[self._number(part)] > 0 for part in range(self.parts))

    @property
    def largest(self) -> int:
        """Images of the largest batch."""
        return max(self._sizes(self._images(0)))

    def piece(self, epoch: int, index: int) -> Piece:
        """Batch `index` of `epoch`, both counted from 0, on this rank."""
        step, part = divmod(index, self.parts)
        count, number = self._images(step), self._number(part)
        sizes = self._sizes(count)
        first = sum(sizes[:number])
        place = slice(first, first + sizes[number])
        numbers = np.arange(place.start, place.stop, dtype=np.int64) + step * self.batch_size
        if self.shuffled:  # behind the end the epoch begins again
            numbers = permutation(self.seed, epoch, self.samples)[numbers % self.samples]
        return Piece(numbers, epoch, step, place, count)

    def _images(self, step: int) -> int:
        """Images of a step, repeated ones included."""
        left = min(self.batch_size, self.samples - step * self.batch_size)
        return -(-left // self._pieces) * self._pieces if self.shuffled else left

    def _sizes(self, count: int) -> list[int]:
        """Images of each batch of a step of `count` images."""
        least, more = divmod(count, self._pieces)
        return [least + 1] * more + [least] * (self._pieces - more)

    def _number(self, part: int) -> int:
        """Which batch of a step this rank's part is."""
        return part * self.world + self.rank


@lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, samples: int) -> NDArray[np.int64]:
    """(samples,) int64, the order of an epoch."""
    order = _generator(seed, epoch, 0).permutation(samples)
    order.flags.writeable = False
    return order


@lru_cache(maxsize=2)
def numbers(seed: int, epoch: int, step: int, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Random numbers of a step, `shape` float64, uniform in [0, 1); of a longer shape the first ones are the same."""
    drawn = _generator(seed, epoch, step + 1).random(shape)
    drawn.flags.writeable = False
    return drawn


def _generator(seed: int, *place: int) -> np.random.Generator:
    sequence: Any = np.random.SeedSequence(seed, spawn_key=place)
    return np.random.Generator(np.random.Philox(sequence))
