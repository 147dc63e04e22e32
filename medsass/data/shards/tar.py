"""Tar shards with their DALI index and checksums, written in one pass; the same samples always give the same bytes.

A shard is plain WebDataset: the files of a sample stand side by side under one key. Time, owner and mode in the tar
headers are fixed. The index is DALI's `v1.2` text format: a first line with the number of samples, then a line per sample
with `extension offset size name` for each file, offsets in bytes from the start of the tar to the file's data. The
checksums, one little-endian uint32 (`zlib.crc32`) for each block of `BLOCK` bytes, the last of which may be shorter, tell
which samples of a damaged tar are wrong; only `medsass verify` reads them.
"""

import contextlib
import errno
import hashlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import IO, Literal, NamedTuple, cast, get_args

import numpy as np
from pydantic import NonNegativeInt
from pydantic.dataclasses import dataclass
from zlib_ng.zlib_ng import crc32

from medsass import files, temporary
from medsass.config import schema
from medsass.data.shards.header import header

Extension = Literal["jpg", "png", "jp2"]  # of an image in a shard
IMAGES: tuple[str, ...] = get_args(Extension)
INDEX, CHECKSUMS = ".idx", ".crc"  # suffixes of the files beside a tar
BLOCK = 4096  # bytes that have one checksum

_END = 2 * tarfile.BLOCKSIZE  # two zero blocks close a tar, which is then padded to whole records
_ODD = bytes({*range(32), ord("/"), 127} - {ord("\n")})  # in names: control characters, and what leads to folders
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP)  # answers of file systems that cannot sync a folder


@dataclass(frozen=True, config=schema.CLOSED)
class Shard:
    """A finished tar file: name, number of samples, size in bytes, SHA-256 of its bytes, and of its index ("" of older versions)."""

    file: str
    samples: NonNegativeInt
    bytes: NonNegativeInt
    sha256: str
    index: str = ""

    @property
    def most(self) -> int:
        """The bytes that its index may have; the smallest sample takes 1 KiB of a tar, and its line is shorter than that."""
        return min(1024 * (self.samples + 1), max(self.bytes, 1024), 1 << 30)


class Member(NamedTuple):
    """A file in a tar: its name, and where its data starts and how long it is, in bytes."""

    name: str
    offset: int
    size: int

    @property
    def parts(self) -> tuple[str, str]:
        """The sample that it belongs to, its name up to the first dot, and its role there: "png", "mask.png", "json"."""
        folder, slash, name = self.name.rpartition("/")
        key, _, role = name.partition(".")
        return folder + slash + key, role

    @property
    def key(self) -> str:
        """The sample that it belongs to."""
        return self.parts[0]

    @property
    def end(self) -> int:
        """Where the next member's header starts, in bytes."""
        return self.offset + _padded(self.size)


class Checksums:
    """The checksums of a stream of bytes that arrives in pieces of any length."""

    def __init__(self) -> None:
        self._done, self._rest = bytearray(), b""

    def update(self, data: bytes) -> None:
        """Append `data` to the stream."""
        self._rest += data
        count, view = len(self._rest) // BLOCK, memoryview(self._rest)
        blocks = map(view.__getitem__, map(slice, range(0, count * BLOCK, BLOCK), range(BLOCK, len(view) + 1, BLOCK)))
        self._done += np.fromiter(map(crc32, blocks), "<u4", count).tobytes()
        self._rest = self._rest[count * BLOCK :]

    def pack(self) -> bytes:
        """Return the checksums of the stream so far, as they stand on disk."""
        return bytes(self._done) + (crc32(self._rest).to_bytes(4, "little") if self._rest else b"")


class ShardWriter:
    """Writer of the samples of one split into `<split>-000000.tar`, `-000001.tar`, ... of at most `max_bytes` each.

    A sample larger than `max_bytes` gets a tar file of its own. `first` is the number of tar files of the split that
    exist already. Files are written under a temporary name and renamed when they are complete and on disk, the index and
    the checksums first, so that a tar with its final name always has them.
    """

    def __init__(self, folder: Path, split: str, max_bytes: int, first: int = 0) -> None:
        self.folder, self.split, self.max_bytes = folder, split, max_bytes
        self._number = first
        self._tar: _Tar | None = None

    def add(self, key: str, content: Mapping[str, bytes]) -> Shard | None:
        """Append one sample: `content` maps an extension ("png", "mask.png", "json") to the file's bytes.

        Returns the tar file that had to be finished first because the sample did not fit into it. If writing fails,
        the tar file in progress is dropped and the error raised.
        """
        finished = None
        if self._tar:
            size = self._tar.size + sum(tarfile.BLOCKSIZE + _padded(len(data)) for data in content.values()) + _END
            finished = self.close() if _padded(size, tarfile.RECORDSIZE) > self.max_bytes else None
        try:
            self._tar = self._tar or _Tar(self.folder / f"{self.split}-{self._number:06d}.tar")
            self._tar.add(key, content)
        except BaseException:
            self.abort()
            raise
        return finished

    def close(self) -> Shard | None:
        """Finish the tar file in progress and return it. If that fails, it is dropped and the error raised."""
        if not self._tar:
            return None
        try:
            shard = self._tar.finish()
        except BaseException:
            self.abort()
            raise
        self._tar = None
        self._number += 1
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(handle)  # puts the names of its files on disk
        except OSError as error:
            if error.errno not in _NO_SYNC:
                raise
        finally:
            os.close(handle)
        return shard

    def abort(self) -> None:
        """Drop the tar file in progress; finished ones stay."""
        if self._tar:
            for file in (self._tar.file, self._tar.lines):
                with contextlib.suppress(OSError):  # a full disk fails again with what is still in the buffer
                    file.close()
            self._tar.part.unlink(missing_ok=True)
        self._tar = None


class _Tar:
    """A tar file in progress, hashed as it grows, which becomes `path`; `size` is in bytes.

    The lines of its index wait in a file without a name: with small images they would be most of the memory.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.size = path, 0
        self.file, self.part = temporary.created(path.parent)
        self.lines = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115 - closed by finish or by ShardWriter.abort
        self._samples = 0
        self._sha256, self._checksums = hashlib.sha256(), Checksums()

    def add(self, key: str, content: Mapping[str, bytes]) -> None:
        members, pieces, end = dict[str, Member](), list[bytes](), self.size
        for extension, data in content.items():
            member = Member(f"{key}.{extension}", end + tarfile.BLOCKSIZE, len(data))
            end = member.end
            pieces += [header(member.name, member.size), data, bytes(end - member.offset - member.size)]
            members[extension] = member
        self._write(b"".join(pieces))
        self.lines.write(line(members).encode())
        self._samples += 1

    def _write(self, data: bytes) -> None:
        self.file.write(data)
        self._sha256.update(data)
        self._checksums.update(data)
        self.size += len(data)

    def finish(self) -> Shard:
        """Write the end, then put index, checksums and tar in place; if that fails, none of the three stays."""
        index, checksums = self.path.with_suffix(INDEX), self.path.with_suffix(CHECKSUMS)
        try:
            self._write(bytes(_padded(self.size + _END, tarfile.RECORDSIZE) - self.size))
            self.file.flush()
            os.fsync(self.file.fileno())
            with files.atomic(index) as file:
                file.write(f"v1.2 {self._samples}\n".encode())
                self.lines.seek(0)
                shutil.copyfileobj(self.lines, file)
            self.lines.close()
            with index.open("rb") as held:
                digest = hashlib.file_digest(held, "sha256").hexdigest()
            files.write(checksums, self._checksums.pack())
            self.part.replace(self.path)
            self.file.close()
        except BaseException:
            for written in (index, checksums):
                with contextlib.suppress(OSError):
                    written.unlink()
            raise
        return Shard(self.path.name, self._samples, self.size, self._sha256.hexdigest(), digest)


def is_key(text: str) -> bool:
    """Return whether a sample may have this key. It is part of file names, and holds no folders and no control characters."""
    return bool(text) and "\n" not in text and not _is_odd(text)


def _is_odd(text: str) -> bool:
    data = text.encode(errors="surrogatepass")
    return len(data.translate(None, _ODD)) < len(data) or text.startswith(".") or " ." in text


def line(members: Mapping[str, tuple[str, int, int]]) -> str:
    """Return the line of one sample, its members by extension, in the index."""
    return " ".join([f"{kind} {offset} {size} {name}" for kind, (name, offset, size) in members.items()]) + "\n"


def read_index(text: str) -> Iterator[list[Member]]:
    """Yield the members of each sample from the text of an index. Raises `ValueError` for a line or a name that cannot be one."""
    if _is_odd(text):
        raise ValueError("a name holds a folder or control characters, or is hidden")
    for row in text.removesuffix("\n").split("\n")[1:]:
        words = row.split(" ")
        members = []
        for extension, offset, size, name in zip(words[::4], words[1::4], words[2::4], words[3::4], strict=True):
            member = Member(name, int(offset), int(size))
            if member.offset < tarfile.BLOCKSIZE or member.size < 0 or not name.endswith(extension):
                raise ValueError(row)
            members.append(member)
        yield members


def read(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield the samples of a tar file: key, and bytes by extension. For looking at shards; training has its own reader.

    Raises `ValueError` where a header is damaged, behind which nothing is read.
    """
    try:
        with tarfile.open(path, "r:") as opened:
            for key, items in groupby(opened, lambda member: member.name.partition(".")[0]):
                members = list(items)
                if not is_key(key) or not all(item.isreg() and not item.issparse() for item in members):
                    raise tarfile.ReadError(f"{members[0].name!r:.80} is no file of a sample")
                found = ((item.name.partition(".")[2], cast(IO[bytes], opened.extractfile(item))) for item in members)
                yield key, {extension: file.read() for extension, file in found}
            file = cast(IO[bytes], opened.fileobj)
            file.seek(opened.offset)
            if any(file.read(tarfile.BLOCKSIZE)):
                raise tarfile.ReadError(f"no header at byte {opened.offset}")
    except tarfile.TarError as error:
        raise ValueError(f"{path}: damaged ({error}); run: medsass verify {path.parent}") from error


def _padded(size: int, unit: int = tarfile.BLOCKSIZE) -> int:
    return -(-size // unit) * unit
