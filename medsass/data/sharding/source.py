"""The files of a source, local or remote, checked against what was listed."""

import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from medsass import files
from medsass.data.formats import kinds
from medsass.data.sharding.listing import UNREADABLE

_MACHINE = (
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ENOSPC,
    errno.EDQUOT,
)  # faults of the machine, not of a file

Stat = tuple[int, str]  # size and stamp of a file when it was listed
Fetched = tuple[Path, bytes | None]  # a local path, and the file's bytes; with bytes the path only names the file


class Source:
    """Reads the files of a source by their path below it; safe for several threads.

    Args:
        root: the source, a local folder or an address.
        copies: local folder for copies of remote files.
    """

    def __init__(self, root: Path, copies: Path) -> None:
        self._root, self._copies = root, copies
        self._local = f"{root}/" if files.is_local(root) else ""

    def fetch(self, path: str, *, whole: bool) -> Fetched:
        """Return a file's bytes. Of one that is read by region, because it is not wanted `whole` or its kind asks for that,
        return the path, of a local copy where it is remote; `release` removes that copy.
        """
        if whole:
            if self._local:
                with open(self._local + path, "rb", buffering=0) as file:  # noqa: PTH123 - half the time of a Path
                    data = _whole(file, path)
            else:
                with files.reaching(self._root / path), (self._root / path).open("rb") as remote:
                    data = _whole(remote, path)
            if data is not None:
                return Path(path), data
        if self._local:
            return self._root / path, None
        self._copies.mkdir(exist_ok=True)
        copy = self._copy(path)
        if not copy.exists():
            with files.atomic(copy) as file:
                for piece in _pieces(self._root / path):
                    file.write(piece)
        return copy, None

    def release(self, *paths: str) -> None:
        """Remove the local copies of these files."""
        if not self._local:
            for path in paths:
                self._copy(path).unlink(missing_ok=True)

    def check(self, path: str, stat: Stat) -> None:
        """Raise `ValueError` with the reason where a file was unreadable when it was listed, or has changed since."""
        if stat[0] == UNREADABLE:
            raise ValueError(stat[1])
        if not self._local:
            return
        try:
            now = os.stat(self._local + path)  # noqa: PTH116 - as above
        except FileNotFoundError as error:
            raise ValueError("the file is gone since the run began; run medsass shard again") from error
        if (now.st_size, str(now.st_mtime_ns)) != stat:
            raise ValueError("the file changed after the run began; run medsass shard again")

    def _copy(self, path: str) -> Path:
        name = hashlib.sha256(f"{self._root}/{path}".encode()).hexdigest()[:16]
        return self._copies / (name + PurePosixPath(path).suffix)


def _whole(file: Any, path: str) -> bytes | None:
    """Return the bytes of an open file, None where its kind is read in parts."""
    head = file.read(kinds.HEAD)
    return None if kinds.kind(head, PurePosixPath(path)) in kinds.IN_PARTS else head + file.read()


def _pieces(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a file at an address."""
    with files.reaching(path), path.open("rb") as remote:
        while piece := remote.read(1 << 22):
            yield piece


def reason(error: Exception) -> str:
    """Return why a file is left out. Raises the error where the machine is at fault: other files would fail too."""
    if isinstance(error, files.UnreachableError) or (isinstance(error, OSError) and error.errno in _MACHINE):
        raise error
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
