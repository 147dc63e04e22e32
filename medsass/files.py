"""Where files are, and files that are whole or not there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast


def location(text: str | Path) -> Path:
    """A local path as `Path`, an address such as s3://bucket/folder as universal_pathlib's `UPath`, which reads like one.

    Raises `ImportError` that names the extra to install, and `ValueError` for a scheme that nothing here serves.
    """
    if "://" not in str(text):
        return Path(text)
    try:
        from upath import UPath

        place = UPath(str(text))
        place.fs  # noqa: B018 - imports what serves the scheme
    except ImportError as error:
        raise ImportError(f"{text}: addresses need more packages ({error}): pip install 'medsass[cloud]'") from error
    return cast(Path, place)


def is_local(path: Path) -> bool:
    """True for paths of this machine, False for addresses."""
    return isinstance(path, Path)


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
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename is None:
            error.filename = str(path)  # of a full disk Python says no name
        raise


def write(path: Path, data: bytes | memoryview | str) -> None:
    """Put `data` (text as UTF-8) into `path`, atomically."""
    with atomic(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)
