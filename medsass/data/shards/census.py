"""What the tar files of a dataset hold, counted from their bytes as they stream by."""

import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from medsass.data.shards.manifest import Split
from medsass.data.shards.tar import IMAGES, Member

_MASK, _JSON = "mask.png", "json"
_MOST = 8  # flaws of one tar file that are kept; the rest is counted


@dataclass(frozen=True)
class Flaw:
    """A member out of place: the byte at which it starts, and what is wrong with it."""

    offset: int
    text: str


@dataclass
class Census:
    """The samples of one or more tar files: their counts (`mask_coverage` is the sum over the masks), keys, flaws."""

    counts: Split = field(default_factory=lambda: Split(mask_coverage=0.0))
    keys: list[str] = field(default_factory=list)
    flaws: list[Flaw] = field(default_factory=list)
    more: int = 0

    def add(self, members: list[Member], text: bytes) -> None:
        """Count one sample: its files, and the bytes of its .json."""
        key, counts = members[0].key, self.counts
        extensions = [member.extension for member in members]
        images = [extension for extension in extensions if extension in IMAGES]
        counts.samples += 1
        counts.masks += _MASK in extensions
        self.keys.append(key)
        if len(images) != 1:
            self._flaw(members[0], f"sample {key} has {len(images) or 'no'} image{'s' * bool(images)}")
        for extension in images:
            _count(counts.formats, extension)
        for member in members:
            if member.extension not in (*IMAGES, _MASK, _JSON):
                self._flaw(member, f"{member.name} is not a file that a sample has")
        if _JSON not in extensions:
            self._flaw(members[0], f"sample {key} has no .json")
            return
        member = members[extensions.index(_JSON)]
        try:
            meta = json.loads(text)
            if meta["key"] != key:
                self._flaw(member, f"{member.name} is of another sample, {meta['key']!r:.80}")
            if (_MASK in extensions) != ("mask_coverage" in meta):
                self._flaw(member, f"sample {key} and its .json disagree on whether it has a mask")
            coverage, size = float(meta.get("mask_coverage", 0)), f"{meta['width']:d}x{meta['height']:d}"
            label = meta["class"]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            self._flaw(member, f"{member.name} is not what medsass writes ({type(error).__name__}: {error})")
            return
        counts.mask_coverage = (counts.mask_coverage or 0.0) + coverage
        _count(counts.sizes, size)
        if label is not None:
            _count(counts.classes, str(label))

    def merge(self, other: "Census") -> None:
        """Add the counts of another tar file of the same split."""
        mine, its = self.counts, other.counts
        mine.samples, mine.masks = mine.samples + its.samples, mine.masks + its.masks
        mine.mask_coverage = (mine.mask_coverage or 0.0) + (its.mask_coverage or 0.0)
        for ours, theirs in ((mine.classes, its.classes), (mine.sizes, its.sizes), (mine.formats, its.formats)):
            for name, number in theirs.items():
                _count(ours, name, number)

    def _flaw(self, member: Member, text: str) -> None:
        if len(self.flaws) < _MOST:
            self.flaws.append(Flaw(member.offset - tarfile.BLOCKSIZE, text))
        else:
            self.more += 1


class Walk:
    """Reads the headers of a tar whose bytes come in pieces of whole 512-byte blocks, and counts its samples.

    `known` gives, by the offset of their data, the members that the index names: a header that cannot be read is
    taken from there. Where that fails the walk ends and `complete` stays False.
    """

    def __init__(self, known: Mapping[int, Member]) -> None:
        self.census = Census()
        self.samples: list[list[Member]] = []
        self.complete = False
        self.stopped: int | None = None  # the byte of a header that cannot be read
        self._known = known
        self._open: list[Member] = []
        self._text = b""
        self._kept: bytearray | None = None  # of the .json that streams by
        self._at = self._left = 0

    def feed(self, data: bytes) -> None:
        """The next bytes of the tar."""
        start = 0
        while start < len(data) and not self.complete and self.stopped is None:
            if self._left:
                piece = data[start : start + self._left]
                if self._kept is not None:
                    self._kept += piece
                self._left -= len(piece)
            else:
                piece = data[start : start + tarfile.BLOCKSIZE]
                self._header(piece)
            start, self._at = start + len(piece), self._at + len(piece)
            if not self._left and self._kept is not None:
                self._text, self._kept = bytes(self._kept[: self._open[-1].size]), None

    @property
    def members(self) -> list[Member]:
        """All members so far, in order."""
        return [member for sample in [*self.samples, self._open] for member in sample]

    def _header(self, block: bytes) -> None:
        offset = self._at + tarfile.BLOCKSIZE
        if not any(block):
            self._close()
            self.complete = True
            return
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            member: Member | None = Member(info.name, offset, info.size) if info.isreg() else None
        except tarfile.HeaderError:
            member = self._known.get(offset)
        if member is None:
            self.stopped = self._at
            return
        new = self._open and self._open[0].key != member.key
        if new or member.extension in {each.extension for each in self._open}:
            self._close()
        self._open.append(member)
        self._left = member.end - offset
        self._kept = bytearray() if member.extension == _JSON else None

    def _close(self) -> None:
        """The sample in progress is whole."""
        if self._open:
            self.samples.append(self._open)
            self.census.add(self._open, self._text)
        self._open, self._text = [], b""


def known(index: bytes) -> dict[int, Member]:
    """The members that a DALI index names, by the offset of their data; what cannot be read is left out."""
    found = {}
    for line in index.decode("utf-8", "replace").splitlines()[1:]:
        words = line.split(" ")
        for offset, size, name in zip(words[1::4], words[2::4], words[3::4], strict=False):
            if offset.isascii() and offset.isdigit() and size.isascii() and size.isdigit():
                found[int(offset)] = Member(name, int(offset), int(size))
    return found


def _count(counts: dict[str, int], name: Any, number: int = 1) -> None:
    counts[name] = counts.get(name, 0) + number
