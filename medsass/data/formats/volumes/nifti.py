"""NIfTI 1 and 2, and ANALYZE 7.5, by nibabel: single files and pairs, compressed or not."""

import gzip
import importlib
import io
import math
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from medsass import budget
from medsass.data.formats.damage import DamagedError, readable
from medsass.data.formats.folder import refuse_part
from medsass.data.formats.image import Selection
from medsass.data.formats.kinds import GZIP, NIFTI
from medsass.data.formats.volumes.packed import Gzip, read_on, unpacking
from medsass.data.formats.volumes.volume import Volume, check_voxels

_READERS = {  # by their magic
    b"n+1\0": "Nifti1Image",
    b"ni1\0": "Nifti1Pair",
    b"n+2\0": "Nifti2Image",
    b"ni2\0": "Nifti2Pair",
    b"": "AnalyzeImage",
}


class Nifti(Volume):
    """A NIfTI file, or the header of a pair, at `path`; memory-mapped unless it is compressed."""

    def __init__(self, path: Path, view: Selection) -> None:
        nibabel = importlib.import_module("nibabel")
        nibabel.imageglobals.logger.handlers.clear()  # it writes to stderr by itself, beside the root logger
        with ExitStack() as files:
            header, packed = _opened(path, files)
            self._packed = [header] if packed else []
            with readable(), unpacking():
                start = header.read(512)
                magic = next((magic for magic, place in NIFTI.items() if start[place : place + 4] == magic), b"")
                start += header.read(28) if b"2" in magic else b""  # its header has 540 bytes
                header.seek(0)
            if not magic and ".hdr" not in path.name.lower():
                raise DamagedError("damaged: the header lacks the mark of a NIfTI file")
            held, kind = {"image": nibabel.FileHolder(fileobj=header)}, _READERS[magic]
            if kind not in ("Nifti1Image", "Nifti2Image"):
                file, packed = _opened(_voxels_of(path), files)
                self._packed += [file] if packed else []
                held = {"header": held["image"], "image": nibabel.FileHolder(fileobj=file)}
            with readable():
                said = getattr(nibabel, kind).header_class(start if b"2" in magic else start[:348], check=False)
                shape, stored, place = said.get_data_shape(), said.get_data_dtype(), said.get_data_offset()
            if not packed and place + math.prod(shape) * stored.itemsize > _length(held["image"].fileobj):
                raise DamagedError(
                    f"damaged: shorter than the {'x'.join(map(str, shape))} voxels that its header promises"
                )
            if packed or stored.names:
                check_voxels(shape, stored.itemsize * (2 if stored.names else 1))
            if self._packed:  # what comes before the voxels is read whole, whatever it holds
                budget.check(2 * place, "unpacking its header")
            with readable(), unpacking():
                self._image = image = getattr(nibabel, kind).from_file_map(held)
                stored, shape = image.get_data_dtype(), image.shape
                rescale = float(image.dataobj.slope), float(image.dataobj.inter)
            self._colour = stored.names
            rest = [size for size in shape[3:] if size > 1]
            if len(rest) + bool(self._colour) > 1:
                raise ValueError(f"a volume of {len(shape)} dimensions, {shape}; save its parts as files of their own")
            count = 3 if self._colour else rest[0] if rest else 1
            grid = (*shape[:3], 1, 1)[:3]
            super().__init__(
                view, (*grid, count), image.affine, np.dtype(np.uint8) if self._colour else stored, rescale,
                times=len(shape) > 3 and shape[3] > 1, streams=not packed,
            )  # fmt: skip
            self._files = files.pop_all()

    def _load(self) -> NDArray[Any]:
        with readable(), unpacking():
            array = self._image.dataobj.get_unscaled()
            for file in self._packed:
                read_on(file)
        if self._colour:
            array = np.stack([array[name] for name in self._colour[:3]], axis=-1)
        return np.reshape(array, self._shape, order="F")

    def _file(self, grid: NDArray[Any], index: tuple[slice, ...]) -> bytes:
        kind = getattr(importlib.import_module("nibabel"), f"Nifti{1 + ('2' in type(self._image).__name__)}Image")
        header = self._image.header.copy()
        header.set_data_dtype(grid.dtype)
        header.set_slope_inter(1, 0)
        header["cal_min"] = header["cal_max"] = 0
        whole = all(part.step in (None, 1) for part in index)
        affine = self._image.affine if whole else self._image.slicer.slice_affine(index)
        image = kind(grid, affine, header)
        forms = [
            (name, *getattr(header, f"get_{name}")(coded=True))
            for name in ("qform", "sform")
            if hasattr(header, "get_qform")
        ]
        if not whole and any(code for _, _, code in forms):  # both are cut alike, as they may differ
            step = np.linalg.inv(self._image.affine) @ affine
            for name, held, code in forms:
                getattr(image, f"set_{name}")(None if held is None else held @ step, int(code))
        return gzip.compress(image.to_bytes(), 6, mtime=0)

    def close(self) -> None:
        """Close the files."""
        super().close()
        self._files.close()


def _voxels_of(header: Path) -> Path:
    """Return the file of the voxels beside a header."""
    stem = header.with_suffix("") if header.suffix.lower() == ".gz" else header
    for suffix in (".img", ".IMG", ".img.gz"):
        if (path := stem.with_suffix(suffix)).is_file():
            refuse_part(path, header.parent)
            return path
    raise ValueError(f"its voxels are missing: {stem.with_suffix('.img').name} must be beside it")


def _opened(path: Path, files: ExitStack) -> tuple[Any, bool]:
    """Open a file that gzip may have packed, until `files` is closed, and say whether it has."""
    file: Any = files.enter_context(path.open("rb"))
    packed = file.read(2) == GZIP
    file.seek(0)
    return (files.enter_context(Gzip(fileobj=file)), True) if packed else (file, False)


def _length(file: IO[bytes]) -> int:
    """Return the bytes of an open file, which stays where it is."""
    at, end = file.tell(), file.seek(0, io.SEEK_END)
    file.seek(at)
    return end
