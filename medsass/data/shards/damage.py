"""Damage of one tar file and the two files beside it: which samples are affected, and what to do.

The tar file is read once, in pieces. Its SHA-256 says whether it is intact; where it is not, the checksums of its blocks say
which samples are damaged.
"""

import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from medsass.data.shards import manifest, tar
from medsass.data.shards.tar import BLOCK, IMAGES, Checksums, Member, Shard

NEW = "make the shards anew: medsass shard SOURCE OUT --overwrite"
COPY = f"copy it again from where it came, or {NEW}"
TOGETHER = f"copy manifest.json and the tar files again, together, or {NEW}"
SIDE = "copy it again from where it came; only medsass verify reads it, training does not"

_PIECE = 1 << 20  # bytes read at a time
_MOST = 8  # samples or flaws of a tar file that are named; the others are counted
_MASK, _JSON = "mask.png", "json"


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
        samples: the members of each sample.
        counts: number of samples by ("samples",), ("masks",), ("classes", label), ("sizes", "width x height") and
            ("formats", extension).
        coverage: share of foreground, summed over the masks.
        flaws: members out of place.
        broken: the byte at which a header was expected and not found; None where the tar could be read to its end.
    """

    samples: list[list[Member]] = field(default_factory=list)
    counts: Counter[tuple[str, ...]] = field(default_factory=Counter)
    coverage: float = 0.0
    flaws: list[str] = field(default_factory=list)
    broken: int | None = None

    def add(self, members: list[Member], text: bytes) -> None:
        """Count a sample: its files, and the bytes of its .json."""
        key, extensions = members[0].key, [member.extension for member in members]
        self.samples.append(members)
        images = [extension for extension in extensions if extension in IMAGES]
        self.counts.update([("samples",), *(("formats", extension) for extension in images)])
        self.counts["masks",] += _MASK in extensions
        if len(images) != 1:
            self.flaws.append(f"sample {key} has {len(images) or 'no'} image{'s' * bool(images)}")
        for member in members:
            if member.extension not in (*IMAGES, _MASK, _JSON):
                self.flaws.append(f"{member.name} is not a file that a sample has")
        if _JSON not in extensions:
            self.flaws.append(f"sample {key} has no .json")
            return
        try:
            meta = json.loads(text)
            if meta["key"] != key:
                self.flaws.append(f"{key}.json is of another sample, {meta['key']!r:.80}")
            if (_MASK in extensions) != ("mask_coverage" in meta):
                self.flaws.append(f"sample {key} and its .json disagree on whether it has a mask")
            coverage, size = float(meta.get("mask_coverage", 0)), f"{meta['width']:d}x{meta['height']:d}"
            label = meta["class"]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            self.flaws.append(f"{key}.json is not what medsass writes ({type(error).__name__}: {error})")
            return
        self.coverage += coverage
        self.counts.update([("sizes", size)] if label is None else [("sizes", size), ("classes", str(label))])


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


def read(file: BinaryIO) -> Contents:
    """Read a tar file to its end, past the header that is broken if there is one."""
    found = Contents()
    sample: list[Member] = []
    at, text = 0, b""
    while any(block := file.read(tarfile.BLOCKSIZE)):
        try:
            info: tarfile.TarInfo | None = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError:
            info = None
        if not info or not info.isreg():
            found.broken = at
            break
        member = Member(info.name, at + tarfile.BLOCKSIZE, info.size)
        if sample and (sample[0].key != member.key or member.extension in [each.extension for each in sample]):
            found.add(sample, text)
            sample, text = [], b""
        sample.append(member)
        at = member.end
        left = at - member.offset
        if member.extension == _JSON:
            text = file.read(left)[: member.size]
        else:
            while left and (piece := file.read(min(left, _PIECE))):
                left -= len(piece)
    if sample:
        found.add(sample, text)
    while file.read(_PIECE):
        pass
    return found


def find(
    folder: Path, shard: Shard, others: Mapping[str, str], tick: Callable[[int], None]
) -> tuple[list[Problem], Contents | None]:
    """Find what is wrong with a tar file, its index and its checksums.

    Args:
        folder: the shard folder or its address.
        shard: the tar file as the manifest describes it.
        others: the names of the dataset's tar files by their SHA-256.
        tick: is called with the number of bytes after each piece that was read.

    Returns:
        The problems, and the contents of the tar file; None where it is damaged.
    """
    path, beside = folder / shard.file, list[Problem]()
    index = _load(path.with_suffix(tar.INDEX), COPY, beside)
    sums = _load(path.with_suffix(tar.CHECKSUMS), SIDE, beside)
    try:
        if not path.is_file():
            return [Problem(shard.file, "is missing", COPY), *beside], None
        with path.open("rb") as file:
            stream = _Hashed(cast(BinaryIO, file), shard.bytes, tick)
            contents = read(cast(BinaryIO, io.BufferedReader(stream, _PIECE)))
    except OSError as error:
        return [Problem(shard.file, f"cannot be read ({error})", COPY), *beside], None
    sha256 = stream.sha256.hexdigest()
    if sha256 != shard.sha256 and sha256 in others:
        text = f"holds what belongs into {others[sha256]}, byte for byte"
        return [Problem(shard.file, text, f"give both their right names, or {COPY}"), *beside], None
    if sha256 != shard.sha256:
        return [*_damaged(shard, stream, contents, index, sums), *beside], None
    if stream.size != shard.bytes:
        text = f"says that {shard.file} has {shard.bytes} bytes, but it has {stream.size} and the right SHA-256"
        return [Problem(manifest.NAME, text, TOGETHER), *beside], None
    return [*_intact(shard, stream, contents, index, sums), *beside], contents if contents.broken is None else None


def _load(path: Path, remedy: str, problems: list[Problem]) -> bytes | None:
    try:
        if path.is_file():
            return path.read_bytes()
        problems.append(Problem(path.name, "is missing", remedy))
    except OSError as error:
        problems.append(Problem(path.name, f"cannot be read ({error})", remedy))
    return None


def _intact(
    shard: Shard, stream: _Hashed, contents: Contents, index: bytes | None, sums: bytes | None
) -> Iterator[Problem]:
    """Find problems beside a tar file of the right bytes."""
    stem = shard.file.removesuffix(".tar")
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
    right = "".join([f"v1.2 {len(contents.samples)}\n", *map(tar.line, contents.samples)]).encode(
        "utf-8", "surrogateescape"
    )
    if index is not None and index != right:
        lines = zip_longest(index.split(b"\n"), right.split(b"\n"))
        number = next(number for number, (one, other) in enumerate(lines, 1) if one != other)
        name = stem + tar.INDEX
        remedy = f"copy it again, or write it anew from the tar file: wds2idx {shard.file} {name}"
        yield Problem(name, f"line {number} is not what the tar file says", remedy)
    if sums is not None and sums != stream.checksums.pack():
        yield Problem(stem + tar.CHECKSUMS, "holds other checksums than those of the tar file, which is intact", SIDE)


def _damaged(
    shard: Shard, stream: _Hashed, contents: Contents, index: bytes | None, sums: bytes | None
) -> Iterator[Problem]:
    """Say which samples of a tar file of the wrong bytes are damaged, and whether the index fits the others."""
    size, stem = stream.size, shard.file.removesuffix(".tar")
    held = {member.offset: member for sample in contents.samples for member in sample}
    named = _members(index)
    due = -(-shard.bytes // BLOCK) * 4  # bytes of checksums
    known = sums is not None and len(sums) == due
    whole = stream.checksums.pack()[: size // BLOCK * 4 if size < shard.bytes else None]  # a cut block has no checksum
    bad = np.zeros(0, np.bool_)
    if sums is not None and known:
        bad = np.frombuffer(sums, "<u4", len(whole) // 4) != np.frombuffer(whole, "<u4")
    before = [0, *np.cumsum(bad).tolist()]  # damaged blocks before each block

    def harmed(member: Member) -> bool:
        first, last = (member.offset - tarfile.BLOCKSIZE) // BLOCK, -(-member.end // BLOCK)
        return member.end > size or before[min(last, len(bad))] > before[min(first, len(bad))]

    members = sorted({**held, **(named or {})}.values(), key=lambda member: member.offset)
    keys = tuple(dict.fromkeys(member.key for member in members if harmed(member)))
    text, remedy = "is damaged", COPY
    if size < shard.bytes:
        text = f"is cut off after {size} of {shard.bytes} bytes"
    elif size > shard.bytes:
        text = f"is {size} bytes long, {size - shard.bytes} more than the manifest says"
    elif known and not bad.any():
        text = "fits its checksums, but not the SHA-256 in the manifest: they are of different datasets"
        remedy = TOGETHER
    if keys:
        more = f" and {len(keys) - _MOST} more" if len(keys) > _MOST else ""
        text += f": sample{'s' * (len(keys) > 1)} {', '.join(keys[:_MOST])}{more}"
    lacking = tar.INDEX if named is None and len(contents.samples) < shard.samples else ""
    if lacking := lacking if known else tar.CHECKSUMS:
        text += f" (which {'other ' * bool(keys)}samples are damaged cannot be told without an intact {stem}{lacking})"
    elif bad.any() and not keys:
        text += " behind its last sample"
    yield Problem(shard.file, text, remedy, keys)
    if index is not None and named is None:
        yield Problem(stem + tar.INDEX, "is not an index of samples", COPY)
    elif named is not None and any(named.get(at) != held[at] for at in held if not harmed(held[at])):
        yield Problem(stem + tar.INDEX, "names other members than the tar file holds", COPY)
    if sums is not None and not known:
        text = f"has {len(sums)} bytes, should have {due}"
        yield Problem(stem + tar.CHECKSUMS, text, SIDE)


def _members(index: bytes | None) -> dict[int, Member] | None:
    """Return the members that an index names by their offset, or None where there is no readable index."""
    try:
        samples = list(tar.read_index((index or b"").decode()))
    except ValueError:
        return None
    return {member.offset: member for sample in samples for member in sample} or None
