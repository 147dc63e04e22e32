"""The samples of a split as columns, from the index files beside its tar files: a million of them fit into memory."""

from array import array
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from tarfile import BLOCKSIZE
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsass import files
from medsass.data.shards import remote
from medsass.data.shards.tar import IMAGES, INDEX, Member, Shard

_READERS = 16  # index files that are read at the same time
_ABSENT = (0, -1)


@dataclass(frozen=True)
class Samples:
    """N samples in stored order.

    folder: the shards. tars: where the tar files are. keys: (N,) bytes. tar: (N,) int32, the number of each sample's tar
    file. form: (N,) uint8, its image's extension as a number of `tar.IMAGES`. spans: of "image", "mask.png" and "json"
    (N, 2) int64, where the data starts in the tar file and how long it is, in bytes; -1 long where there is none.
    """

    folder: Path
    tars: Sequence[str]
    keys: NDArray[np.bytes_]
    tar: NDArray[np.int32]
    form: NDArray[np.uint8]
    spans: dict[str, NDArray[np.int64]]

    def __len__(self) -> int:
        return len(self.tar)

    @property
    def masked(self) -> NDArray[np.bool_]:
        """(N,) bool: which have a mask."""
        return self.spans["mask.png"][:, 1] >= 0

    def take(self, chosen: NDArray[Any]) -> "Samples":
        """Those samples alone: a mask or numbers that rise."""
        spans = {what: span[chosen] for what, span in self.spans.items()}
        return Samples(self.folder, self.tars, self.keys[chosen], self.tar[chosen], self.form[chosen], spans)

    def key(self, number: int) -> str:
        """The key of a sample."""
        return bytes(self.keys[number]).decode()

    def name(self, number: int, what: str) -> bytes:
        """What the tar file calls the sample's "image", "mask.png" or "json"."""
        extension = IMAGES[self.form[number]] if what == "image" else what
        return b"%s.%s" % (self.keys[number], extension.encode())

    def damaged(self, number: int, what: str) -> ValueError:
        """An error that says `what` is wrong with a sample, and what to do."""
        path = self.tars[self.tar[number]]
        remedy = f"run: medsass verify {self.folder}"
        if not path.startswith(str(self.folder)):
            remedy = f"delete that copy, which is then fetched anew, or {remedy}"
        return ValueError(f"{path}: sample {self.key(number)}: {what}; {remedy}")


def load(folder: Path, shards: Sequence[Shard]) -> Samples:
    """The samples of those tar files of a shard folder, which may be at an address.

    Raises `OSError` where a file cannot be read, `ValueError` where an index is not one of that tar file.
    """
    tars = remote.tars(folder, shards)
    rows = _Rows()
    with ThreadPoolExecutor(_READERS) as pool:
        for number, text in enumerate(pool.map(_text, repeat(folder), tars)):
            shard = shards[number]
            before = len(rows.keys)
            try:
                rows.add(text.splitlines()[1:], number)
            except (ValueError, IndexError, StopIteration) as error:
                raise _unusable(folder, shard, "is no index of images") from error
            if len(rows.keys) - before != shard.samples:
                raise _unusable(
                    folder, shard, f"names {len(rows.keys) - before} samples, but the manifest says {shard.samples}"
                )
    return rows.columns(folder, tars)


def _text(folder: Path, path: str) -> str:
    with remote.one_line(folder):
        return files.location(path.removesuffix(".tar") + INDEX).read_text("utf-8")


def _unusable(folder: Path, shard: Shard, what: str) -> ValueError:
    name = shard.file.removesuffix(".tar") + INDEX
    return ValueError(f"{folder / name} {what}; run: medsass verify {folder}")


class _Rows:
    """Lines of index files, in columns that grow."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.tar, self.form = array("i"), array("B")
        self.spans = {"image": array("q"), "mask.png": array("q"), "json": array("q")}

    def add(self, lines: Iterable[str], tar: int) -> None:
        for line in lines:
            words = line.split()
            found = {
                extension: (int(offset), int(size))
                for extension, offset, size, _ in zip(*(words[i::4] for i in range(4)), strict=True)
            }
            if min(found.values())[0] < BLOCKSIZE:
                raise ValueError(line)
            form = next(i for i, extension in enumerate(IMAGES) if extension in found)
            found["image"] = found.pop(IMAGES[form])
            for what, column in self.spans.items():
                column.extend(found.get(what, _ABSENT))
            self.keys.append(Member(words[3], 0, 0).key.encode())
            self.tar.append(tar)
            self.form.append(form)

    def columns(self, folder: Path, tars: Sequence[str]) -> Samples:
        spans = {what: np.array(column, np.int64).reshape(-1, 2) for what, column in self.spans.items()}
        tar, form = np.array(self.tar, np.int32), np.array(self.form, np.uint8)
        return Samples(folder, tars, np.array(self.keys, np.bytes_), tar, form, spans)
