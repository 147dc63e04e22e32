"""The samples of a split that a loader reads where it reads a share of them: always the same, and nested.

DALI's reader takes its samples from index files, so a share of the samples is a copy of the index files without the
others.
"""

import hashlib
import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from medsass import files
from medsass.data.tar import INDEX, Member


def size(samples: int, fraction: float) -> int:
    """The number of samples in that share of them, rounded up. Raises `ValueError` unless 0 < fraction <= 1."""
    if not 0 < fraction <= 1:
        raise ValueError(f"the fraction of the samples must be above 0 and at most 1; got {fraction}")
    return math.ceil(samples * Fraction(str(fraction)))  # of the number as written: 0.07 of 100 is 7


def write(folder: Path, tars: Sequence[str], count: int, seed: int, masks: bool) -> tuple[list[str], list[str]]:
    """Fill `folder` with index files that name the `count` samples whose SHA-256 of "<seed>:<key>" is smallest.

    tars: paths or s3:// addresses, each with its index beside it. masks: choose among the samples that have one.
    Returns the tar files that hold chosen samples, and the index file of each.
    """
    digests = sorted(_digest(line, seed) for tar in tars for line in _lines(tar, masks))
    kept, indices = [], []
    for number, tar in enumerate(tars):
        lines = [line for line in _lines(tar, masks) if _digest(line, seed) <= digests[count - 1]]
        if lines:
            index = folder / f"{number:06d}{INDEX}"
            index.write_text("".join(f"{line}\n" for line in [f"v1.2 {len(lines)}", *lines]), "utf-8")
            kept.append(tar)
            indices.append(str(index))
    return kept, indices


def index_of(tar: str) -> str:
    """The index beside a tar file."""
    return tar.removesuffix(".tar") + INDEX


def _lines(tar: str, masks: bool) -> list[str]:
    """Of each sample its line of the index, as `tar.line` writes it; with `masks` only of those that have one."""
    _, *lines = files.location(index_of(tar)).read_text("utf-8").splitlines()
    return [line for line in lines if not masks or "mask.png" in line.split()[::4]]


def _digest(line: str, seed: int) -> bytes:
    key = Member(line.split()[3], 0, 0).key
    return hashlib.sha256(f"{seed}:{key}".encode()).digest()
