"""One pass over a tar file of which size, SHA-256 and checksums are known: what is wrong with its bytes, and where."""

import hashlib
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from medsass.data.shards import checksums as checksum
from medsass.data.shards.census import Walk
from medsass.data.shards.checksums import BLOCK
from medsass.data.shards.tar import Shard

_CHUNK = 256 * BLOCK  # bytes read at once
LOCATED = 16  # blocks that differ in which single bytes are looked for
_WAYS = 8  # combinations of explanations that are followed at the same time


@dataclass(frozen=True)
class Repair:
    """A byte of the file that is wrong: where, what it is, what it should be."""

    offset: int
    value: int
    right: int


@dataclass
class _Way:
    """The hash of the file as it would be with these bytes set right."""

    sha: Any
    repairs: list[Repair]


class Scan:
    """What one pass over a tar file found.

    `size` in bytes and SHA-256 `whole` are the file's own; `bad` numbers the blocks that differ from their checksum;
    `single` is the one changed byte that explains the first of them, if there is one. `repairs` are bytes that, set
    right, give the SHA-256 that the file should have: empty where nothing is wrong, None where none were found.
    `walk` has seen the file with those repairs that are certain.
    """

    def __init__(self, shard: Shard, checksums: list[int], walk: Walk) -> None:
        self.shard, self.walk = shard, walk
        self.size = 0
        self.whole = ""
        self.bad: list[int] = []
        self.single: Repair | None = None
        self.repairs: list[Repair] | None = None
        self._expected, self._found = checksums, list[int]()
        self._sha, self._beyond = hashlib.sha256(), cast(Any, None)
        self._ways: list[_Way] = []
        self._exact = True

    def run(self, path: Path, tick: Callable[[int], None]) -> None:
        """Read `path` once; `tick(bytes)` is called as the reading goes on. Raises `OSError`."""
        with path.open("rb") as file:
            for chunk in _chunks(cast(BinaryIO, file)):
                for start in range(0, len(chunk), BLOCK):
                    self._block(chunk[start : start + BLOCK])
                tick(len(chunk))
        digest = self._sha.hexdigest()
        self.whole = self._beyond.hexdigest() if self._beyond else digest
        if digest == self.shard.sha256:
            self.repairs = []
        else:
            right = (way.repairs for way in self._ways if way.sha.hexdigest() == self.shard.sha256)
            self.repairs = next(right, None)

    @property
    def checksums(self) -> bytes:
        """What the checksums on the disk should be; only where `repairs` is not None."""
        return checksum.pack(self._found)

    @property
    def fits(self) -> bool:
        """Whether the file has its size and every block has its checksum."""
        return self.located and not self.bad and self.size == self.shard.bytes

    @property
    def located(self) -> bool:
        """Whether every block of the file has a checksum to compare it with."""
        return checksum.packed_size(self.shard.bytes) <= len(checksum.pack(self._expected))

    @property
    def countable(self) -> bool:
        """Whether `walk` has seen what the file should hold."""
        return self.walk.complete and (self.fits or (self.repairs is not None and self._exact))

    def _block(self, data: bytes) -> None:
        """The next block of the file."""
        expected = self.shard.bytes - self.size
        block, number = data[: max(0, expected)], self.size // BLOCK
        comparable = bool(block) and len(block) == min(BLOCK, expected) and number < len(self._expected)
        crc, options = zlib.crc32(block), list[Repair]()
        if comparable and crc != self._expected[number]:
            if len(self.bad) < LOCATED:
                found = checksum.repairs(block, self._expected[number])
                options = [Repair(self.size + at, block[at], right) for at, right in found]
            self._follow(number, block, options)
        else:
            for way in self._ways:
                way.sha.update(block)
        self._sha.update(block)
        if len(data) > len(block):
            self._beyond = self._beyond or self._sha.copy()
            self._beyond.update(data[len(block) :])
        certain = len(options) == 1
        if block:
            self._found.append(self._expected[number] if options else crc)
            self.walk.feed(_repaired(block, options[0]) if certain else block)
        self.size += len(data)

    def _follow(self, number: int, block: bytes, options: list[Repair]) -> None:
        """Take a block that differs into account: each hash goes on with each repair of it. A block that no single byte
        explains stays as it is, for its checksum may be what is damaged.
        """
        if not self.bad:
            self._ways = [_Way(self._sha.copy(), [])]
            self.single = options[0] if len(options) == 1 else None
        elif len(self.bad) >= LOCATED:
            self._ways = []
        self._exact &= len(options) <= 1
        self.bad.append(number)
        choices: list[Repair | None] = [*options] or [None]
        following = []
        for way in self._ways:
            for option in choices:
                sha = way.sha.copy()
                sha.update(_repaired(block, option) if option else block)
                following.append(_Way(sha, [*way.repairs, option] if option else way.repairs))
        self._ways = following[:_WAYS]


def _repaired(block: bytes, repair: Repair) -> bytes:
    at = repair.offset % BLOCK
    return block[:at] + bytes([repair.right]) + block[at + 1 :]


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    """The bytes of a file in whole blocks, but for the last."""
    while chunk := file.read(_CHUNK):
        while len(chunk) % BLOCK and (more := file.read(_CHUNK - len(chunk))):
            chunk += more
        yield chunk
