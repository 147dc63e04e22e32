"""The samples of a tar file, from its bytes in pieces of any length: their members, what they count, and what is out of place."""

import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic_core import from_json

from medsass.data.shards.header import read_headers
from medsass.data.shards.tar import IMAGES, Member, is_key

_HEADER = tarfile.BLOCKSIZE
_AT, _USTAR = 257, np.frombuffer(b"ustar\0", np.uint8)  # what a header has there
_MASK, _JSON = "mask.png", "json"
_KNOWN = (*IMAGES, _MASK, _JSON)  # extensions of a sample's files
_USUAL = {(image, *mask, _JSON) for image in IMAGES for mask in ((), (_MASK,))}
_LONGEST = 1 << 20  # bytes of a .json that is read
_Fields = tuple[str, int, int]  # of a `Member`, to make which takes as long as all else


@dataclass(frozen=True)
class Tally:
    """What a tar file holds, in numbers.

    Attributes:
        keys: of the samples.
        counts: number of samples by ("samples",), ("masks",), ("classes", label), ("sizes", "width x height") and
            ("formats", extension).
        coverage: share of foreground, summed over the masks.
    """

    keys: list[str]
    counts: Counter[tuple[str, ...]]
    coverage: float


class Contents:
    """The samples of a tar file.

    Attributes:
        samples: the members of each sample by extension, as the fields of a `Member`.
        flaws: members out of place.
        broken: the byte at which a header was expected and not found; None where the tar could be read to its end.
    """

    def __init__(self) -> None:
        self.samples: list[Mapping[str, _Fields]] = []
        self.flaws: list[str] = []
        self.broken: int | None = None
        self._keys: list[str] = []
        self._coverage = 0.0
        self._kinds = Counter[tuple[tuple[str, ...], str, str | None]]()  # extensions, size and class of samples
        self._window, self._start = b"", 0  # bytes that are not read yet, and where they begin
        self._at, self._ended = 0, False  # where the next header is
        self._sample: dict[str, _Fields] = {}  # the one in progress
        self._key, self._prefix, self._text = "", "\0", b""

    @property
    def tally(self) -> Tally:
        """The samples in numbers."""
        found = Counter[tuple[str, ...]]()
        for (extensions, size, label), count in self._kinds.items():
            whats = [("samples",), *(("formats", extension) for extension in extensions if extension in IMAGES)]
            whats += [("masks",)] * (_MASK in extensions) + [("sizes", size)] * bool(size)
            whats += [] if label is None else [("classes", label)]
            found.update(dict.fromkeys(whats, count))
        return Tally(self._keys, found, self._coverage)

    def update(self, data: bytes) -> None:
        """Read on: `data` are the next bytes of the tar file."""
        self._read(data)

    def finish(self) -> None:
        """Read the rest: there are no more bytes."""
        self._read(b"", last=True)
        left = self._window[self._at - self._start :]
        if not self._ended and any(left[:_HEADER]):
            self.broken = self._at
        self._add()

    def _read(self, data: bytes, *, last: bool = False) -> None:
        if self._ended:
            return
        behind = self._at - self._start
        self._start += min(behind, len(self._window))
        self._window = self._window[behind:] + data
        while not self._ended and (self._enter_usual(last) or self._enter_other(last)):
            pass

    def _enter_usual(self, last: bool) -> bool:
        """Enter the next members if their headers are as medsass writes them; False if there is none.

        This and `_enter_other` leave a .json whose end is still to come for later, unless these bytes are the `last`.
        """
        first, blocks = self._at, (self._start + len(self._window) - self._at) // _HEADER
        if blocks <= 0:
            return False
        rows = np.frombuffer(self._window, np.uint8, blocks * _HEADER, first - self._start).reshape(-1, _HEADER)
        places = np.flatnonzero(rows[:, _AT] == ord("u"))  # of headers, and of what only looks like one
        places = places[(rows[places, _AT : _AT + len(_USTAR)] == _USTAR).all(1)]
        if not places.size:
            return False
        names, sizes = read_headers(rows[places])
        ends = places + 1 - sizes // -_HEADER
        offsets = first + _HEADER * (places + 1)
        found = zip(names, offsets.tolist(), sizes.tolist(), (places == np.append(0, ends)[:-1]).tolist(), strict=True)
        members = []
        for name, offset, size, next_one in found:
            if name is None or not next_one:
                break
            members.append((name, offset, size))
        if members and not last and self._lacks_text(*members[-1]):
            members.pop()
        self._enter(members)
        return self._at > first

    def _enter_other(self, last: bool) -> bool:
        """Enter the next member though medsass would write another header; False if there is none, or not yet."""
        at = self._at - self._start
        block = self._window[at : at + _HEADER]
        if len(block) < _HEADER:
            return False
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError:
            info = None
        if not info or not info.isreg():
            self._ended = True
            self.broken = self._at if any(block) else None
            return False
        member = info.name, self._at + _HEADER, info.size
        if not last and self._lacks_text(*member):
            return False
        self._enter([member])
        return True

    def _lacks_text(self, name: str, offset: int, size: int) -> bool:
        return name.endswith(".json") and offset + size > self._start + len(self._window) and size <= _LONGEST

    def _enter(self, members: Sequence[_Fields]) -> None:
        """Enter the next members."""
        sample, prefix = self._sample, self._prefix
        for member in members:
            name, offset, size = member
            extension = name[len(prefix) :]
            if extension in sample or not name.startswith(prefix) or "/" in extension:
                key, extension = Member(*member).parts
                if key != self._key or extension in sample:
                    self._add()
                    sample = self._sample
                self._key, prefix = key, key + "."
            sample[extension] = member
            if extension == _JSON:
                at = offset - self._start
                self._text = self._window[at : at + min(size, _LONGEST)]
        self._prefix = prefix
        self._at = Member(*members[-1]).end if members else self._at

    def _add(self) -> None:
        """Add the sample in progress."""
        key, members, text = self._key, self._sample, self._text
        self._sample, self._text = {}, b""
        if not members:
            return
        self.samples.append(members)
        self._keys.append(key)
        extensions, size, label = tuple(members), "", None
        if not is_key(key):
            self.flaws.append(f"{key!r:.80} is no key that a sample may have")
        if extensions not in _USUAL:
            self.flaws += _flaws(key, extensions)
        if _JSON in members:
            try:
                meta = from_json(text)  # in half of the json module's time
                if meta["key"] != key:
                    self.flaws.append(f"{key}.json is of another sample, {meta['key']!r:.80}")
                if (_MASK in members) != ("mask_coverage" in meta):
                    self.flaws.append(f"sample {key} and its .json disagree on whether it has a mask")
                coverage, size = float(meta.get("mask_coverage", 0)), f"{meta['width']:d}x{meta['height']:d}"
                label = meta["class"] if meta["class"] is None else str(meta["class"])
                self._coverage += coverage
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                size = ""
                self.flaws.append(f"{key}.json is not what medsass writes ({type(error).__name__}: {error})")
        self._kinds[extensions, size, label] += 1


def _flaws(key: str, extensions: tuple[str, ...]) -> Iterator[str]:
    """Find files of a sample that are out of place, and those that it lacks."""
    for extension in extensions:
        if extension not in _KNOWN:
            yield f"{key}.{extension} is not a file that a sample has"
    images = sum(extension in IMAGES for extension in extensions)
    if images != 1:
        yield f"sample {key} has {images or 'no'} image{'s' * bool(images)}"
    if _JSON not in extensions:
        yield f"sample {key} has no .json"


def image(path: Path, key: str, content: Mapping[str, bytes]) -> bytes:
    """Return the image of a sample, its bytes by extension. Raises `ValueError` that names the tar file where it has none."""
    for extension in IMAGES:
        if extension in content:
            return content[extension]
    raise ValueError(f"{path}: sample {key} has no image; run: medsass verify {path if path.is_dir() else path.parent}")
