"""NumPy files: .npy, read through a memory map, and members of .npz, unpacked into a temporary file once.

The meaning of an axis follows from a rule: (H, W); (H, W, C) where the last axis is at most 4 long or channels are
chosen; (N, H, W) where all frames are asked for; (N, H, W, C). Anything else is ambiguous and refused.
"""

import shutil
import tempfile
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from medsass.data.formats.geometry import Box, compose, pick_channels
from medsass.data.formats.image import ImageFile, Selection, check_level, readable

_ALPHA = 4  # channels, of which the last is alpha


class Array(ImageFile):
    """An array file at `path`, memory-mapped. Raises `ValueError` for a shape or type that cannot be images."""

    def __init__(self, path: Path, view: Selection) -> None:
        check_level(view, 1)
        if zipfile.is_zipfile(path):
            self._array = _unpacked(path, view.array)
        elif view.array:
            raise ValueError(f"array '{view.array}' is asked for, but an .npy file holds one array without a name")
        else:
            with path.open("rb") as file, readable():
                _header(file, path.name)
                self._array = npy.open_memmap(path, mode="r")
        several, last = _axes(self._array.shape, view)
        count = self._array.shape[-1] if last else 1
        alpha = count == _ALPHA and not view.channels
        self._channels = (0, 1, 2) if alpha else pick_channels(view.channels, count)
        self._several, self._last, self._bool, self._raw = several, last, self._array.dtype == np.bool_, view.raw
        height, width = self._array.shape[int(several) :][:2]
        dtype = np.dtype(np.uint8) if self._bool else self._array.dtype
        super().__init__(height, width, len(self._channels) == 3, dtype, view, streams=True)
        self._grain = (1, width) if self._array.flags.c_contiguous else (1, 1)
        notes = [self._select(view, self._array.shape[0] if several else 1), "alpha dropped" if alpha else ""]
        self.converted = ", ".join(filter(None, [*notes, "bilevel to gray" if self._bool else ""]))

    def _decode(self, frame: int, box: Box, _level: int) -> NDArray[Any]:
        part = (self._array[frame] if self._several else self._array)[box.slices]
        part = compose(self._channels, lambda i: part[..., i]) if self._last else np.asarray(part)
        return part * np.uint8(1 if self._raw else 255) if self._bool else np.array(part, self.dtype)

    def close(self) -> None:
        """Give the memory map back."""
        super().close()
        self._array = np.zeros((0, 0))


def _axes(shape: tuple[int, ...], view: Selection) -> tuple[bool, bool]:
    """Return whether the first axis of `shape` counts frames, and whether the last one counts channels."""
    if 0 in shape or len(shape) not in (2, 3, 4):
        raise ValueError(f"an array of shape {shape}; images are (H, W), (H, W, C), (N, H, W) or (N, H, W, C)")
    if len(shape) != 3:
        return len(shape) == 4, len(shape) == 4
    if shape[-1] <= _ALPHA or (view.channels and view.frames != "all"):
        return False, True
    if view.frames == "all" and not view.channels:
        return True, False
    raise ValueError(
        f"an array of shape {shape} can be {shape[0]} frames or {shape[2]} channels; "
        "say which: --frames all, or --channels 0 (in [[images]] of a recipe: frames, channels)"
    )


def _unpacked(path: Path, asked: str) -> NDArray[Any]:
    """Map the member that is asked for, or the first that can be an image, in a temporary file without a name."""
    with ExitStack() as stack:
        with readable():
            archive = stack.enter_context(zipfile.ZipFile(path))
            members = {name.removesuffix(".npy"): name for name in archive.namelist() if name.endswith(".npy")}
        chosen = asked or next((name for name in members if _is_image(archive, members[name])), "")
        if chosen not in members:
            what = f"no array '{asked}'" if asked else "no array that can be an image"
            raise ValueError(f"{what} in the file; it holds {', '.join(members) or 'none'}")
        with readable(), archive.open(members[chosen]) as packed:
            _header(packed, chosen)
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
    return len(shape) in (2, 3, 4) and 0 not in shape and dtype.kind in "buif"


def _header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and type of an array; raise `ValueError` for pickled objects."""
    read = npy.read_array_header_1_0 if npy.read_magic(file) == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise ValueError(f"{name} holds pickled Python objects, which are not read; save it as an array of numbers")
    return shape, dtype
