"""Headers of NRRD and MetaImage files, and packed voxels of these and of NIfTI, with the checks that nibabel and SimpleITK leave out.

These libraries stop at the last voxel, in front of the checksum, or pass over it: damage would be read as wrong voxels.
"""

import gzip
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path, PurePath
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from medsass import budget
from medsass.data.formats.damage import DamagedError, UnreadableError
from medsass.data.formats.folder import refuse_part
from medsass.data.formats.kinds import GZIP

_BLOCK = 1 << 20  # bytes that are unpacked at once
_LINE, _HEADER = 1 << 20, 1 << 24  # bytes of a line and of all lines of a header in text, at most
_LINES, _WORD, _AXES = (
    20_000,
    256,
    10,
)  # lines, letters of a word and axes at most: ITK takes their square, crashes, or never ends
_ANY = 32 + zlib.MAX_WBITS  # zlib or gzip, told by the first bytes
_META_FIELD = re.compile(rb"\s*([^=:\s]+)\s*[=:]\s*(.*?)\s*")
_NRRD_FIELD = re.compile(rb"([^:#]+):(?!=)\s*(.*)")


@contextmanager
def unpacking() -> Iterator[None]:
    """Name what is wrong with a gzip file in a `ValueError`."""
    try:
        yield
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DamagedError(f"damaged gzip file: {error}") from error


class Gzip(gzip.GzipFile):
    """A gzip file of which no more is read at once than the budget allows, whatever a header within it says."""

    def read(self, size: int | None = -1) -> bytes:
        """Return `size` bytes, or fewer at the end. Raises as `budget.check`."""
        budget.check(size or 0)
        return super().read(size)


def read_on(file: gzip.GzipFile) -> None:
    """Read a gzip file from where it is to its end, behind which lie the length and checksum of all that was read.

    Bytes behind them that are no further gzip member are passed over, as gzip does. Raises `DamagedError` where there are more than
    the budget's.
    """
    start = file.tell()
    try:
        while file.read(_BLOCK):
            if file.tell() - start > budget.limit():
                raise DamagedError(f"damaged: more than {budget.limit():,} bytes are packed in it or behind its voxels")
    except gzip.BadGzipFile as error:
        if not str(error).startswith("Not a gzipped file"):
            raise


def nrrd_fields(file: IO[bytes]) -> dict[str, str]:
    """Return the fields of an NRRD header by their names in lower case without spaces. Raises `ValueError` as `meta_fields`."""
    fields = dict[str, str]()
    for line in _lines(file):
        if not (line := line.strip()):
            break
        if match := _NRRD_FIELD.fullmatch(line):
            name = os.fsdecode(match[1]).lower().replace(" ", "")
            if name != "content" and any(len(word) > _WORD for word in match[2].split()):
                raise DamagedError(f"damaged: a word of more than {_WORD} letters in its header's {name:.80}")
            fields[name] = os.fsdecode(match[2])
            if fields.get("datafile", "").split()[:1] == ["LIST"]:
                break
    _refuse_outside(fields.get("datafile", ""), file)
    return fields


def meta_fields(file: IO[bytes]) -> dict[str, str]:
    """Return the fields of a MetaImage header by their names.

    Raises:
        ValueError: where it is too long, or names a file of voxels that does not lie in its folder or below.
    """
    fields = dict[str, str]()
    for line in _lines(file):
        if match := _META_FIELD.fullmatch(line):
            fields[name := os.fsdecode(match[1])] = os.fsdecode(match[2])
            if name == "NDims" and not (match[2].isdigit() and len(match[2]) < 3 and int(match[2]) <= _AXES):
                raise DamagedError(
                    f"damaged: NDims = {fields[name]:.80} in its header; at most {_AXES} axes can be read"
                )
            if name == "ElementDataFile":
                break
    _refuse_outside(fields.get("ElementDataFile", ""), file)
    return fields


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    for number in count(1):
        if not (line := file.readline(_LINE)):
            return
        if len(line) == _LINE or file.tell() > _HEADER or number > _LINES:
            raise DamagedError(
                f"damaged: a header that does not end within {_HEADER >> 20} MB and {_LINES:,} lines, or lines of {_LINE >> 20} MB"
            )
        yield line


def _refuse_outside(name: str, file: IO[bytes]) -> None:
    """Raise `UnreadableError` where a header names voxels elsewhere, in `name` or, where that is LIST, in the lines that follow."""
    listed = [os.fsdecode(line).strip() for line in _lines(file)] if name.split()[:1] == ["LIST"] else [name]
    folder = Path(file.name).parent
    for one in map(PurePath, listed):
        if one.is_absolute() or ".." in one.parts:
            raise UnreadableError(
                f"its header names {one}, which does not lie beside it or below; put the voxels there"
            )
        refuse_part(folder / one, folder)


def check_nrrd(path: Path) -> None:
    """Raise `ValueError` where the voxels of the NRRD file, or its header, at `path` are packed by gzip, and damaged."""
    with ExitStack() as files:
        file = files.enter_context(path.open("rb"))
        fields = nrrd_fields(file)
        if fields.get("encoding", "").lower() not in ("gzip", "gz"):
            return
        packed = _beside(path, fields["datafile"], files) if "datafile" in fields else file
        for _ in range(int(fields.get("lineskip", 0))):
            if not packed.readline(_LINE):
                break
        start = packed.tell()
        if packed.read(len(GZIP)) != GZIP:
            raise DamagedError("damaged gzip file: it does not begin as one")
        packed.seek(start)
        with unpacking():
            read_on(Gzip(fileobj=packed))


def meta_voxels(path: Path, dtype: np.dtype[Any], count: int) -> NDArray[Any] | None:
    """Return the voxels of the MetaImage file, or its header, at `path`; None where they are not packed.

    Args:
        path: where the file is.
        dtype: of the voxels, in whatever byte order.
        count: how many values there must be.

    Returns:
        (count,) of `dtype`, in the order of the file.

    Raises:
        ValueError: where they are damaged, or not as many.
    """
    with ExitStack() as files:
        file = files.enter_context(path.open("rb"))
        fields = meta_fields(file)
        if not _said(fields, "CompressedData") or not _said(fields, "BinaryData", "True"):
            return None
        name, skipped = fields["ElementDataFile"], int(fields.get("HeaderSize", 0))
        packed = file if name.upper() == "LOCAL" else _beside(path, name, files)
        if skipped > 0:
            packed.seek(skipped)
        high = _said(fields, "BinaryDataByteOrderMSB") or _said(fields, "ElementByteOrderMSB")
        return _inflated(packed, count * dtype.itemsize).view(dtype.newbyteorder(">" if high else "<"))


def _said(fields: dict[str, str], name: str, default: str = "") -> bool:
    return fields.get(name, default)[:1] in ("T", "t", "1")


def _beside(header: Path, name: str, files: ExitStack) -> IO[bytes]:
    """Open the file of the voxels that a header names, until `files` is closed."""
    if name.split()[0] == "LIST" or "%" in name:
        raise UnreadableError("packed voxels in several files are not read; save the volume as one file")
    if not (header.parent / name).is_file():
        raise UnreadableError(f"its voxels are missing: {name} must be beside it")
    return files.enter_context((header.parent / name).open("rb"))


def _inflated(file: IO[bytes], size: int) -> NDArray[np.uint8]:
    """Return the `size` bytes (size,) that a file holds from where it is, packed by zlib or gzip, once its checksum is right."""
    held, at, stream = np.empty(size, np.uint8), 0, zlib.decompressobj(_ANY)
    while not stream.eof:
        data = stream.unconsumed_tail or file.read(_BLOCK)
        try:
            part = stream.decompress(data, _BLOCK)
        except zlib.error as error:
            raise DamagedError(f"damaged packed voxels: {error}") from error
        if not (data or part):
            raise DamagedError("damaged packed voxels: the file ends before they do")
        if at + len(part) > size:
            raise DamagedError(f"damaged: more voxels are packed in it than the {size:,} bytes by its header")
        held[at : at + len(part)] = np.frombuffer(part, np.uint8)
        at += len(part)
    if at < size:
        raise DamagedError(f"damaged: {at:,} bytes of voxels, where its header says {size:,}")
    return held
