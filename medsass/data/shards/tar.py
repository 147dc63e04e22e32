"""Tar shards with their DALI index and checksums, written in one pass, byte for byte the same for the same samples.

A shard is plain WebDataset: the files of a sample stand side by side under one key. Everything in the tar headers that
could differ between two runs (time, owner, mode) is fixed. The index is DALI's `v1.2` text format: a count, then per
sample `extension offset size name` for each file, offsets in bytes from the start of the tar to the file's data. The
checksums (`checksum`) tell where a damaged tar is wrong; only `medsass verify` reads them.
"""

import contextlib
import errno
import hashlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medsass import files
from medsass.data.shards.checksums import Checksums

IMAGES = ("jpg", "png", "jp2")  # extensions that an image may have in a shard
INDEX, CHECKSUMS = ".idx", ".crc"  # suffixes of the files beside a tar

_NAME = 100  # bytes
_HEADER = tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT)  # of an empty file: what stays the same
_END = 2 * tarfile.BLOCKSIZE  # two zero blocks close a tar, which is then padded to whole records
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP)  # what file systems answer that cannot sync a folder


@dataclass(frozen=True)
class Shard:
    """A finished tar file: name, number of samples, size in bytes, SHA-256 of its bytes."""

    file: str
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Member:
    """A file in a tar: its name, and where its data starts and how long it is, in bytes."""

    name: str
    offset: int
    size: int

    @property
    def key(self) -> str:
        """The sample that it belongs to."""
        return self.name[: self._dot]

    @property
    def extension(self) -> str:
        """What it is in its sample, such as "png", "mask.png" or "json"."""
        return self.name[self._dot + 1 :]

    @property
    def _dot(self) -> int:
        dot = self.name.find(".", self.name.rfind("/") + 1)
        return dot if dot >= 0 else len(self.name)

    @property
    def end(self) -> int:
        """Where the next member's header starts, in bytes."""
        return self.offset + _padded(self.size)


class ShardWriter:
    """Writes the samples of one split into `<split>-000000.tar`, `-000001.tar`, ... of at most `max_bytes` each.

    A sample larger than `max_bytes` gets a tar file of its own. `first` is the number of tar files of the split that
    exist already. Files are written under a temporary name and renamed when they are whole and on the disk, the index
    and the checksums first, so that a tar with its final name always has them.
    """

    def __init__(self, folder: Path, split: str, max_bytes: int, first: int = 0) -> None:
        self.folder, self.split, self.max_bytes = folder, split, max_bytes
        self._number = first
        self._stream: _Stream | None = None
        self._count = 0

    def add(self, key: str, content: Mapping[str, bytes]) -> Shard | None:
        """Append one sample: `content` maps an extension ("png", "mask.png", "json") to the file's bytes.

        Returns the tar file that had to be finished first because the sample did not fit into it. If writing fails,
        the tar file in progress is dropped and the error raised.
        """
        size = sum(tarfile.BLOCKSIZE + _padded(len(data)) for data in content.values())
        full = self._stream and _padded(self._stream.tell() + size + _END, tarfile.RECORDSIZE) > self.max_bytes
        finished = self.close() if full else None
        try:
            stream = self._stream or self._start()
            members, pieces, end = [], [], stream.tell()
            for extension, data in content.items():
                member = Member(f"{key}.{extension}", end + tarfile.BLOCKSIZE, len(data))
                end = member.end
                pieces += [header(member.name, member.size), data, bytes(end - member.offset - member.size)]
                members.append(member)
            stream.write(b"".join(pieces))
            stream.lines.write(line(members).encode())
        except BaseException:
            self.abort()
            raise
        self._count += 1
        return finished

    def close(self) -> Shard | None:
        """Finish the tar file in progress and return it. If that fails, it is dropped and the error raised."""
        if not self._stream:
            return None
        path = self._path
        beside = path.with_suffix(INDEX), path.with_suffix(CHECKSUMS)
        try:
            end = self._stream.tell() + _END
            self._stream.write(bytes(_END + _padded(end, tarfile.RECORDSIZE) - end))
            self._stream.close()
            with files.atomic(beside[0]) as file:
                file.write(_first_line(self._count).encode())
                self._stream.lines.seek(0)
                shutil.copyfileobj(self._stream.lines, file)
            self._stream.lines.close()
            files.write(beside[1], self._stream.checksums.pack())
            self._part.replace(path)
        except BaseException:
            self.abort()
            for written in beside:
                with contextlib.suppress(OSError):
                    written.unlink()
            raise
        shard = Shard(path.name, self._count, self._stream.tell(), self._stream.sha256.hexdigest())
        self._stream = None
        self._number += 1
        _sync(self.folder)
        return shard

    def abort(self) -> None:
        """Drop the tar file in progress; finished ones stay."""
        if self._stream:
            self._stream.drop()
            self._part.unlink(missing_ok=True)
        self._stream = None

    @property
    def _path(self) -> Path:
        return self.folder / f"{self.split}-{self._number:06d}.tar"

    @property
    def _part(self) -> Path:
        return self._path.with_suffix(".tar.part")

    def _start(self) -> "_Stream":
        self._stream, self._count = _Stream(self._part), 0
        return self._stream


def header(name: str, size: int) -> bytes:
    """The 512 bytes before a file in a tar (POSIX ustar), as `tarfile` writes them for mode 644 and no owner or time.

    Raises `ValueError` for a name of more than 100 bytes and for a size that the format cannot hold.
    """
    text = name.encode()
    if len(text) > _NAME or size >> 33:
        raise ValueError(f"{name}: {size} bytes do not fit into a tar file, whose names have at most {_NAME} bytes")
    block = bytearray(_HEADER)
    block[:_NAME] = text.ljust(_NAME, b"\0")
    block[124:135] = b"%011o" % size
    block[148:156] = b"%06o\0 " % (sum(block) - sum(block[148:156]) + 8 * ord(" "))
    return bytes(block)


class _Stream:
    """A file that is written from start to end, and hashed on the way; `lines` are of its index, in a file without a
    name, because with small images they would be most of the memory.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self.lines = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115 - closed by the writer, or by drop
        self._size = 0
        self.sha256, self.checksums = hashlib.sha256(), Checksums()

    def write(self, data: bytes) -> int:
        self._file.write(data)
        self.sha256.update(data)
        self.checksums.update(data)
        self._size += len(data)
        return len(data)

    def tell(self) -> int:
        return self._size

    def close(self) -> None:
        """Close the file when all of it is on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def drop(self) -> None:
        """Close the file, which is not wanted any more."""
        for file in (self._file, self.lines):
            with contextlib.suppress(OSError):  # a full disk fails again with what is still in the buffer
                file.close()


def index(samples: Sequence[Sequence[Member]]) -> str:
    """The text of a tar's DALI index."""
    return "".join([_first_line(len(samples)), *map(line, samples)])


def line(members: Sequence[Member]) -> str:
    """The line of one sample in the index."""
    return " ".join(f"{file.extension} {file.offset} {file.size} {file.name}" for file in members) + "\n"


def _first_line(samples: int) -> str:
    return f"v1.2 {samples}\n"


def read(path: Path) -> Iterable[tuple[str, dict[str, bytes]]]:
    """Samples of a tar file in order: key, and bytes by extension. For looking at shards; training reads with DALI."""
    key = ""
    content: dict[str, bytes] = {}
    with tarfile.open(path) as tar:
        for member in tar:
            name, _, extension = member.name.partition(".")
            if name != key and content:
                yield key, content
                content = {}
            key = name
            file: Any = tar.extractfile(member)
            content[extension] = file.read()
    if content:
        yield key, content


def _padded(size: int, unit: int = tarfile.BLOCKSIZE) -> int:
    return -(-size // unit) * unit


def _sync(folder: Path) -> None:
    """Put the names of a folder's files on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(handle)
