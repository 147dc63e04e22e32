"""OME-Zarr (NGFF 0.1 to 0.5, Zarr 2 and 3): a folder that is one image, with its axes and its pyramid. A bare Zarr array is
read by the rule of NumPy files.
"""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medsass import budget
from medsass.data.formats import kinds
from medsass.data.formats.arrays.grid import Grid, axes_of
from medsass.data.formats.damage import DamagedError, UnreadableError, readable
from medsass.data.formats.folder import refuse_part
from medsass.data.formats.image import Selection

_METADATA, _PACKED = 1 << 24, 1 << 16  # bytes of a file of metadata, and that packing or an index may add to a chunk's
_OLD_AXES = "tczyx"  # of NGFF 0.1 and 0.2, which name none


def open_zarr(path: Path, view: Selection) -> Grid:
    """Open the Zarr image in a folder.

    Raises:
        ValueError: where it is no image, or a plate of several.
    """
    import zarr  # takes half a second

    with readable():
        store = _store(path)
        node = zarr.open(store, mode="r")
    if isinstance(node, zarr.Array):
        _check_chunks([node], store)
        return Grid([node], axes_of(node.shape, view), view, own=True)
    described = _described(node)
    if described.get("bioformats2raw.layout") and "0" in node:
        if "1" in node:
            raise ValueError(f"several images in one folder; name one of them, such as {path.name}/0")
        node = node["0"]
        described = _described(node)
    if "plate" in described or "well" in described:
        raise ValueError(f"a plate of wells; name an image in it, such as {path.name}/A/1/0")
    images = described.get("multiscales")
    if not images:
        with readable():
            arrays = [node[name] for name in node.array_keys()]
        if len(arrays) != 1:
            raise ValueError("a Zarr group without an image (multiscales); name an array in it")
        _check_chunks(arrays, store)
        axes = _OLD_AXES.upper() if arrays[0].ndim == len(_OLD_AXES) else axes_of(arrays[0].shape, view)
        return Grid(arrays, axes, view, own=True)
    with readable():
        levels = [node[item["path"]] for item in images[0]["datasets"]]
        if groups := [level.path for level in levels if not isinstance(level, zarr.Array)]:
            raise UnreadableError(
                f"a group, not an array, at {groups[0]}, where a level of the pyramid should be; name the image in it"
            )
        _check_chunks(levels, store)
        axes = _letters(images[0].get("axes"), levels[0].ndim)
    for level in levels:
        if not {"Y", "X"} <= set(axes) or len(axes) != level.ndim:
            raise ValueError(f"axes {axes} for an array of shape {level.shape}; an image has y and x: save it so")
    return Grid(levels, axes, view)


def _store(path: Path) -> Any:
    """Return the files of a Zarr folder, to be read alone: no link that leads out of it, and none that is longer than `most`."""
    from zarr.storage import LocalStore

    class Bounded(LocalStore):  # type: ignore[misc]
        most = 0.0

        async def get(self, key: str, *further: Any, **options: Any) -> Any:
            place = os.path.realpath(self.root / key)
            refuse_part(self.root / key, self.root)
            most = _METADATA if key.rpartition("/")[2] in (*kinds.ZARR, ".zmetadata") else self.most
            size = Path(place).stat().st_size if Path(place).exists() else 0
            if size > most:
                raise DamagedError(f"damaged: {size:,} bytes in {key}, more than the {most:,.0f} that it may hold")
            return await super().get(key, *further, **options)

    return Bounded(path, read_only=True)


def _check_chunks(arrays: Sequence[Any], store: Any) -> None:
    """Refuse chunks that are too large to be read, and let the store refuse those that hold more, packed, than they have room for."""
    largest = max(math.prod(array.shards or array.chunks) * array.dtype.itemsize for array in arrays)
    budget.check(2 * largest, "a chunk")
    store.most = largest * 9 / 8 + _PACKED


def _described(node: Any) -> Mapping[str, Any]:
    """Return the metadata of NGFF, which 0.5 puts under a name of its own."""
    attributes = dict(node.attrs)
    inner = attributes.get("ome")
    return inner if isinstance(inner, Mapping) else attributes


def _letters(axes: Any, count: int) -> str:
    names = axes or list(_OLD_AXES)[-count:]
    return "".join((name if isinstance(name, str) else name["name"])[0].upper() for name in names)
