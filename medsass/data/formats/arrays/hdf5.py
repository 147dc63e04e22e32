"""HDF5 files (Imaris and MATLAB 7.3 among them) by h5py, read in parts.

The axes of a dataset follow the rule of NumPy files, `grid.axes_of`; MATLAB stores them in reverse order, and counts images by
the last. One image or stack is expected in a file; where there are several datasets that can be images, `Selection.array` must
name one.
"""

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from medsass import budget
from medsass.data.formats.arrays.grid import ALPHA, Grid, axes_of, can_be_image
from medsass.data.formats.choice import in_recipe, option
from medsass.data.formats.damage import DamagedError, UnreadableError, readable
from medsass.data.formats.image import Selection

_MATLAB = b"MATLAB 7.3"  # at the start of its files
_SIZES = ("ImageSizeZ", "ImageSizeY", "ImageSizeX")  # in Imaris, each an array of single characters
_PACKED = 4096  # bytes that packing may add to a chunk, beside an eighth of it
_DEEP, _DATASETS = 100, 100_000  # groups within one another, and datasets, of a file
_NAMED = 8  # datasets in a message


class Hdf5(Grid):
    """A dataset of the HDF5 file at `path`. Raises `ValueError` where it is not said which, or none can be images."""

    def __init__(self, path: Path, view: Selection) -> None:
        import h5py  # takes a tenth of a second

        with path.open("rb") as file:
            rule = _matlab if file.read(len(_MATLAB)) == _MATLAB else axes_of
        with readable():
            self._file = h5py.File(path, "r")
        try:
            held: dict[str, Any] = {}
            with readable():
                self._file.visititems(partial(_hold, held))
            dataset = held[name := _chosen(held, view)]
            with readable():
                _refuse_elsewhere(self._file[name])
                _check_chunks(self._file[name])
            super().__init__([dataset], rule(dataset.shape or (), view), view, own=True)  # None: of a null dataset
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file."""
        super().close()
        self._file.close()


class _Part:
    """The first voxels of a dataset, to be indexed by numbers and slices within `shape`."""

    def __init__(self, dataset: Any, shape: tuple[int, ...]) -> None:
        self._dataset, self.shape, self.dtype, self.chunks = dataset, shape, dataset.dtype, dataset.chunks

    def __getitem__(self, index: tuple[int | slice, ...]) -> Any:
        return self._dataset[index]


def _hold(held: dict[str, Any], name: str, item: Any) -> None:
    """Put an object of a file, if it is a dataset, among those that are `held`. Raises `UnreadableError` where they are too many."""
    if hasattr(item, "dtype"):
        held[name] = _cropped(item)
    if name.count("/") > _DEEP or len(held) > _DATASETS:  # paths of n groups take n * n steps
        raise UnreadableError(
            f"more than {_DATASETS:,} datasets, or groups {_DEEP} deep; save the image in a file of its own"
        )


def _refuse_elsewhere(dataset: Any) -> None:
    """Raise `UnreadableError` where a dataset takes its values from other files (external storage, a virtual dataset)."""
    names = [name for name, *_ in dataset.external or ()]
    names += [
        one.file_name for one in (dataset.virtual_sources() if dataset.is_virtual else ()) if one.file_name != "."
    ]
    if names:
        raise UnreadableError(
            f"its values are in another file, {names[0]}, which is not read; save them in one file (h5repack)"
        )


def _check_chunks(dataset: Any) -> None:
    """Refuse chunks that are too large to be read, or hold more packed than they have room for, which HDF5 would unpack."""
    if not dataset.chunks:
        return
    size = math.prod(dataset.chunks) * dataset.dtype.itemsize
    budget.check(2 * size, f"a chunk of {dataset.chunks} values")
    largest = 0

    def look(chunk: Any) -> None:
        nonlocal largest
        largest = max(largest, chunk.size)

    if dataset.compression or dataset.id.get_create_plist().get_nfilters():
        dataset.id.chunk_iter(look)
    if largest > size + size // 8 + _PACKED:
        raise DamagedError(f"damaged: {largest:,} bytes are packed in a chunk of {size:,}")


def _cropped(dataset: Any) -> Any:
    """Return a dataset, one of Imaris without the zeros that fill its last chunks: its group says the image's size."""
    said = dataset.parent.attrs
    if dataset.ndim != 3 or _SIZES[0] not in said:
        return dataset
    sizes = (int("".join(np.asarray(said[name]).astype(str).ravel())) for name in _SIZES)
    return _Part(dataset, tuple(map(min, dataset.shape, sizes)))


def _matlab(shape: tuple[int, ...], view: Selection) -> str:
    """Return the axes of a dataset of MATLAB's: its (H, W, C), (H, W, N) and (H, W, C, N), stored in reverse order; (N, H, W, C)
    where the last axis alone can be channels.
    """
    if len(shape) > 2 and shape[0] <= ALPHA < min(shape[1:]):
        return "CXYN"[: len(shape)]
    return axes_of(shape, view).translate(str.maketrans("XY", "YX"))


def _chosen(held: dict[str, Any], view: Selection) -> str:
    """Return the name of the dataset that is asked for, or of the only one that can be images."""
    asked = view.array.strip("/")
    if asked in held:
        return asked
    found = [name for name, item in held.items() if can_be_image(item.shape or (), item.dtype)]
    if asked or len(found) != 1:
        names = ", ".join(f"{name} {held[name].shape}" for name in (found or list(held))[:_NAMED]) or "none"
        what = f"no dataset '{asked}'" if asked else f"{len(found) or 'no'} datasets that can be images"
        by = option(view, "array", "NAME") + in_recipe(view, "array in [[images]] of a recipe")
        raise ValueError(f"{what} in the file; say which by {by}: {names}")
    return found[0]
