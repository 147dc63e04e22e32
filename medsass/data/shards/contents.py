"""The samples of a tar file, from its bytes in pieces of any length: their members, what they count, and what is out of place."""

import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping

from pydantic_core import from_json

from medsass.data.shards import tar
from medsass.data.shards.tar import IMAGES, Member

_HEADER = tarfile.BLOCKSIZE
_MASK, _JSON = "mask.png", "json"
_KNOWN = (*IMAGES, _MASK, _JSON)  # extensions of a sample's files
_USUAL = {(image, *mask, _JSON) for image in IMAGES for mask in ((), (_MASK,))}
_LONGEST = 1 << 20  # bytes of a .json that is read


class Contents:
    """The samples of a tar file.

    Attributes:
        samples, keys: the members of each sample by extension, and its key.
        coverage: share of foreground, summed over the masks.
        flaws: members out of place.
        broken: the byte at which a header was expected and not found; None where the tar could be read to its end.
    """

    def __init__(self) -> None:
        self.samples: list[Mapping[str, Member]] = []
        self.keys: list[str] = []
        self.coverage = 0.0
        self.flaws: list[str] = []
        self.broken: int | None = None
        self._kinds = Counter[tuple[tuple[str, ...], str, str | None]]()  # extensions, size and class of samples
        self._window, self._start = b"", 0  # bytes that are not read yet, and where they begin
        self._at, self._ended = 0, False  # where the next header is
        self._sample: dict[str, Member] = {}  # the one in progress
        self._key, self._text = "", b""

    @property
    def counts(self) -> Counter[tuple[str, ...]]:
        """Number of samples by ("samples",), ("masks",), ("classes", label), ("sizes", "width x height") and
        ("formats", extension).
        """
        found = Counter[tuple[str, ...]]()
        for (extensions, size, label), count in self._kinds.items():
            whats = [("samples",), *(("formats", extension) for extension in extensions if extension in IMAGES)]
            whats += [("masks",)] * (_MASK in extensions) + [("sizes", size)] * bool(size)
            whats += [] if label is None else [("classes", label)]
            found.update(dict.fromkeys(whats, count))
        return found

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
        behind = self._at - self._start
        self._start += min(behind, len(self._window))
        self._window = self._window[behind:] + data
        while not self._ended and (found := list(self._headers(last))):
            names = tar.names_of([block for block, *_ in found])
            for (block, offset, size, end), name in zip(found, names, strict=True):
                if offset - _HEADER != self._at:
                    break  # the one before is longer, or shorter, than it seemed
                if name is not None:
                    self._enter(Member(name, offset, size), end)
                elif other := _other(block, offset):
                    self._enter(other, other.end)
                else:
                    self._ended = True
                    self.broken = self._at if any(block) else None
                    return

    def _headers(self, last: bool) -> Iterator[tuple[bytes, int, int, int]]:
        """Yield the bytes of the headers in the window, and where their members begin, how long they seem to be, and where the next
        header is; unless these bytes are the `last`, without that of a .json whose end is still to come.
        """
        at, end, window, start = self._at - self._start, len(self._window), self._window, self._start
        while at + _HEADER <= end:
            block = window[at : at + _HEADER]
            try:
                size = max(0, int(block[tar.SIZE], 8))
            except ValueError:
                size = 0
            at += _HEADER
            after = at - size // -_HEADER * _HEADER
            if not last and after > end and size <= _LONGEST and b".json\0" in block[: tar.NAME]:
                return
            yield block, start + at, size, start + after
            at = after

    def _enter(self, member: Member, end: int) -> None:
        """Enter a member of the tar file, and where the next begins."""
        key, extension = member.parts
        if key != self._key or extension in self._sample:
            self._add()
        self._key, self._sample[extension], self._at = key, member, end
        if extension == _JSON:
            at = member.offset - self._start
            self._text = self._window[at : at + min(member.size, _LONGEST)]

    def _add(self) -> None:
        """Add the sample in progress."""
        key, members, text = self._key, self._sample, self._text
        self._sample, self._text = {}, b""
        if not members:
            return
        self.samples.append(members)
        self.keys.append(key)
        extensions, size, label = tuple(members), "", None
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
                self.coverage += coverage
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


def _other(block: bytes, offset: int) -> Member | None:
    """Return the member whose header `block` is, though medsass would write another; None if it is none."""
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return None
    return Member(info.name, offset, info.size) if info.isreg() else None
