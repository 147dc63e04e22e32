"""The files of a source, local or remote, checked against what was listed."""

import errno
import hashlib
import os
from contextlib import suppress
from itertools import chain
from pathlib import Path, PurePosixPath

from medsass import budget, files
from medsass.data.formats import kinds
from medsass.data.sharding.catalog import tars
from medsass.data.sharding.catalog.listing import UNREADABLE, Stat

_MACHINE = (
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ENOSPC,
    errno.EDQUOT,
)  # faults of the machine, not of a file

_AT_ONCE = 1 << 20  # bytes of a small file, which is read at once

Fetched = tuple[Path, bytes | None]  # a local path, and the file's bytes; with bytes the path only names the file


class Source:
    """Reads the files of a source by their path below it; safe for several threads.

    Args:
        root: the source, a local folder or an address.
        copies: local folder for copies of files that are remote or in a tar file, in a folder that is made for the first.
    """

    def __init__(self, root: Path, copies: Path) -> None:
        self._root, self._copies = root, copies / "copies"
        self._local = f"{root}/" if files.is_local(root) else ""

    def fetch(self, path: str, stat: Stat, owner: str, *, whole: bool) -> Fetched:
        """Return a file's bytes, for the image with the key `owner`, where it is a photograph, or is wanted `whole` and its kind can be.

        Return the path of any other, which is read by region: of a local copy where it is remote or in a tar file, which
        `release` removes.
        """
        if self._local and not stat.tar:
            name = Path(path)
            with suppress(IsADirectoryError), open(self._local + path, "rb", buffering=0) as file:  # noqa: PTH123 - half the time of a Path
                wanted = whole or kinds.is_photo(path)
                head = file.read(max(kinds.HEAD, min(stat.size + 1, _AT_ONCE)) if wanted else kinds.HEAD)
                kind = kinds.kind(head[: kinds.HEAD], name)
                if kind == "photo" or (whole and kind not in kinds.IN_PARTS):
                    budget.check(stat.size, "reading its bytes")
                    return name, head if len(head) == stat.size else head + file.read()
            return self._root / path, None
        copy = self._copy(path, owner)
        if not whole and copy.exists():
            return copy, None
        pieces = (
            tars.pieces(self._root / stat.tar, stat.place, stat.size)
            if stat.tar
            else files.pieces(self._root / path, stat.size or budget.limit())  # 0: the server did not say
        )
        first = next(pieces, b"")
        kind = kinds.kind(first[: kinds.HEAD], PurePosixPath(path))
        if kind == "photo" or (whole and kind not in kinds.IN_PARTS):
            budget.check(stat.size, "reading its bytes")
            return Path(path), b"".join([first, *pieces])
        self._copies.mkdir(parents=True, exist_ok=True)
        if not copy.exists():
            own = copy.with_name(f"{os.getpid()}-{copy.name}")  # other processes may read parts of the same file
            with files.atomic(own) as part:
                for piece in chain([first], pieces):
                    part.write(piece)
            own.replace(copy)
        return copy, None

    def release(self, owner: str, *paths: str) -> None:
        """Remove the local copies of these files that were made for an image."""
        for path in paths if os.path.exists(self._copies) else ():  # noqa: PTH110 - as above
            self._copy(path, owner).unlink(missing_ok=True)

    def check(self, path: str, stat: Stat) -> None:
        """Raise `ValueError` with the reason where a file was unreadable when it was listed, or has changed since."""
        if stat.size == UNREADABLE:
            raise ValueError(stat.stamp)
        if not self._local:
            return
        try:
            now = os.stat(self._local + (stat.tar or path))  # noqa: PTH116 - as above
        except FileNotFoundError as error:
            raise ValueError("the file is gone since the run began; run medsass shard again") from error
        seen = str(now.st_mtime_ns)
        if (f"{now.st_size} {seen}" != stat.stamp) if stat.tar else ((now.st_size, seen) != (stat.size, stat.stamp)):
            raise ValueError("the file changed after the run began; run medsass shard again")

    def _copy(self, path: str, owner: str) -> Path:
        name = hashlib.sha256(f"{owner} {self._root}/{path}".encode()).hexdigest()[:16]
        return self._copies / (name + PurePosixPath(path).suffix)


def reason(error: Exception) -> str:
    """Return why a file is left out. Raises the error where the machine is at fault: other files would fail too."""
    if isinstance(error, files.UnreachableError) or (isinstance(error, OSError) and error.errno in _MACHINE):
        raise error
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
