"""What is wrong with one tar file and the two files beside it, in words: which byte of which sample, and what to do."""

import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from medsass.data.shards import checksums, manifest, tar
from medsass.data.shards.census import Census, Walk, known
from medsass.data.shards.checksums import BLOCK
from medsass.data.shards.scan import LOCATED, Repair, Scan
from medsass.data.shards.tar import Member, Shard

NEW = "make the shards anew: medsass shard SOURCE OUT --overwrite"
COPY = f"copy it again from where it came, or {NEW}"
TOGETHER = f"copy manifest.json and the tar files again, together, or {NEW}"
SIDE = "copy it again from where it came; only medsass verify reads it, training does not"

_WORD = 40  # bytes of a word of the index that are shown behind the wrong one


@dataclass(frozen=True)
class Problem:
    """Something wrong: in which file, at which byte (where there is one), what, and what to do about it."""

    file: str
    offset: int | None
    text: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.file}: {self.text}; {self.remedy}"


def find(
    folder: Path, shard: Shard, others: Mapping[str, str], tick: Callable[[int], None]
) -> tuple[list[Problem], Census | None]:
    """What is wrong with a tar file, its index and its checksums, in this order; and what the tar file holds, None where
    that cannot be known. `others` names the dataset's tar files by their SHA-256. The tar file is read once, in pieces;
    `tick(bytes)` is called after each.
    """
    stem = shard.file.removesuffix(".tar")
    index, index_problem = _load(folder, stem + tar.INDEX, COPY)
    sums, sums_problem = _load(folder, stem + tar.CHECKSUMS, SIDE)
    beside = [problem for problem in (index_problem, sums_problem) if problem]
    scan = Scan(shard, checksums.unpack(sums or b""), Walk(known(index or b"")))
    path = folder / shard.file
    try:
        if not path.is_file():
            return [Problem(shard.file, None, "is missing", COPY), *beside], None
        scan.run(path, tick)
    except OSError as error:
        text = f"cannot be read from byte {scan.size} on ({error})"
        return [Problem(shard.file, scan.size, text, COPY), *beside], None
    if scan.whole == shard.sha256 and scan.size != shard.bytes:
        text = f"says that {shard.file} has {shard.bytes} bytes, but it has {scan.size} and the right SHA-256"
        return [Problem(manifest.NAME, None, text, TOGETHER), *beside], None
    if scan.whole != shard.sha256 and scan.whole in others:
        text = f"holds what belongs into {others[scan.whole]}, byte for byte"
        return [Problem(shard.file, None, text, f"give both their right names, or {COPY}"), *beside], None
    found = [*_bytes(scan, _members(scan.walk, index or b"")), *_content(scan)]
    if index_problem:
        found.append(index_problem)
    elif index is not None:
        found += _index(stem, index, scan)
    if sums_problem:
        found.append(sums_problem)
    elif sums is not None:
        found += _checksums(stem, sums, scan)
    return found, scan.walk.census if scan.countable else None


def _load(folder: Path, name: str, remedy: str) -> tuple[bytes | None, Problem | None]:
    try:
        if not (folder / name).is_file():
            return None, Problem(name, None, "is missing", remedy)
        return (folder / name).read_bytes(), None
    except OSError as error:
        return None, Problem(name, None, f"cannot be read ({error})", remedy)


def _bytes(scan: Scan, members: list[Member]) -> list[Problem]:
    """Bytes of the tar file that are wrong, missing or too many."""
    shard, found = scan.shard, []

    def add(offset: int | None, text: str, remedy: str = COPY) -> None:
        found.append(Problem(shard.file, offset, text, remedy))

    def wrong(repair: Repair, more: str = "") -> None:
        place = _place(members, repair.offset, repair.offset)
        value, right = f"0x{repair.value:02x}", f"0x{repair.right:02x}"
        add(repair.offset, f"byte {repair.offset}{place} is wrong: {value}, should be {right}{more}")

    if scan.repairs is not None:
        for repair in scan.repairs:
            wrong(repair)
    elif scan.bad:
        first = scan.bad[0] * BLOCK
        last = min(first + BLOCK, shard.bytes) - 1
        count, end = len(scan.bad) - 1, min((scan.bad[-1] + 1) * BLOCK, shard.bytes) - 1
        more = f", and more in {count} other block{'s' * (count > 1)} up to byte {end}" if count else ""
        disproved = count == 0 and scan.size >= shard.bytes  # with that byte set right, the SHA-256 is still wrong
        if scan.single and not disproved and count < LOCATED:
            wrong(scan.single, more)
        else:
            add(first, f"wrong within bytes {first} to {last}{_place(members, first, last)}{more}")
    elif scan.size >= shard.bytes and scan.located:
        text = (
            "its SHA-256 is not the manifest's, though every block fits the checksums: they are of different datasets"
        )
        add(None, text, TOGETHER)
    elif scan.size >= shard.bytes:
        add(None, "its SHA-256 is not the manifest's; which bytes are wrong is unknown without its .crc file")
    if scan.size < shard.bytes:
        place = _place(members, scan.size, scan.size)
        add(scan.size, f"is cut off: byte {scan.size}{place} is the first of {shard.bytes - scan.size} missing ones")
    elif scan.size > shard.bytes:
        add(shard.bytes, f"byte {shard.bytes}, behind its end, is the first of {scan.size - shard.bytes} surplus ones")
    return found


def _content(scan: Scan) -> list[Problem]:
    """Members of a tar file of right bytes that make no samples."""
    shard, census = scan.shard, scan.walk.census
    if not scan.countable:
        if scan.repairs == [] and scan.walk.stopped is not None:
            text = f"has the right SHA-256, but byte {scan.walk.stopped} starts no member of a tar file"
            return [Problem(shard.file, scan.walk.stopped, text, NEW)]
        return []
    found = [Problem(shard.file, flaw.offset, flaw.text, NEW) for flaw in census.flaws]
    if census.more:
        found.append(Problem(shard.file, None, f"{census.more} more members are out of place", NEW))
    if census.counts.samples != shard.samples:
        text = f"says that {shard.file} has {shard.samples} samples, but it has {census.counts.samples}"
        found.append(Problem(manifest.NAME, None, text, TOGETHER))
    return found


def _index(stem: str, data: bytes, scan: Scan) -> list[Problem]:
    """The first byte at which the index is not that of the tar file, as far as the tar file can be read."""
    name = stem + tar.INDEX
    right = tar.index(scan.walk.samples).encode("utf-8", "surrogateescape")
    if not scan.countable:  # only what stands before the first damage that breaks off the walk, but for the count
        lines = max(1, len(scan.walk.samples))
        seen, said = data.split(b"\n"), right.split(b"\n")
        data, right = b"\n".join(seen[:lines]), b"\n".join([*seen[:1], *said[1:lines]])
    offset = _difference(data, right)
    if offset is None:
        return []
    line = right.count(b"\n", 0, offset) + 1
    text = f"byte {offset} (line {line}) is not what the tar file says: "
    text += f"{_word(data, offset)}, should be {_word(right, offset)}"
    remedy = COPY
    if scan.repairs == []:
        remedy = f"copy it again, or write it anew from the tar file: wds2idx {scan.shard.file} {name}"
    return [Problem(name, offset, text, remedy)]


def _word(data: bytes, offset: int) -> str:
    """The word that holds a byte, as it is shown."""
    if offset >= len(data):
        return "nothing"
    if data[offset : offset + 1] == b"\n":
        return "the end of the line"
    if data[offset : offset + 1] == b" ":
        return "a space"
    start = max(data.rfind(b" ", 0, offset), data.rfind(b"\n", 0, offset)) + 1
    word = data[start : offset + _WORD].split(b"\n")[0].split(b" ")[0]
    return repr(word.decode("utf-8", "backslashreplace"))


def _checksums(stem: str, data: bytes, scan: Scan) -> list[Problem]:
    """The first byte at which the checksums are not those of the tar file; their length only, where that is damaged."""
    name, size = stem + tar.CHECKSUMS, checksums.packed_size(scan.shard.bytes)
    offset = _difference(data, scan.checksums) if scan.repairs is not None else None
    if offset is not None and offset < min(len(data), size):
        block = offset // 4 * BLOCK
        last = min(block + BLOCK, scan.shard.bytes) - 1
        text = f"byte {offset}, of the checksum of bytes {block} to {last} of the tar file, is wrong: "
        return [Problem(name, offset, f"{text}0x{data[offset]:02x}, should be 0x{scan.checksums[offset]:02x}", SIDE)]
    if len(data) != size:
        return [Problem(name, min(len(data), size), f"has {len(data)} bytes, should have {size}", SIDE)]
    return []


def _difference(a: bytes, b: bytes) -> int | None:
    if a == b:
        return None
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _members(walk: Walk, index: bytes) -> list[Member]:
    """The members of a tar file in order; behind a header that cannot be read those that the index names."""
    seen = walk.members
    end = seen[-1].end if seen else 0
    named = [] if walk.complete else [member for offset, member in sorted(known(index).items()) if offset >= end]
    return [*seen, *named]


def _place(members: list[Member], first: int, last: int) -> str:
    """Which members hold the bytes from `first` to `last`, in brackets."""
    held = [member for member in members if member.offset - tarfile.BLOCKSIZE <= last and first < member.end]
    if not held:
        return " (behind the last sample)" if members and first >= members[-1].end else ""
    one, other = held[0], held[-1]
    if one is not other:
        keys = f"sample {one.key}" if one.key == other.key else f"samples {one.key} to {other.key}"
        return f" ({keys}, {one.name} to {other.name})"
    part = "the header of " if last < one.offset else "the padding of " if first >= one.offset + one.size else ""
    return f" (sample {one.key}, {part}{one.name})"
