"""NumPy files: .npy, read through a memory map, and members of .npz, unpacked into a temporary file once."""

import io
import math
import shutil
import tempfile
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from medsass import budget
from medsass.data.formats.arrays.grid import Grid, axes_of, can_be_image
from medsass.data.formats.choice import in_recipe, option
from medsass.data.formats.damage import DamagedError, UnreadableError, readable
from medsass.data.formats.image import Selection, check_level
from medsass.data.formats.kinds import ZIP_MAGIC

_PACKING = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_HEADER = 1 << 16  # bytes of a header at most, of which NumPy takes 10,000


class Array(Grid):
    """An array file at `path`, memory-mapped. Raises `ValueError` for a shape or type that cannot be images."""

    def __init__(self, path: Path, view: Selection) -> None:
        check_level(view, 1)
        if zipfile.is_zipfile(path):
            array = _unpacked(path, view)
        elif view.array:
            raise ValueError(
                f"array '{view.array}' is asked for, but an .npy file holds one array without a name; name none"
            )
        else:
            with path.open("rb") as file, readable():
                if file.read(len(ZIP_MAGIC[0])) == ZIP_MAGIC[0]:
                    raise DamagedError("truncated .npz file: its end is missing")
                file.seek(0)
                _header(file, path.name)
                array = npy.open_memmap(path, mode="r")
        super().__init__([array], axes_of(array.shape, view), view, own=True)


def _unpacked(path: Path, view: Selection) -> NDArray[Any]:
    """Map the member that is asked for, or the only one that can be an image, in a temporary file without a name."""
    asked = view.array
    with ExitStack() as stack:
        with readable():
            archive = stack.enter_context(zipfile.ZipFile(path))
            members = {name.removesuffix(".npy"): name for name in archive.namelist() if name.endswith(".npy")}
            if any(
                one.compress_type not in _PACKING for one in archive.infolist()
            ):  # others are unpacked without a bound
                raise UnreadableError("it is packed otherwise than NumPy does; save it by numpy.savez_compressed")
        able = [asked] if asked else [name for name in members if _is_image(archive, members[name])]
        if len(able) != 1 or able[0] not in members:
            what = f"no array '{asked}'" if asked else f"{len(able) or 'no'} arrays that can be images"
            held = ", ".join(able if len(able) > 1 else members) or "none"
            by = option(view, "array", "NAME") + in_recipe(view, "array in [[images]] of a recipe")
            raise ValueError(f"{what} in the file; say which by {by}: {held}")
        (chosen,) = able
        with readable(), archive.open(members[chosen]) as packed:
            shape, dtype = _header(packed, chosen)
            info, due = archive.getinfo(members[chosen]), packed.tell() + math.prod(shape) * dtype.itemsize
        if info.file_size != due:
            raise DamagedError(f"damaged: {info.file_size:,} bytes of {chosen} where its header says {due:,}")
        budget.check_packed(info.compress_size, due, f"unpacking {chosen}, unless saved as .npy,")
        file = stack.enter_context(tempfile.NamedTemporaryFile(prefix="medsass-", suffix=".npy"))
        with readable(), archive.open(members[chosen]) as packed:
            shutil.copyfileobj(packed, file, 1 << 20)
        file.flush()
        with readable():
            return npy.open_memmap(file.name, mode="r")  # the file goes with its name here; the map keeps its content


def _is_image(archive: zipfile.ZipFile, member: str) -> bool:
    with readable(), archive.open(member) as packed:
        try:
            shape, dtype = _header(packed, member)
        except ValueError:
            return False
    return can_be_image(shape, dtype)


def _header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and type of an array; raise `ValueError` for pickled objects."""
    first = npy.read_magic(file) == (1, 0)
    size = file.read(2 if first else 4)
    text = file.read(
        min(int.from_bytes(size, "little"), _HEADER)
    )  # NumPy reads all, before it refuses what is too long
    read = npy.read_array_header_1_0 if first else npy.read_array_header_2_0
    shape, _, dtype = read(io.BytesIO(size + text))
    if dtype.hasobject:
        raise UnreadableError(
            f"{name} holds pickled Python objects, which are not read; save it as an array of numbers"
        )
    return shape, dtype
