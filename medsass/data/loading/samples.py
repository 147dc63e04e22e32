"""The samples of a split as columns, from the index files beside its tar files: a million of them fit into memory."""

from array import array
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsass import files
from medsass.data.shards import remote
from medsass.data.shards.tar import IMAGES, INDEX, Shard, read_index

_READERS = 16  # index files that are read at the same time
_ABSENT = (0, -1)


@dataclass(frozen=True)
class Samples:
    """N samples in stored order.

    Args:
        folder: the shard folder, or its address.
        tars: where the tar files are.
        keys: (N,) bytes.
        tar: (N,) int32, the number of each sample's tar file.
        form: (N,) uint8, the extension of its image as a number of `tar.IMAGES`.
        spans: for "image", "mask.png" and "json" (N, 2) int64: where the data starts in the tar file and how long it is,
            in bytes; length -1 where there is none.
    """

    folder: Path
    tars: Sequence[str]
    keys: NDArray[np.bytes_]
    tar: NDArray[np.int32]
    form: NDArray[np.uint8]
    spans: dict[str, NDArray[np.int64]]

    def __len__(self) -> int:
        return len(self.tar)

    def take(self, chosen: NDArray[Any]) -> "Samples":
        """Return some of the samples, chosen by a mask or by rising numbers."""
        spans = {what: span[chosen] for what, span in self.spans.items()}
        return Samples(self.folder, self.tars, self.keys[chosen], self.tar[chosen], self.form[chosen], spans)

    def key(self, number: int) -> str:
        """Return the key of a sample."""
        return bytes(self.keys[number]).decode()

    def name(self, number: int, what: str) -> bytes:
        """Return the name in the tar file of the sample's "image", "mask.png" or "json"."""
        extension = IMAGES[self.form[number]] if what == "image" else what
        return b"%s.%s" % (self.keys[number], extension.encode())

    def damaged(self, number: int, what: str) -> ValueError:
        """Make an error that says `what` is wrong with a sample, and what to do."""
        path = self.tars[self.tar[number]]
        remedy = f"run: medsass verify {self.folder}"
        if not path.startswith(str(self.folder)):
            remedy = f"delete that copy, which is then fetched anew, or {remedy}"
        return ValueError(f"{path}: sample {self.key(number)}: {what}; {remedy}")


def load(folder: Path, shards: Sequence[Shard]) -> Samples:
    """List the samples of tar files of a shard folder, which may be at an address.

    Raises `OSError` where a file cannot be read, `ValueError` where an index does not fit its tar file.
    """
    tars = remote.tars(folder, shards)
    keys: list[bytes] = []
    tar, form = array("i"), array("B")
    columns = {what: array("q") for what in ("image", "mask.png", "json")}

    @remote.one_line(folder)
    def read(tar: str, most: int) -> bytes:
        return files.read(files.location(tar.removesuffix(".tar") + INDEX), most)

    with ThreadPoolExecutor(_READERS) as pool:
        for number, data in enumerate(pool.map(read, tars, [shard.most for shard in shards])):
            before, index = len(keys), folder / Path(shards[number].file).with_suffix(INDEX).name
            try:
                for members in read_index(data.decode()):
                    key = members[0].key
                    found = {name[len(key) + 1 :]: (offset, size) for name, offset, size in members}
                    extension = next(extension for extension in IMAGES if extension in found)
                    found["image"] = found[extension]
                    for what, column in columns.items():
                        column.extend(found.get(what, _ABSENT))
                    keys.append(key.encode())
                    tar.append(number)
                    form.append(IMAGES.index(extension))
            except (ValueError, IndexError, StopIteration, OverflowError) as error:
                raise ValueError(f"{index} is no index of images; run: medsass verify {folder}") from error
            if len(keys) - before != shards[number].samples:
                raise ValueError(
                    f"{index} names {len(keys) - before} samples, but the manifest says {shards[number].samples}; "
                    f"run: medsass verify {folder}"
                )
            if not data.startswith(b"v1.2 %d\n" % shards[number].samples):
                raise ValueError(
                    f"{index}: its first line does not say that it has {shards[number].samples} samples; run: medsass verify {folder}"
                )
    spans = {what: np.array(column, np.int64).reshape(-1, 2) for what, column in columns.items()}
    samples = Samples(folder, tars, np.array(keys, np.bytes_), np.array(tar, np.int32), np.array(form, np.uint8), spans)
    ends = np.array([shard.bytes for shard in shards], np.int64)[samples.tar]
    for span in spans.values():
        if (beyond := np.flatnonzero(span[:, 0] > ends - span[:, 1])).size:  # a sum could be too large for 64 bits
            raise samples.damaged(int(beyond[0]), "lies beyond the end of the tar file, as its index says")
    starts, same = spans["image"][:, 0], samples.tar[1:] == samples.tar[:-1]
    if (again := np.flatnonzero(same & (starts[1:] < starts[:-1] + spans["image"][:-1, 1]))).size:
        raise samples.damaged(int(again[0]) + 1, "does not lie behind the one before it, as its index says")
    return samples
