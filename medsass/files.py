"""Files that are whole or not there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the name `path` only when it is whole and on the disk; until then, and if writing
    fails, `path` keeps what it held.
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write(path: Path, data: bytes | str) -> None:
    """Put `data` (text as UTF-8) into `path`, atomically."""
    with atomic(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)
