"""Damage of one tar file and the two files beside it: which samples are affected, and what to do.

The tar file is read in pieces. Its SHA-256 says whether it is intact; where it is not, the checksums of its blocks say which
samples are damaged. What it holds is looked into unless a seal vouches for that.
"""

import hashlib
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from medsass import files
from medsass.data.shards import manifest, tar
from medsass.data.shards.contents import Contents, Tally
from medsass.data.shards.tar import BLOCK, Checksums, Member, Shard

NEW = "make the shards anew: medsass shard SOURCE OUT --overwrite"
COPY = f"copy it again from where it came, or {NEW}"
TOGETHER = f"copy manifest.json and the tar files again, together, or {NEW}"
SIDE = "copy it again from where it came; only medsass verify reads it, training does not"

_SPARE = 1 << 30  # bytes: a file of four times those that it should have, and these, is no other one of its dataset
_PIECE = 1 << 20  # bytes read at a time
_AHEAD = 16 << 20  # bytes that the system reads on
_MOST = 8  # samples or flaws of a tar file that are named; the others are counted


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
class _Read:
    """What a pass over a tar file gives: its size and SHA-256, the checksums of its first bytes, as many as it should have, and
    its contents.
    """

    size: int
    sha256: str
    checksums: bytes
    contents: Contents


def _read(path: Path, limit: int, tick: Callable[[int], None], *, look: bool) -> _Read:
    """Read a file to its end, unless that is far beyond where it should be, and `look` into it. Its pieces are hashed in a thread,
    which leaves the interpreter to the rest.
    """
    size, sha256, checksums, contents = 0, hashlib.sha256(), Checksums(), Contents()
    with path.open("rb") as file, ThreadPoolExecutor(1) as pool:
        data = file.read(_PIECE)
        while data and size <= 4 * limit + _SPARE:
            hashed = pool.submit(sha256.update, data)
            _prefetch(file, size + _PIECE)
            ahead = file.read(_PIECE)  # while this thread waits, the other begins
            checksums.update(data[: max(0, limit - size)])
            if look:
                contents.update(data)
            size += len(data)
            tick(len(data))
            hashed.result()
            data = ahead
    contents.finish()
    size = path.stat().st_size if data else size
    return _Read(size, sha256.hexdigest(), checksums.pack(), contents)


def _prefetch(file: IO[bytes], place: int) -> None:
    """Have the system read on from a place in a file, where it can."""
    with suppress(AttributeError, OSError):
        os.posix_fadvise(file.fileno(), place, _AHEAD, os.POSIX_FADV_WILLNEED)


def find(
    folder: Path, shard: Shard, others: Mapping[str, str], tick: Callable[[int], None], *, sealed: bool = False
) -> tuple[list[Problem], Tally | None]:
    """Find what is wrong with a tar file, its index and its checksums. Of a damaged tar file the index is not judged.

    Args:
        folder: the shard folder or its address.
        shard: the tar file as the manifest describes it.
        others: the names of the dataset's tar files by their SHA-256.
        tick: is called with the number of bytes after each piece that was read.
        sealed: whether the manifest vouches for what a tar file of the right bytes holds (`manifest.is_sealed`).

    Returns:
        The problems, and what the tar file holds; None where it is damaged or sealed.
    """
    path, beside, held = folder / shard.file, list[Problem](), dict[str, bytes]()
    for suffix, remedy in ((tar.INDEX, COPY), (tar.CHECKSUMS, SIDE)):
        side = path.with_suffix(suffix)
        try:
            if side.is_file():
                held[suffix] = files.read(side, shard.most)
            else:
                beside.append(Problem(side.name, "is missing", remedy))
        except OSError as error:
            beside.append(Problem(side.name, f"cannot be read ({error})", remedy))
    try:
        if not path.is_file():
            return [Problem(shard.file, "is missing", COPY), *beside], None
        read = _read(path, shard.bytes, tick, look=not sealed)
        sha256, index = read.sha256, hashlib.sha256(held.get(tar.INDEX, b"")).hexdigest()
        if sealed and (read.size, sha256, index) == (shard.bytes, shard.sha256, shard.index):
            return [*_checksums(shard, read, held), *beside], None
        read = _read(path, shard.bytes, lambda _: None, look=True) if sealed else read
    except OSError as error:
        return [Problem(shard.file, f"cannot be read ({error})", COPY), *beside], None
    if read.sha256 == shard.sha256:
        whole = read.contents.broken is None and read.size == shard.bytes
        return [*_intact(shard, read, held), *beside], read.contents.tally if whole else None
    if read.sha256 in others:
        text = f"holds what belongs into {others[read.sha256]}, byte for byte"
        return [Problem(shard.file, text, f"give both their right names, or {COPY}"), *beside], None
    return [*_damaged(shard, read, held), *beside], None


def _intact(shard: Shard, read: _Read, held: Mapping[str, bytes]) -> Iterator[Problem]:
    """Find problems in and beside a tar file of the right bytes; `held` has the files beside it by their suffix."""
    contents = read.contents
    if read.size != shard.bytes:
        text = f"says that {shard.file} has {shard.bytes} bytes, but it has {read.size} and the right SHA-256"
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
    lines = "".join([f"v1.2 {len(contents.samples)}\n", *map(tar.line, contents.samples)])
    index = lines.encode("utf-8", "surrogateescape")
    if held.get(tar.INDEX, index) != index:
        name = shard.file.removesuffix(".tar") + tar.INDEX
        remedy = f"copy it again, or write it anew from the tar file: wds2idx {shard.file} {name}"
        yield Problem(name, "is not what the tar file says", remedy)
    elif tar.INDEX in held and shard.index not in ("", hashlib.sha256(index).hexdigest()):
        text = f"says another SHA-256 of the index of {shard.file}, which is what the tar file says"
        yield Problem(manifest.NAME, text, TOGETHER)
    yield from _checksums(shard, read, held)


def _checksums(shard: Shard, read: _Read, held: Mapping[str, bytes]) -> Iterator[Problem]:
    """Find whether the checksums beside an intact tar file are its own."""
    if held.get(tar.CHECKSUMS, read.checksums) != read.checksums:
        name = shard.file.removesuffix(".tar") + tar.CHECKSUMS
        yield Problem(name, "holds other checksums than those of the tar file, which is intact", SIDE)


def _damaged(shard: Shard, read: _Read, held: Mapping[str, bytes]) -> Iterator[Problem]:
    """Say which samples of a tar file of the wrong bytes are damaged: those in blocks of another checksum, or cut off."""
    size, contents = read.size, read.contents
    stem, sums = shard.file.removesuffix(".tar"), held.get(tar.CHECKSUMS, b"")
    members = {member[1]: Member(*member) for sample in contents.samples for member in sample.values()}
    try:  # the index knows the members behind a damaged header
        named = [member for sample in tar.read_index(held.get(tar.INDEX, b"").decode()) for member in sample]
    except ValueError:
        named = []
    members |= {member.offset: member for member in named}
    due = -(-shard.bytes // BLOCK) * 4
    bad = np.zeros(0, np.intp)
    if known := len(sums) == due and tar.CHECKSUMS in held:
        seen = read.checksums[: size // BLOCK * 4 if size < shard.bytes else None]  # a cut block has none
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
