"""The samples of a split that a loader reads where it reads a share of them: always the same, and nested."""

import hashlib
import math
from collections.abc import Iterable
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray


def size(samples: int, fraction: float) -> int:
    """The number of samples in that share of them, rounded up. Raises `ValueError` unless 0 < fraction <= 1."""
    if not 0 < fraction <= 1:
        raise ValueError(f"the fraction of the samples must be above 0 and at most 1; got {fraction}")
    return math.ceil(samples * Fraction(str(fraction)))  # of the number as written: 0.07 of 100 is 7


def choose(keys: Iterable[bytes], count: int, seed: int) -> NDArray[np.int64]:
    """The numbers, rising, of the `count` samples whose SHA-256 of "<seed>:<key>" is smallest."""
    digests = [hashlib.sha256(b"%d:%s" % (seed, key)).digest() for key in keys]
    return np.sort(np.array(sorted(range(len(digests)), key=digests.__getitem__)[:count], np.int64))
