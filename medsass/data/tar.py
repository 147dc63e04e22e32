"""Tar shards with their DALI index, written in one pass and byte for byte the same for the same samples.

A shard is plain WebDataset: the files of a sample stand side by side under one key. Everything in the tar headers that
could differ between two runs (time, owner, mode) is fixed. The index is DALI's `v1.2` text format: a count, then per
sample `extension offset size name` for each file, offsets in bytes from the start of the tar to the file's data.
"""

import hashlib
import io
import os
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medsass import files

IMAGES = ("jpg", "png", "jp2")  # extensions that an image may have in a shard

_END = 2 * tarfile.BLOCKSIZE  # two zero blocks close a tar, which is then padded to whole records


@dataclass(frozen=True)
class Shard:
    """A finished tar file: name, number of samples, size in bytes, SHA-256 of its bytes."""

    file: str
    samples: int
    bytes: int
    sha256: str


class ShardWriter:
    """Writes the samples of one split into `<split>-000000.tar`, `-000001.tar`, ... of at most `max_bytes` each.

    A sample larger than `max_bytes` gets a tar file of its own. Files are written under a temporary name and renamed
    when they are whole, the index first, so that a tar with its final name always has its index.
    """

    def __init__(self, folder: Path, split: str, max_bytes: int) -> None:
        self.folder, self.split, self.max_bytes = folder, split, max_bytes
        self.shards: list[Shard] = []
        self._tar: tarfile.TarFile | None = None
        self._lines: list[str] = []

    def add(self, key: str, content: Mapping[str, bytes]) -> None:
        """Append one sample: `content` maps an extension ("png", "mask.png", "json") to the file's bytes."""
        size = sum(tarfile.BLOCKSIZE + _padded(len(data)) for data in content.values())
        if self._tar and self._lines and _padded(self._tar.offset + size + _END, tarfile.RECORDSIZE) > self.max_bytes:
            self._finish()
        tar = self._tar or self._start()
        entries = []
        for extension, data in content.items():
            info = tarfile.TarInfo(f"{key}.{extension}")
            info.size, info.mode, info.mtime = len(data), 0o644, 0
            offset = tar.offset + tarfile.BLOCKSIZE
            tar.addfile(info, io.BytesIO(data))
            entries.append(f"{extension} {offset} {len(data)} {info.name}")
        self._lines.append(" ".join(entries))

    def close(self) -> list[Shard]:
        """Finish the last tar file and return all of them in order."""
        if self._tar:
            self._finish()
        return self.shards

    def abort(self) -> None:
        """Drop the tar file in progress; finished ones stay."""
        if self._tar:
            self._tar.close()
            self._part.unlink(missing_ok=True)
            self._tar = None

    @property
    def _path(self) -> Path:
        return self.folder / f"{self.split}-{len(self.shards):06d}.tar"

    @property
    def _part(self) -> Path:
        return self._path.with_suffix(".tar.part")

    def _start(self) -> tarfile.TarFile:
        self._lines = []
        self._tar = tarfile.open(self._part, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 - closed by _finish or abort
        return self._tar

    def _finish(self) -> None:
        assert self._tar is not None
        self._tar.close()
        self._tar = None
        path, part = self._path, self._part
        with part.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        index = path.with_suffix(".idx")
        files.write(index, "".join(f"{line}\n" for line in [f"v1.2 {len(self._lines)}", *self._lines]))
        shard = Shard(path.name, len(self._lines), part.stat().st_size, digest)
        part.replace(path)
        self.shards.append(shard)


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
