"""What is not complete yet, and whose it is: files and folders of names that cannot be guessed, and locks.

A file that is being written, or a folder of temporary files, is `.medsass-<16 hex digits>.part` beside what it is for. Its
process holds a lock on it, so that the next run there tells what a killed one left behind, and removes it.
"""

import errno
import fcntl
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

_NAMES = re.compile(r"\.medsass-[0-9a-f]{16}\.part")
LOCK = ".medsass-lock"  # the file in a folder that is locked for it; folders themselves cannot be on NFS


def is_ours(name: str) -> bool:
    """Return whether a file or folder of this name is a lock, or not complete."""
    return name == LOCK or _NAMES.fullmatch(name) is not None


def lock(folder: Path) -> int | None:
    """Lock a folder until the file descriptor that is returned is closed; None where another process holds the lock.

    On a file system without locks nothing is locked. Raises `OSError`, also where the lock's file is a link.
    """
    path = folder / LOCK
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    if _locked(handle):
        with suppress(FileNotFoundError):  # by who held it
            if os.path.samestat(os.fstat(handle), path.lstat()):
                return handle
    os.close(handle)
    return None


@contextmanager
def locked(folder: Path, what: str, command: str) -> Iterator[None]:
    """Hold the lock of a folder. Raises `FileExistsError` where another process does, which writes `what` by `command`."""
    if (handle := lock(folder)) is None:
        raise FileExistsError(f"{what} is being written by another {command}; wait for it, or choose another folder")
    try:
        yield
    finally:
        with suppress(FileNotFoundError):  # the folder may be elsewhere by now
            if os.path.samestat(os.fstat(handle), (folder / LOCK).lstat()):
                (folder / LOCK).unlink()
        os.close(handle)


def created(folder: Path) -> tuple[BinaryIO, Path]:
    """Create a file of a new name in a folder, open for writing and locked. No link is followed."""
    sweep(folder)
    while True:
        path = folder / _name()
        file = path.open("xb")
        _locked(file.fileno())
        if path.exists():  # else a process that came in between took it for one that is left behind
            return file, path
        file.close()


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """Make a folder in `folder` that is removed in the end, and let the module `tempfile` put its files there meanwhile."""
    sweep(folder)
    own, before, handle = folder / _name(), tempfile.tempdir, None
    while handle is None:
        own.mkdir(mode=0o700, exist_ok=True)
        with suppress(FileNotFoundError):  # removed by a process that came in between
            handle = lock(own)
    tempfile.tempdir = str(own)
    try:
        yield own
    finally:
        tempfile.tempdir = before
        with suppress(OSError):
            remove(own)
        os.close(handle)


@lru_cache(1 << 10)
def sweep(folder: Path) -> None:
    """Remove what killed processes left in a folder. It is looked through once by a process."""
    with suppress(OSError):
        for path in [path for path in folder.iterdir() if _NAMES.fullmatch(path.name) and not path.is_symlink()]:
            with suppress(OSError):
                _remove(path)


def _remove(path: Path) -> None:
    """Remove a file or folder whose process is gone. Raises `OSError` where it is not, or that cannot be told."""
    if path.is_dir() and not (path / LOCK).exists():
        path.rmdir()
        return
    handle = os.open(path / LOCK if path.is_dir() else path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove(path)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that it holds. Raises `OSError`, also where folders lie too deep within one another."""
    try:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    except RecursionError as error:
        text = "it holds folders too deep within one another; remove it by other means"
        raise OSError(errno.ENAMETOOLONG, text, str(path)) from error


def _name() -> str:
    return f".medsass-{secrets.token_hex(8)}.part"


def _locked(handle: int) -> bool:
    """Lock an open file. Returns False where another process holds the lock."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks on this file system
        return True
    return True
