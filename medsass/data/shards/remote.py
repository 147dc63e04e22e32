"""Shard folders at addresses such as s3://bucket/folder: what may go wrong with them, and a cache for most of them.

Of tar files in s3:// the loader reads the pieces that it needs, when it needs them. Those of other schemes (gs://,
https://, ...), not all of which serve pieces well, are fetched once into $XDG_CACHE_HOME/medsass, or ~/.cache/medsass,
before the first batch.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from medsass import files
from medsass.data.shards import manifest
from medsass.data.shards.manifest import Manifest
from medsass.data.shards.tar import Shard

_PIECE = 1 << 20  # bytes read at a time


def load(folder: Path) -> Manifest:
    """`manifest.load`, which also says in one line why an address cannot be read.

    Raises `FileNotFoundError`, `OSError` or `ValueError` that name the address and the remedy.
    """
    if not files.is_local(folder):
        path = folder / manifest.NAME
        with one_line(path):
            path.read_bytes()
    return manifest.load(folder)


@contextmanager
def one_line(path: Path) -> Iterator[None]:
    """Turn whatever reading an address raises into an `OSError` of one line; botocore's, aiohttp's and Google's errors
    derive from no common class. What is local keeps its errors.
    """
    try:
        yield
    except FileNotFoundError as error:
        if files.is_local(path):
            raise
        raise FileNotFoundError(
            f"{path} was not found ({_reason(error)}); check the address and its server, or make the shards with: "
            f"medsass shard SOURCE {path.parent}"
        ) from error
    except Exception as error:
        if files.is_local(path):
            raise
        raise OSError(
            f"{path} cannot be read ({_reason(error)}); check the address, the credentials and the network"
        ) from error


def _reason(error: BaseException) -> str:
    """The innermost error's words: fsspec raises its own in place of the connection's."""
    while error.__cause__:
        error = error.__cause__
    return " ".join(str(error).split()).rstrip(" .:") or type(error).__name__


def tars(folder: Path, shards: Sequence[Shard]) -> list[str]:
    """Where the loader reads the tar files of `shards`, in their order, each with its index of suffix .idx beside it: the
    folder's own files, be they local or in S3, else copies in the cache.

    Raises `OSError` where a file cannot be fetched or is not the one that the manifest names.
    """
    if files.is_local(folder) or str(folder).startswith("s3://"):
        return [str(folder / shard.file) for shard in shards]
    cache = cache_of(folder)
    cache.mkdir(parents=True, exist_ok=True)
    return [str(_fetched(folder, shard, cache)) for shard in shards]


def cache_of(folder: Path) -> Path:
    """The cache folder of an address: $XDG_CACHE_HOME or ~/.cache, /medsass/<hash of the address>."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "medsass" / hashlib.sha256(str(folder).encode()).hexdigest()[:16]


def _fetched(folder: Path, shard: Shard, cache: Path) -> Path:
    """The cached tar file. Its name holds its hash, so that shards made anew at the same address are fetched anew; its
    index is fetched first, so that a tar file that is there has one.
    """
    source, name = folder / shard.file, Path(shard.file)
    path = cache / f"{name.stem}-{shard.sha256[:16]}{name.suffix}"
    if path.is_file() and path.stat().st_size == shard.bytes:
        return path
    _fetch(source.with_suffix(".idx"), path.with_suffix(".idx"))
    _fetch(source, path, shard.sha256)
    return path


@contextmanager
def local(path: Path) -> Iterator[Path]:
    """`path`, or a temporary copy of the file where it is at an address. Raises `OSError` where it cannot be read."""
    if files.is_local(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="medsass-") as folder:
        copy = Path(folder, path.name)
        _fetch(path, copy)
        yield copy


def _fetch(source: Path, path: Path, sha256: str = "") -> None:
    digest = hashlib.sha256()
    with files.atomic(path) as copy:
        for piece in _pieces(source):
            digest.update(piece)
            copy.write(piece)
        if sha256 and digest.hexdigest() != sha256:
            raise OSError(
                f"{source}: its bytes are not those that the manifest names; see medsass verify {source.parent}"
            )


def _pieces(source: Path) -> Iterator[bytes]:
    with one_line(source), source.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece
