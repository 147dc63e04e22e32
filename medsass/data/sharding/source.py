"""The files of a source as they are read: on this machine or at an address, and as they were when they were listed."""

import errno
import hashlib
import os
from pathlib import Path, PurePosixPath

from medsass import files
from medsass.data.formats import numpy_file, opening
from medsass.data.sharding.listing import UNREADABLE

_BY_PATH = opening.SLIDES | {".npy", ".npz"}
_ARRAYS = (numpy_file.NPY_MAGIC, *numpy_file.ZIP_MAGIC)
_OURS_NOT_THEIRS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT)  # no fault of the file read

Stat = tuple[int, str]  # size and stamp of a file when it was listed
AtHand = tuple[Path, bytes | None]  # where a file is on this machine, and its bytes; with bytes the path only names it


class Access:
    """Reads the files of `source` by their paths below it; safe for several threads.

    pieces: whether all files are read in pieces, where they are. fetched: a folder for copies of those at an address.
    """

    def __init__(self, source: Path, fetched: Path, *, pieces: bool) -> None:
        self._source, self._fetched, self._pieces = source, fetched, pieces
        self._local = f"{source}/" if files.is_local(source) else ""

    def in_pieces(self, path: str) -> bool:
        """True for files that are never read whole."""
        return self._pieces or path[path.rfind(".") :].lower() in _BY_PATH

    def at_hand(self, path: str) -> AtHand:
        """The bytes of a file; of one that is read in pieces where it is, or a copy of it, which `release` removes."""
        if not self.in_pieces(path):
            data = self._read(path)
            if not data.startswith(_ARRAYS):  # whatever it is named
                return Path(path), data
        if self._local:
            return self._source / path, None
        self._fetched.mkdir(exist_ok=True)
        copy = self._copy(path)
        if not copy.exists():
            with files.atomic(copy) as file, (self._source / path).open("rb") as remote:
                while piece := remote.read(1 << 22):
                    file.write(piece)
        return copy, None

    def release(self, *paths: str) -> None:
        """Remove the copies of these files."""
        if not self._local:
            for path in paths:
                self._copy(path).unlink(missing_ok=True)

    def check(self, path: str, stat: Stat) -> None:
        """Raise `ValueError` with the reason where a file could not be read when it was listed, or is another now."""
        if stat[0] == UNREADABLE:
            raise ValueError(stat[1])
        if not self._local:
            return
        try:
            now = os.stat(self._local + path)  # noqa: PTH116 - for each file: half the time of a Path
        except FileNotFoundError as error:
            raise ValueError("the file is gone since the run began; run medsass shard again") from error
        if (now.st_size, str(now.st_mtime_ns)) != stat:
            raise ValueError("the file changed after the run began; run medsass shard again")

    def _read(self, path: str) -> bytes:
        if not self._local:
            return (self._source / path).read_bytes()
        with open(self._local + path, "rb", buffering=0) as file:  # noqa: PTH123 - as above
            return file.readall()

    def _copy(self, path: str) -> Path:
        name = hashlib.sha256(f"{self._source}/{path}".encode()).hexdigest()[:16]
        return self._fetched / (name + PurePosixPath(path).suffix)


def reason(error: Exception) -> str:
    """Why a file is left out. Raises the error where the machine is at fault: no other file would fare better."""
    if isinstance(error, OSError) and error.errno in _OURS_NOT_THEIRS:
        raise error
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
