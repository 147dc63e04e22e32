"""Tar files as a source: WebDatasets that others wrote, by the rules of the `webdataset` library.

A member counts as a file below its tar file, such as `train-000000.tar/000003.jpg`. The members of a tar file are listed in
one pass and then read by their place, in any order. Nothing is unpacked: links are not followed, and a name that is absolute
or holds `..` is no more than a name. The library says what a name's key is; reading by place it does not know.
"""

import importlib
import re
import tarfile
from collections.abc import Generator, Iterator
from functools import cache
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from medsass import files
from medsass.data.formats import kinds

_META = re.compile(r"__[^/]*__(?:$|/)")  # members that the library skips
_NAMED = re.compile(r".*\.(?:tar(?:\.\w+)?|tgz|tbz2?|txz)")
_WILD = re.compile(r"[*?\[{]")
_COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}
_PIECE = 1 << 22  # bytes that are read at a time
_HEADER, _NAME = 1 << 20, 4096  # bytes of a header, and letters of a name, at most
_TEXT = 256  # bytes of the longest class label


class Member(NamedTuple):
    """A file in a tar file.

    Attributes:
        name: with a lower-case extension, without steps that lead elsewhere.
        offset, size: where its bytes are, in bytes.
        fault: why it cannot be read, or "".
        text: its content where it holds a class label, else None.
    """

    name: str
    offset: int
    size: int
    fault: str = ""
    text: str | None = None


class BrokenTarError(ValueError):
    """The rest of a tar file cannot be read; the text says from where on, and why."""


def named_so(name: str) -> bool:
    """Return whether a file is a tar file by its name."""
    return _NAMED.fullmatch(name.lower()) is not None


def split_pattern(source: Path) -> tuple[Path, str]:
    """Return the folder above a tar file, or above the first wildcard or brace of a pattern of them, and the pattern below it,
    which is "" where `source` is a folder.
    """
    steps = str(source).split("/")
    if files.is_local(source) and source.is_dir():
        return source, ""
    at = next((at for at, step in enumerate(steps) if _WILD.search(step)), len(steps) - named_so(steps[-1]))
    if at == len(steps):
        return source, ""
    above = "/".join(steps[:at])
    return files.location(above or ("." if at == 0 else "/")), "/".join(steps[at:])


def members(tar: Path, label: str = "") -> Iterator[Member]:
    """Yield the members of a tar file, links with a fault. What the library skips and what systems leave behind is skipped.

    Args:
        tar: the file, local or at an address.
        label: extension of the members whose text is read.

    Raises:
        BrokenTarError: after the last member that can be read, where more was there.
        ValueError: where the file is compressed.
    """
    with files.reaching(tar):
        size = tar.stat().st_size
        with tar.open("rb") as file:
            start = file.read(tarfile.BLOCKSIZE)
    if packer := next((name for magic, name in _COMPRESSED.items() if start.startswith(magic)), ""):
        raise ValueError(f"{tar}: a compressed tar file cannot be read by place; unpack it with {packer} first")
    with files.reaching(tar), tar.open("rb") as file:
        fault = yield from _read(file, size, label)
    if fault:
        raise BrokenTarError(fault)


class _Bounded:
    """An open tar file of which no header, with all that belongs to it, is longer than `_HEADER` bytes: tarfile keeps it in memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.left = file, _HEADER
        self.tell = file.tell

    def seek(self, place: int, whence: int = 0) -> int:
        """Move to a place, from which a header may begin."""
        self.left = _HEADER
        return self._file.seek(place, whence)

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes. Raises `tarfile.ReadError` where a header is too long."""
        if not 0 <= size <= self.left:
            raise tarfile.ReadError(f"a header of more than {_HEADER:,} bytes")
        self.left -= size
        return self._file.read(size)


def _read(file: IO[bytes], size: int, label: str) -> Generator[Member, None, str]:
    """Yield the members of an open tar file of `size` bytes, and return why there are no more, or ""."""
    end, last = 0, ""
    try:
        bounded = _Bounded(file)
        with tarfile.open(fileobj=cast(IO[bytes], bounded), mode="r:") as opened:
            while info := opened.next():
                bounded.left = _HEADER  # behind an empty member it does not seek
                opened.members.clear()  # type: ignore[attr-defined]  # tarfile would keep all
                if info.size < 0:
                    break
                last = info.name.encode("utf-8", "backslashreplace").decode()
                if len(last) > _NAME:
                    return (
                        f"damaged at byte {opened.offset}: a name of {len(last):,} letters; nothing beyond that is read"
                    )
                end = opened.offset
                if (info.isreg() or info.islnk() or info.issym()) and (name := _name(last)):
                    yield _member(name, info, opened, size, label)
    except (tarfile.TarError, ValueError, OverflowError, EOFError, RecursionError) as error:
        if not last:
            return f"not a tar file ({error})"
    after = f"after '{last}'" if last else "from the beginning"
    if end >= size:
        return f"cut off at byte {size}, {after}: it has no end mark, and what came then is missing"
    file.seek(end)
    if any(file.read(tarfile.BLOCKSIZE)):
        return f"damaged at byte {end}, {after}: nothing beyond that is read"
    while piece := file.read(_PIECE):
        if any(piece):
            return f"it goes on after its end mark at byte {end}, {after}: nothing beyond that is read"
    return ""


def _name(text: str) -> str:
    """Return a member's name without steps that lead elsewhere, "" where it is no file of a sample."""
    steps = [step for step in text.split("/") if step not in ("", ".", "..")]
    if not steps or any(map(kinds.is_junk, steps)) or _META.match("/".join(steps)):
        return ""
    path = "/".join(steps)
    key, extension = _splitter()(path)
    return path if key is None else f"{key}.{extension.lower()}"


@cache
def _splitter() -> Any:
    """Return the library's function of a name that gives key and extension; it takes a second, and imports torch."""
    return importlib.import_module("webdataset.tariterators").base_plus_ext


def _member(name: str, info: tarfile.TarInfo, opened: tarfile.TarFile, size: int, label: str) -> Member:
    place = name, info.offset_data, info.size
    if not info.isreg():
        return Member(
            *place, "a link in a tar file, which is not followed; pack it with tar --dereference --hard-dereference"
        )
    if info.issparse():
        return Member(*place, "a sparse file in a tar file; pack it without --sparse")
    if info.offset_data + info.size > size:
        return Member(*place, f"its tar file is cut off at byte {size}")
    if not label or name.rpartition("/")[2].partition(".")[2] != label or info.size > _TEXT:
        return Member(*place)
    held = opened.extractfile(info)
    text = held.read().decode(errors="replace").strip() if held else ""
    return Member(
        *place, text=text if text.isprintable() and "\N{REPLACEMENT CHARACTER}" not in text and text else None
    )


def pieces(tar: Path, offset: int, size: int) -> Iterator[bytes]:
    """Yield the bytes of a member, some at a time. Raises `ValueError` where the tar file ends before, `UnreachableError` where a
    server does not send parts of files.
    """
    for start in range(offset, offset + size, _PIECE):
        wanted = min(_PIECE, offset + size - start)
        if files.is_local(tar):
            with tar.open("rb") as file:
                file.seek(start)
                piece = file.read(wanted)
        else:
            with files.reaching(tar):
                piece = tar.fs.cat_file(tar.path, start=start, end=start + wanted)  # type: ignore[attr-defined]
        if len(piece) < wanted:
            raise ValueError("its tar file ends before it; copy that again")
        if len(piece) > wanted:
            raise files.UnreachableError(
                f"{tar}: its server does not send parts of a file; download the tar files first"
            )
        yield piece
