"""The samples of each batch and its random numbers: functions of seed, epoch and step alone.

A step takes the next `batch_size` samples of the epoch's order and divides them into equal runs, one for each micro-batch
of each rank. So the images of a step, and the random changes of each image, depend neither on the number of ranks nor on
the number of micro-batches nor on what was read before.
"""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class MicroBatch:
    """The samples of one micro-batch, the images of a step that one rank takes at a time.

    Args:
        samples: (n,) int64, sample numbers.
        epoch: Epoch, counted from 0.
        step: Step within the epoch, counted from 0.
        place: Position of the samples among the images of their step.
        step_images: Images of the whole step, over all ranks and micro-batches.
    """

    samples: NDArray[np.int64]
    epoch: int
    step: int
    place: slice
    step_images: int


@dataclass(frozen=True)
class Order:
    """The micro-batches of one rank.

    If shuffled, each epoch has its own order, and the last step repeats some of the epoch's first samples so that all its
    micro-batches are equally large: fewer than there are micro-batches in a step. Otherwise samples come in stored order
    and none is repeated: micro-batches of the last step may differ by one image, and empty ones are left out.

    Args:
        samples: Number of samples.
        batch_size: Images of a step, over all ranks and micro-batches.
        micro_batches: Micro-batches of a step on each rank (`--accumulate`).

    Raises:
        ValueError: `batch_size` cannot be divided equally.
    """

    samples: int
    batch_size: int
    shuffled: bool = False
    seed: int = 0
    rank: int = 0
    world: int = 1
    micro_batches: int = 1

    def __post_init__(self) -> None:
        shares = self.world * self.micro_batches
        if self.batch_size % shares or self.batch_size < 1:
            raise ValueError(
                f"--batch-size {self.batch_size} cannot be divided equally among {self.world} process"
                f"{'es' * (self.world > 1)} with {self.micro_batches} micro-batch{'es' * (self.micro_batches > 1)} each "
                f"(--accumulate): use a multiple of {shares} such as {max(1, self.batch_size // shares) * shares}"
            )

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return -(-self.samples // self.batch_size)

    @property
    def largest(self) -> int:
        """Images of the largest micro-batch on any rank."""
        _, images = self._place(0, 0)
        return -(-images // (self.world * self.micro_batches))

    def __len__(self) -> int:
        """Return the number of micro-batches of an epoch on this rank."""
        last = self.steps - 1
        places = [self._place(last, index)[0] for index in range(self.micro_batches)]
        return last * self.micro_batches + sum(1 for place in places if place.stop > place.start)

    def micro_batch(self, epoch: int, index: int) -> MicroBatch:
        """Return micro-batch `index` of `epoch` on this rank, both counted from 0."""
        step, within = divmod(index, self.micro_batches)
        place, images = self._place(step, within)
        numbers = np.arange(place.start, place.stop, dtype=np.int64) + step * self.batch_size
        if self.shuffled:  # past its end the epoch begins again
            numbers = permutation(self.seed, epoch, self.samples)[numbers % self.samples]
        return MicroBatch(numbers, epoch, step, place, images)

    def _place(self, step: int, within: int) -> tuple[slice, int]:
        """Return where micro-batch `within` of this rank lies among the images of `step`, and how many images those are."""
        shares, images = self.world * self.micro_batches, min(self.batch_size, self.samples - step * self.batch_size)
        if self.shuffled:
            images = -(-images // shares) * shares
        least, more = divmod(images, shares)  # the first `more` micro-batches have one image more
        number = within * self.world + self.rank
        first = number * least + min(number, more)
        return slice(first, first + least + (number < more)), images


@lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, samples: int) -> NDArray[np.int64]:
    """Return the order of an epoch, (samples,) int64."""
    order = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(epoch, 0)))).permutation(
        samples
    )
    order.flags.writeable = False
    return order


@lru_cache(maxsize=2)
def uniform(seed: int, epoch: int, step: int, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the random numbers of a step, `shape` float64 in [0, 1); a longer shape begins with the same numbers."""
    drawn = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(epoch, step + 1)))).random(
        shape
    )
    drawn.flags.writeable = False
    return drawn


def subset_size(samples: int, fraction: float) -> int:
    """Return `fraction` of `samples`, rounded up. Raises `ValueError` unless 0 < fraction <= 1."""
    if not 0 < fraction <= 1:
        raise ValueError(f"the fraction of the samples must be above 0 and at most 1; got {fraction}")
    return math.ceil(samples * Fraction(str(fraction)))  # the decimal number as written: 0.07 of 100 is 7


def subset(keys: Iterable[bytes], count: int, seed: int) -> NDArray[np.int64]:
    """Return the numbers, rising, of the `count` samples whose SHA-256 of "<seed>:<key>" is smallest.

    So the subset is the same in every epoch, and a larger one holds a smaller one.
    """
    digests = [hashlib.sha256(b"%d:%s" % (seed, key)).digest() for key in keys]
    return np.sort(np.array(sorted(range(len(digests)), key=digests.__getitem__)[:count], np.int64))
