"""The encoded files of samples, read from tar files by position and checked to be the files that are meant."""

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from tarfile import BLOCKSIZE
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsass import files
from medsass.data.loading.samples import Samples
from medsass.data.shards import remote

_OPEN = 64  # tar files that are open at the same time
_BEHIND = (0, ord("0"))  # the byte after a name, and the first byte of the mode after a name of the full length


@dataclass(frozen=True)
class Encoded:
    """The files of one sample: (n,) uint8 each, by "image", "mask.png" and "json"."""

    number: int
    files: dict[str, NDArray[np.uint8]]


@dataclass(frozen=True)
class _Range:
    """The bytes of a tar file that hold a sample's wanted files, from the first one's header; `spans` as in `Samples`."""

    number: int
    tar: str
    start: int
    end: int
    spans: dict[str, tuple[int, int]]


class Reader:
    """Reader of samples, from any thread. A sample's wanted files are read at once, with the bytes between them.

    The `_OPEN` local tar files that were read last stay open.
    """

    def __init__(self, samples: Samples) -> None:
        self.samples = samples
        self._lock = threading.Lock()
        self._open: OrderedDict[str, _TarFile] = OrderedDict()

    def read(self, numbers: Iterable[int], wanted: Sequence[str]) -> list[Encoded]:
        """Read those of the `wanted` files that each of these samples has.

        Raises:
            OSError: A file cannot be read.
            ValueError: A tar file is cut off or holds something else; the message names it, the key and the remedy.
        """
        ranges = []
        for number in numbers:
            found = {what: self.samples.spans[what][number].tolist() for what in wanted}
            spans = {what: (start, size) for what, (start, size) in found.items() if size >= 0}
            first, end = min(start for start, _ in spans.values()) - BLOCKSIZE, max(map(sum, spans.values()))
            ranges.append(_Range(number, self.samples.tars[self.samples.tar[number]], first, end, spans))
        if "://" in self.samples.tars[0]:
            data = self._fetched(ranges)
        else:
            data = []
            for place in ranges:
                with self._lock:
                    opened = self._open.pop(place.tar, None) or _TarFile(place.tar)
                    self._open[place.tar] = opened
                    if len(self._open) > _OPEN:
                        self._open.popitem(last=False)
                data.append(opened.read(place.start, place.end))
        return [self._checked(*pair) for pair in zip(ranges, data, strict=True)]

    def close(self) -> None:
        """Close the tar files that no other thread is reading."""
        with self._lock:
            self._open.clear()

    def _fetched(self, ranges: Sequence[_Range]) -> list[bytes]:
        """Read ranges of tar files at an address."""
        folder: Any = self.samples.folder
        paths = {tar: files.location(tar).path for tar in {place.tar for place in ranges}}  # type: ignore[attr-defined]
        starts, ends = [place.start for place in ranges], [place.end for place in ranges]
        with remote.one_line(folder):
            try:
                found = folder.fs.cat_ranges([paths[place.tar] for place in ranges], starts, ends, on_error="raise")
            except FileNotFoundError as error:  # it was there when the manifest was read
                raise OSError(str(error)) from error
        return list(found)

    def _checked(self, place: _Range, data: bytes) -> Encoded:
        """Return the files in `data`, each behind a header with its name."""
        if len(data) < place.end - place.start:
            raise self.samples.damaged(place.number, "the tar file ends before the sample does")
        found = {}
        for what, (start, size) in place.spans.items():
            start -= place.start
            name = self.samples.name(place.number, what)
            if not data.startswith(name, start - BLOCKSIZE) or data[start - BLOCKSIZE + len(name)] not in _BEHIND:
                said = f"the tar file does not hold {name.decode()} where the index says"
                raise self.samples.damaged(place.number, said)
            found[what] = np.frombuffer(data, np.uint8, size, start)
        return Encoded(place.number, found)


class _TarFile:
    """An open file that closes itself when no thread uses it any more."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, start: int, end: int) -> bytes:
        """Return the bytes from `start` to `end`; fewer where the file ends before."""
        data = os.pread(self._descriptor, end - start, start)
        while len(data) < end - start and (
            more := os.pread(self._descriptor, end - start - len(data), start + len(data))
        ):
            data += more
        return data

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)
