"""Damage of one tar file and the two files beside it: which samples are affected, and what to do.

The tar file is read once, in pieces. Its SHA-256 says whether it is intact; where it is not, the checksums of its blocks say
which samples are damaged.
"""

import hashlib
import io
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from pydantic_core import from_json

from medsass.data.shards import manifest, tar
from medsass.data.shards.tar import BLOCK, IMAGES, Checksums, Member, Shard

NEW = "make the shards anew: medsass shard SOURCE OUT --overwrite"
COPY = f"copy it again from where it came, or {NEW}"
TOGETHER = f"copy manifest.json and the tar files again, together, or {NEW}"
SIDE = "copy it again from where it came; only medsass verify reads it, training does not"

_PIECE = 1 << 20  # bytes read at a time
_MOST = 8  # samples or flaws of a tar file that are named; the others are counted
_MASK, _JSON = "mask.png", "json"
_KNOWN = (*IMAGES, _MASK, _JSON)  # extensions of a sample's files


@dataclass(frozen=True)
class Problem:
    """A finding: in which file, what is wrong, what to do about it, and the keys of the samples that are damaged."""

    file: str
    text: str
    remedy: str
    samples: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.file}: {self.text}; {self.remedy}"


@dataclass
class Contents:
    """The samples of a tar file.

    Args:
        samples, keys: the members of each sample by extension, and its key.
        counts: number of samples by ("samples",), ("masks",), ("classes", label), ("sizes", "width x height") and
            ("formats", extension).
        coverage: share of foreground, summed over the masks.
        flaws: members out of place.
        broken: the byte at which a header was expected and not found; None where the tar could be read to its end.
    """

    samples: list[Mapping[str, Member]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    counts: Counter[tuple[str, ...]] = field(default_factory=Counter)
    coverage: float = 0.0
    flaws: list[str] = field(default_factory=list)
    broken: int | None = None

    def add(self, key: str, members: Mapping[str, Member], text: bytes) -> None:
        """Count a sample: its files by extension, and the bytes of its .json."""
        self.samples.append(members)
        self.keys.append(key)
        self.counts["samples",] += 1
        self.counts["masks",] += _MASK in members
        images = 0
        for extension in members:
            if extension in IMAGES:
                images += 1
                self.counts["formats", extension] += 1
            elif extension not in _KNOWN:
                self.flaws.append(f"{key}.{extension} is not a file that a sample has")
        if images != 1:
            self.flaws.append(f"sample {key} has {images or 'no'} image{'s' * bool(images)}")
        if _JSON not in members:
            self.flaws.append(f"sample {key} has no .json")
            return
        try:
            meta = from_json(text)  # in half of the json module's time
            if meta["key"] != key:
                self.flaws.append(f"{key}.json is of another sample, {meta['key']!r:.80}")
            if (_MASK in members) != ("mask_coverage" in meta):
                self.flaws.append(f"sample {key} and its .json disagree on whether it has a mask")
            coverage, size = float(meta.get("mask_coverage", 0)), f"{meta['width']:d}x{meta['height']:d}"
            label = meta["class"]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            self.flaws.append(f"{key}.json is not what medsass writes ({type(error).__name__}: {error})")
            return
        self.coverage += coverage
        self.counts["sizes", size] += 1
        if label is not None:
            self.counts["classes", str(label)] += 1


class _Hashed(io.RawIOBase):
    """A file that is read from start to end: its size and SHA-256, and the checksums of its first `limit` bytes."""

    def __init__(self, file: BinaryIO, limit: int, tick: Callable[[int], None]) -> None:
        self._file, self._limit, self._tick = file, limit, tick
        self.size, self.sha256, self.checksums = 0, hashlib.sha256(), Checksums()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # io passes one
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self.sha256.update(data)
        self.checksums.update(data[: max(0, self._limit - self.size)])
        self.size += len(data)
        self._tick(len(data))
        return len(data)


def read(file: io.BufferedReader) -> Contents:
    """Read a tar file to its end, past the header that is broken if there is one."""
    found = Contents()
    sample: dict[str, Member] = {}
    at, key, text = 0, "", b""
    while any(block := file.read(tarfile.BLOCKSIZE)):
        member = _member(block, at)
        if not member:
            found.broken = at
            break
        own, extension = member.parts
        if sample and (key != own or extension in sample):
            found.add(key, sample, text)
            sample, text = {}, b""
        key, sample[extension] = own, member
        at = member.end
        left = at - member.offset
        if extension == _JSON:
            text = file.read(left)[: member.size]
        else:
            while left and (piece := file.read(min(left, _PIECE))):
                left -= len(piece)
    if sample:
        found.add(key, sample, text)
    while file.read(_PIECE):
        pass
    return found


def _member(block: bytes, at: int) -> Member | None:
    """Return the member whose header the 512 bytes at `at` are, None if they are none."""
    with suppress(ValueError):
        name, size = block[: block.index(0)].decode(), int(block[124:135], 8)
        if tar.header(name, size) == block:  # as medsass writes it: a quarter of tarfile's time
            return Member(name, at + tarfile.BLOCKSIZE, size)
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return None
    return Member(info.name, at + tarfile.BLOCKSIZE, info.size) if info.isreg() else None


def find(
    folder: Path, shard: Shard, others: Mapping[str, str], tick: Callable[[int], None]
) -> tuple[list[Problem], Contents | None]:
    """Find what is wrong with a tar file, its index and its checksums. Of a damaged tar file the index is not judged.

    Args:
        folder: the shard folder or its address.
        shard: the tar file as the manifest describes it.
        others: the names of the dataset's tar files by their SHA-256.
        tick: is called with the number of bytes after each piece that was read.

    Returns:
        The problems, and the contents of the tar file; None where it is damaged.
    """
    path, beside, held = folder / shard.file, list[Problem](), dict[str, bytes]()
    for suffix, remedy in ((tar.INDEX, COPY), (tar.CHECKSUMS, SIDE)):
        side = path.with_suffix(suffix)
        try:
            if side.is_file():
                held[suffix] = side.read_bytes()
            else:
                beside.append(Problem(side.name, "is missing", remedy))
        except OSError as error:
            beside.append(Problem(side.name, f"cannot be read ({error})", remedy))
    try:
        if not path.is_file():
            return [Problem(shard.file, "is missing", COPY), *beside], None
        with path.open("rb") as file:
            stream = _Hashed(cast(BinaryIO, file), shard.bytes, tick)
            contents = read(io.BufferedReader(stream, _PIECE))
    except OSError as error:
        return [Problem(shard.file, f"cannot be read ({error})", COPY), *beside], None
    sha256 = stream.sha256.hexdigest()
    if sha256 == shard.sha256:
        found = _intact(shard, stream, contents, held)
        return [*found, *beside], contents if contents.broken is None and stream.size == shard.bytes else None
    if sha256 in others:
        text = f"holds what belongs into {others[sha256]}, byte for byte"
        return [Problem(shard.file, text, f"give both their right names, or {COPY}"), *beside], None
    return [*_damaged(shard, stream, contents, held), *beside], None


def _intact(shard: Shard, stream: _Hashed, contents: Contents, held: Mapping[str, bytes]) -> Iterator[Problem]:
    """Find problems in and beside a tar file of the right bytes; `held` has the files beside it by their suffix."""
    if stream.size != shard.bytes:
        text = f"says that {shard.file} has {shard.bytes} bytes, but it has {stream.size} and the right SHA-256"
        yield Problem(manifest.NAME, text, TOGETHER)
        return
    if contents.broken is not None:
        text = f"has the right SHA-256, but byte {contents.broken} starts no member of a tar file"
        yield Problem(shard.file, text, NEW)
        return
    for text in contents.flaws[:_MOST]:
        yield Problem(shard.file, text, NEW)
    if more := len(contents.flaws[_MOST:]):
        yield Problem(shard.file, f"{more} more members are out of place", NEW)
    if len(contents.samples) != shard.samples:
        text = f"says that {shard.file} has {shard.samples} samples, but it has {len(contents.samples)}"
        yield Problem(manifest.NAME, text, TOGETHER)
    stem = shard.file.removesuffix(".tar")
    lines = "".join([f"v1.2 {len(contents.samples)}\n", *map(tar.line, contents.samples)])
    index, checksums = lines.encode("utf-8", "surrogateescape"), stream.checksums.pack()
    if held.get(tar.INDEX, index) != index:
        remedy = f"copy it again, or write it anew from the tar file: wds2idx {shard.file} {stem}{tar.INDEX}"
        yield Problem(stem + tar.INDEX, "is not what the tar file says", remedy)
    if held.get(tar.CHECKSUMS, checksums) != checksums:
        yield Problem(stem + tar.CHECKSUMS, "holds other checksums than those of the tar file, which is intact", SIDE)


def _damaged(shard: Shard, stream: _Hashed, contents: Contents, held: Mapping[str, bytes]) -> Iterator[Problem]:
    """Say which samples of a tar file of the wrong bytes are damaged: those in blocks of another checksum, or cut off."""
    size, stem, sums = stream.size, shard.file.removesuffix(".tar"), held.get(tar.CHECKSUMS, b"")
    members = {member.offset: member for sample in contents.samples for member in sample.values()}
    try:  # the index knows the members behind a damaged header
        named = [member for sample in tar.read_index(held.get(tar.INDEX, b"").decode()) for member in sample]
    except ValueError:
        named = []
    members |= {member.offset: member for member in named}
    due = -(-shard.bytes // BLOCK) * 4
    bad = np.zeros(0, np.intp)
    if known := len(sums) == due and tar.CHECKSUMS in held:
        seen = stream.checksums.pack()[: size // BLOCK * 4 if size < shard.bytes else None]  # a cut block has none
        bad = np.flatnonzero(np.frombuffer(sums, "<u4", len(seen) // 4) != np.frombuffer(seen, "<u4"))
    harmed = []
    for at, member in sorted(members.items()):
        first, last = np.searchsorted(bad, [(at - tarfile.BLOCKSIZE) // BLOCK, -(-member.end // BLOCK)])
        if first < last or member.end > size:
            harmed.append(member.key)
    keys, text, remedy = tuple(dict.fromkeys(harmed)), "is damaged", COPY
    if size < shard.bytes:
        text = f"is cut off after {size} of {shard.bytes} bytes"
    elif size > shard.bytes:
        text = f"is {size} bytes long, {size - shard.bytes} more than the manifest says"
    elif known and not bad.size:
        text = "fits its checksums, but not the SHA-256 in the manifest: they are of different datasets"
        remedy = TOGETHER
    if keys:
        more = f" and {len(keys) - _MOST} more" if len(keys) > _MOST else ""
        text += f": sample{'s' * (len(keys) > 1)} {', '.join(keys[:_MOST])}{more}"
    lacking = tar.INDEX if not named and len(contents.samples) < shard.samples else ""
    if lacking := lacking if known else tar.CHECKSUMS:
        text += f" (which {'other ' * bool(keys)}samples are damaged cannot be told without an intact {stem}{lacking})"
    elif bad.size and not keys:
        text += " behind its last sample"
    yield Problem(shard.file, text, remedy, keys)
    if tar.CHECKSUMS in held and not known:
        yield Problem(stem + tar.CHECKSUMS, f"has {len(sums)} bytes, should have {due}", SIDE)
