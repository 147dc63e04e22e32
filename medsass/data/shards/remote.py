"""Shard folders at addresses such as s3://bucket/folder: one-line errors, and a cache for most of them.

The loader reads pieces of tar files in s3:// when it needs them. Those of other schemes (gs://, https://, ...), not all
of which serve pieces well, are fetched once into $XDG_CACHE_HOME/medsass, or ~/.cache/medsass, before the first batch.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from medsass import files, temporary
from medsass.data.shards import manifest
from medsass.data.shards.manifest import Manifest
from medsass.data.shards.tar import Shard


def load(folder: Path) -> Manifest:
    """Read and check a manifest as `manifest.load` does; an address that cannot be read is named with the reason.

    Raises `FileNotFoundError`, `OSError` or `ValueError` that name the file or address and the remedy.
    """
    if files.is_local(folder):
        return manifest.load(folder)
    path = folder / manifest.NAME
    with one_line(path):
        data = files.read(path)
    found = manifest.parse(data, path)
    manifest.check(folder, found)
    return found


@contextmanager
def one_line(path: Path) -> Iterator[None]:
    """Turn any error from reading an address into an `OSError` of one line; local paths keep their errors."""
    try:
        with files.reaching(path):
            yield
    except FileNotFoundError as error:
        if files.is_local(path):
            raise
        inner: BaseException = error
        while inner.__cause__:
            inner = inner.__cause__
        reason = " ".join(str(inner).split()).rstrip(" .:") or type(inner).__name__
        raise FileNotFoundError(
            f"{path} was not found ({reason}); check the address and its server, or make the shards with: "
            f"medsass shard SOURCE {path.parent}"
        ) from error


def tars(folder: Path, shards: Sequence[Shard]) -> list[str]:
    """Return where the loader reads the tar files of `shards`, each with its index (.idx) beside it.

    These are the folder's own files where it is local or in S3, else copies in the cache. Raises `OSError` where a file
    cannot be fetched or is not the one that the manifest names.
    """
    if files.is_local(folder) or str(folder).startswith("s3://"):
        return [str(folder / shard.file) for shard in shards]
    cache, paths = cache_of(folder), []
    cache.mkdir(parents=True, exist_ok=True)
    for shard in shards:
        # the name of a copy holds its hash, so that shards made anew at the same address are fetched anew
        source, path = folder / shard.file, cache / f"{Path(shard.file).stem}-{shard.sha256[:16]}.tar"
        if not path.is_file() or path.stat().st_size != shard.bytes:
            _fetch(
                source.with_suffix(".idx"), path.with_suffix(".idx"), shard.bytes
            )  # first, so that every tar file has one
            _fetch(source, path, shard.bytes, shard.sha256)
        paths.append(str(path))
    return paths


def cache_of(folder: Path) -> Path:
    """Return the cache folder of an address: $XDG_CACHE_HOME or ~/.cache, then medsass/<hash of the address>."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "medsass" / hashlib.sha256(str(folder).encode()).hexdigest()[:16]


@contextmanager
def local(path: Path) -> Iterator[Path]:
    """Yield `path`, or a temporary copy in the cache where it is at an address. Raises `OSError` where it cannot be read."""
    if files.is_local(path):
        yield path
        return
    cache = cache_of(path.parent)
    cache.mkdir(parents=True, exist_ok=True)
    with temporary.scratch(cache) as folder:
        copy = folder / path.name
        _fetch(path, copy, files.size_of(path))
        yield copy


def _fetch(source: Path, path: Path, most: int, sha256: str = "") -> None:
    """Copy a file of at most `most` bytes from an address. Raises `OSError` where it cannot be read, is longer or has another SHA-256."""
    digest = hashlib.sha256()
    with files.atomic(path) as copy:
        for piece in _pieces(source, most):
            digest.update(piece)
            copy.write(piece)
        if sha256 and digest.hexdigest() != sha256:
            raise OSError(
                f"{source}: its bytes are not those that the manifest names; see medsass verify {source.parent}"
            )


def _pieces(source: Path, most: int) -> Iterator[bytes]:
    """Yield the bytes of a file; only errors from reading are turned into one line, not those of who writes them."""
    with one_line(source):
        yield from files.pieces(source, most)
