"""Local paths and addresses, reads of small files, checks of outputs, links, and atomic writes."""

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from medsass import temporary

UNSAID = 1 << 40  # bytes of a file at an address at most, where its server does not say how many
_PIECE = 1 << 22  # bytes of it that are read at a time
FOLLOW = "MEDSASS_FOLLOW_LINKS"  # 1 in the environment allows links out of shard folders, and of images that are several files
SOURCE = "MEDSASS_SOURCE"  # in the environment of shard's workers: links within this folder are followed


def location(text: str | Path) -> Path:
    """Return a local path as `Path`, and an address such as s3://bucket/folder as universal_pathlib's `UPath`.

    A `UPath` has the methods of a `Path`. Raises `ImportError` that names the extra to install, and `ValueError` for a
    scheme that no installed package serves.
    """
    if "://" not in str(text):
        return Path(text)
    try:
        from upath import UPath

        more = {}
        if str(text).startswith("http"):
            from medsass import web  # aiohttp, which other schemes may lack

            more = web.options(str(text).partition("://")[0])
        place = UPath(str(text), **more)
        place.fs  # noqa: B018 - imports the package for the scheme
    except ImportError as error:
        raise ImportError(f"{text}: addresses need more packages ({error}): pip install 'medsass[cloud]'") from error
    return cast(Path, place)


class UnreachableError(OSError):
    """An address cannot be read or written; the text names it, the reason and the remedy."""


# Remedies by the name of an error in the chain of causes; the errors of botocore, aiohttp and Google share no class.
_REMEDIES = {
    "CredentialsError": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; a public bucket needs neither: set "
    "FSSPEC_S3_ANON=true",
    "PermissionError": "the server refuses: check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, and what they "
    "may do there",
    "TimeoutError": "the server does not answer: try later, or download the files by other means",
    "RedirectClientError": "the server leads to no web address: check the address",
    "ConnectionError": "check the address and the network and, where the bucket is not Amazon's, AWS_ENDPOINT_URL",
}


@contextmanager
def reaching(path: Path, what: str = "read") -> Iterator[None]:
    """Turn any error from an address, but for a file that is not there, into an `UnreachableError` of one line. Local paths
    keep their errors.

    Args:
        path: the path or address.
        what: is done to it: "read" or "written".
    """
    try:
        yield
    except Exception as error:
        chain: list[BaseException] = [error]
        while cause := chain[-1].__cause__:  # fsspec wraps the connection's errors in its own, some as of missing files
            chain.append(cause)
        missing = isinstance(error, FileNotFoundError) and not any(
            isinstance(each, TimeoutError) or "Redirect" in type(each).__name__ for each in chain
        )
        if is_local(path) or missing or isinstance(error, UnreachableError):
            raise
        reason = " ".join(str(chain[-1]).split()).rstrip(" .:") or type(chain[-1]).__name__
        names = [kind.__name__ for each in chain for kind in type(each).__mro__]
        found = (text for end, text in _REMEDIES.items() if any(name.endswith(end) for name in names))
        remedy = next(found, "check the address, the credentials and the network")
        raise UnreachableError(f"{path} cannot be {what} ({reason}); {remedy}") from error


def is_file(path: Path) -> bool:
    """Tell whether a file is there. Raises `UnreachableError`, where `Path.is_file` says no of an address without access."""
    if is_local(path):
        return path.is_file()
    with reaching(path):
        try:
            return path.fs.info(path.path)["type"] == "file"  # type: ignore[attr-defined, no-any-return]
        except FileNotFoundError:
            return False


def size_of(path: Path) -> int:
    """Return the bytes of a file at an address as its server says; `UNSAID` where it does not. Raises `UnreachableError`."""
    with reaching(path):
        return int(path.fs.info(path.path).get("size") or UNSAID)  # type: ignore[attr-defined]


def pieces(path: Path, most: int) -> Iterator[bytes]:
    """Yield the bytes of a file at an address, at most as many as were listed. Raises `UnreachableError` where more come."""
    size = 0
    with reaching(path), path.open("rb") as file:
        while piece := file.read(_PIECE):
            if (size := size + len(piece)) > most:
                raise UnreachableError(
                    f"{path}: its server sends more than the {most:,} bytes that it or a manifest says; try later"
                )
            yield piece


def is_local(path: Path) -> bool:
    """Tell a path of this machine from an address."""
    return isinstance(path, Path)


MOST = 64 << 20  # bytes of a file that is read as a whole: a manifest, a configuration, scores
_KINDS = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


def check_regular(path: Path) -> None:
    """Raise `OSError` where something that is no file stands at a local path: reading a pipe would wait for ever."""
    kind = stat.S_IFMT(path.stat().st_mode)
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, "it is a folder; name a file", str(path))
    if kind in _KINDS:
        raise OSError(errno.EINVAL, f"it is {_KINDS[kind]}, and no file; copy its content into a file", str(path))


def read(path: Path, most: int = MOST) -> bytes:
    """Return the content of a file, which may be at an address. Raises `OSError` where it is none, or has over `most` bytes."""
    if is_local(path):
        check_regular(path)
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        size = f"{most >> 20} MiB" if most >> 20 else f"{most} bytes"
        raise OSError(
            errno.EFBIG,
            f"it has more than the {size} that such a file may have; give another, or a shorter one",
            str(path),
        )
    return data


def check_source(folder: Path, what: str) -> None:
    """Raise `FileNotFoundError` where a source is not there, or `NotADirectoryError` where it is a file. SOURCE is `what`."""
    if is_file(folder):
        raise NotADirectoryError(f"{folder}: a file; SOURCE is {what}: give the folder that it is in, or unpack it")
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; SOURCE is {what}")


def check_new(path: Path, name: str, overwrite: bool) -> None:
    """Raise `FileExistsError` where `path` exists and may not be replaced. The argument `name` ("OUT") chooses it."""
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; choose another {name}, or replace it with --overwrite")


def own_content(folder: Path, name: str, is_ours: Callable[[str], bool], whose: str) -> list[Path]:
    """Return what an output folder holds, sorted; nothing where it does not exist. The argument `name` ("OUT") chooses it.

    Raises `FileExistsError` where it is a file, or holds a file that is not `whose` ("a run's"), by its name not `is_ours`.
    """
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; {name} must be a folder")
    existing = sorted(folder.iterdir()) if folder.is_dir() else []
    for path in existing:
        if not is_ours(path.name):
            raise FileExistsError(
                f"{folder} holds files that are not {whose}, such as {path.name}; choose another folder"
            )
    return existing


def refuse_links(*paths: Path) -> None:
    """Raise `FileExistsError` where one of these paths, at which medsass would write, is a symbolic link."""
    for path in paths:
        if path.is_symlink():
            raise FileExistsError(
                f"{path} is a symbolic link, and medsass would write where it leads; remove it, or choose another folder"
            )


def refuse_outside(paths: Iterable[Path], folder: Path) -> None:
    """Raise `FileExistsError` where files to be written below an output folder would be elsewhere, through a link in it."""
    root = os.path.realpath(folder)
    for parent in {path.parent: None for path in paths}:
        if not is_below(os.path.realpath(parent), root):
            raise FileExistsError(
                f"{parent} leads out of {folder} by a symbolic link; remove that, or choose another folder"
            )


def leads_out(path: Path, folder: Path) -> bool:
    """Return whether a path below a folder is a link out of it that may not be followed."""
    allowed = os.environ.get(FOLLOW) == "1"
    return not allowed and path.is_symlink() and not is_below(os.path.realpath(path), os.path.realpath(folder))


def is_below(path: str, root: str) -> bool:
    """Return whether a real path is that of a folder, or below it."""
    return path == root or path.startswith(root.rstrip("/") + "/")


@contextmanager
def atomic(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that replaces `path`, be it a link, when it is complete and on the disk.

    Until then, and where writing fails, `path` keeps its old content.
    """
    part = None
    try:
        file, part = temporary.created(path.parent)
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            part.replace(path)
    except BaseException as error:
        if part:
            part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and (not part or error.filename in (None, str(part))):
            error.filename = str(path)  # ENOSPC carries no file name
        raise


def write(path: Path, data: bytes | memoryview | str) -> None:
    """Write `data`, text as UTF-8, to `path` atomically."""
    with atomic(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)
