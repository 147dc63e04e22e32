"""The encoded files of samples: read from tar files by their place, each checked to be the one that is meant."""

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

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Encoded:
    """What was read of a sample: (n,) uint8 each by "image", "mask.png" and "json"."""

    number: int
    files: dict[str, Bytes]


class Reader:
    """Reads samples, from any thread. What is wanted of a sample is read at once, with what stands between.

    A local tar file is open while it is in use, and for a while longer: the last `_OPEN` are.
    """

    def __init__(self, samples: Samples) -> None:
        self.samples = samples
        self._handles = _Handles()

    def read(self, numbers: Iterable[int], wanted: Sequence[str]) -> list[Encoded]:
        """The samples of those numbers, of each those of `wanted` that it has.

        Raises `OSError` where a file cannot be read, and `ValueError` that names the tar file, the key and the remedy
        where it is cut off or holds something else.
        """
        places = [self._place(number, wanted) for number in numbers]
        if self._stream():
            data = self._ranges(places)
        else:
            data = [self._handles.get(place.tar).read(place.start, place.end) for place in places]
        return [self._checked(place, piece) for place, piece in zip(places, data, strict=True)]

    def close(self) -> None:
        """Close the tar files that no other thread is reading."""
        self._handles = _Handles()

    def _stream(self) -> bool:
        return "://" in self.samples.tars[0]

    def _place(self, number: int, wanted: Sequence[str]) -> "_Place":
        samples, spans = self.samples, {}
        for what in wanted:
            start, size = samples.spans[what][number].tolist()
            if size >= 0:
                spans[what] = start, size
        first = min(start for start, _ in spans.values()) - BLOCKSIZE
        return _Place(number, samples.tars[samples.tar[number]], first, max(map(sum, spans.values())), spans)

    def _ranges(self, places: Sequence["_Place"]) -> list[bytes]:
        folder: Any = self.samples.folder
        paths = {tar: files.location(tar).path for tar in {place.tar for place in places}}  # type: ignore[attr-defined]
        with remote.one_line(folder):
            try:
                pieces: list[bytes] = folder.fs.cat_ranges(
                    [paths[place.tar] for place in places],
                    [place.start for place in places],
                    [place.end for place in places],
                    on_error="raise",
                )
            except FileNotFoundError as error:  # it was there when the manifest was read
                raise OSError(str(error)) from error
        return pieces

    def _checked(self, place: "_Place", data: bytes) -> Encoded:
        if len(data) < place.end - place.start:
            raise self.samples.damaged(place.number, "the tar file ends before it does")
        found = {}
        for what, (start, size) in place.spans.items():
            start -= place.start
            name = self.samples.name(place.number, what)
            if not data.startswith(name, start - BLOCKSIZE) or data[start - BLOCKSIZE + len(name)] not in _BEHIND:
                raise self.samples.damaged(place.number, f"where the index puts {name.decode()} the tar file does not")
            found[what] = np.frombuffer(data, np.uint8, size, start)
        return Encoded(place.number, found)


_BEHIND = (0, ord("0"))  # a name, and the first byte of the mode behind a name of the full length


@dataclass(frozen=True)
class _Place:
    """Bytes of a tar file, from the first header on that belongs to what is wanted of a sample; `spans` as `Samples`'."""

    number: int
    tar: str
    start: int
    end: int
    spans: dict[str, tuple[int, int]]


class _Handles:
    """The files that were read last, open."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[str, _Handle] = OrderedDict()

    def get(self, path: str) -> "_Handle":
        with self._lock:
            handle = self._open.pop(path, None) or _Handle(path)
            self._open[path] = handle
            if len(self._open) > _OPEN:
                self._open.popitem(last=False)
            return handle


class _Handle:
    """An open file, closed when nobody holds it any more."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, start: int, end: int) -> bytes:
        """The bytes from `start` to `end`; fewer where the file ends before."""
        data = os.pread(self._descriptor, end - start, start)
        while len(data) < end - start and (
            more := os.pread(self._descriptor, end - start - len(data), start + len(data))
        ):
            data += more
        return data

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)
