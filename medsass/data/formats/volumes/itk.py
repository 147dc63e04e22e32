"""NRRD and MetaImage by SimpleITK."""

import importlib
import math
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from medsass.data.formats.damage import DamagedError, readable
from medsass.data.formats.image import Selection
from medsass.data.formats.volumes import packed
from medsass.data.formats.volumes.volume import LPS, Volume, check_voxels

_TYPES = {"Int8": "i1", "Int16": "i2", "Int32": "i4", "Int64": "i8", "Float32": "f4", "Float64": "f8"}
_TYPES |= {f"U{name}": f"u{kind[1]}" for name, kind in _TYPES.items() if kind[0] == "i"}


@contextmanager
def _readable() -> Iterator[None]:
    """Do as `readable`, with the last of the reasons that ITK strings together."""
    with readable():
        try:
            yield
        except RuntimeError as error:
            text = re.sub(r"^\w+IO\(\w+\): ", "", " ".join(str(error).split()).rpartition("ERROR: ")[2])
            reason = re.split(r"\[nrrd\] (?:\w+: )?", text)[-1]
            if "Reason: " in reason:  # the last error of the process, of whatever call
                missing = "its voxels are damaged, cut off or, where it is a header, not in the file that it names"
                raise DamagedError(missing) from error
            raise ValueError(reason) from error


class Itk(Volume):
    """A file, or its header, at `path`, that SimpleITK's reader `name` reads."""

    name = ""
    fields: Callable[[IO[bytes]], dict[str, str]]

    def __init__(self, path: Path, view: Selection) -> None:
        sitk = importlib.import_module("SimpleITK")
        sitk.ProcessObject.GlobalWarningDisplayOff()
        self._path = path
        with path.open("rb") as file:
            self.fields(file)
        self._reader = reader = sitk.ImageFileReader()
        with _readable():
            reader.SetImageIO(self.name)
            reader.SetFileName(str(path))
            reader.ReadImageInformation()
        size, many = reader.GetSize(), reader.GetNumberOfComponents()
        types = {getattr(sitk, f"sitk{form}{name}"): kind for name, kind in _TYPES.items() for form in ("", "Vector")}
        stored = types.get(reader.GetPixelID())
        if stored is None or len(size) > 4 or (len(size) == 4 and size[3] > 1 and many > 1):
            kind = sitk.GetPixelIDValueAsString(reader.GetPixelID())
            raise ValueError(f"voxels of type {kind} in {len(size)} dimensions are not supported; save it as NIfTI")
        self._stored = np.dtype(stored)
        check_voxels((*size, many), 2 * self._stored.itemsize)
        grid, times = (*size[:3], 1, 1)[:3], len(size) == 4 and size[3] > 1
        super().__init__(view, (*grid, size[3] if times else many), self._affine(), self._stored, times=times)

    def _affine(self) -> NDArray[np.float64]:
        many = self._reader.GetDimension()
        turned = np.reshape(self._reader.GetDirection(), (many, many)) * self._reader.GetSpacing()
        affine, used = np.eye(4), min(many, 3)
        affine[:used, :used], affine[:used, 3] = turned[:used, :used], self._reader.GetOrigin()[:used]
        return np.asarray(LPS @ affine)

    def _load(self) -> NDArray[Any]:
        with _readable():
            array = importlib.import_module("SimpleITK").GetArrayFromImage(self._reader.Execute())
        return np.reshape(
            np.moveaxis(array.T, 0, -1) if self._reader.GetNumberOfComponents() > 1 else array.T, self._shape
        )

    def _file(self, grid: NDArray[Any], index: tuple[slice, ...]) -> bytes:
        sitk, many = importlib.import_module("SimpleITK"), self._reader.GetDimension()
        probe = sitk.Image([1] * many, sitk.sitkUInt8)
        for name in ("Spacing", "Origin", "Direction"):
            getattr(probe, f"Set{name}")(getattr(self._reader, f"Get{name}")())
        parts = (*index, slice(None))[:many]
        shape = (1,) * (many - grid.ndim) + grid.T.shape[max(0, grid.ndim - many) :]
        image = sitk.GetImageFromArray(np.ascontiguousarray(grid.T.reshape(shape)), False)
        image.SetDirection(probe.GetDirection())
        image.SetOrigin(probe.TransformIndexToPhysicalPoint([part.start or 0 for part in parts]))
        image.SetSpacing([step * (part.step or 1) for step, part in zip(probe.GetSpacing(), parts, strict=True)])
        with tempfile.TemporaryDirectory(prefix="medsass-") as folder:
            sitk.WriteImage(image, f"{folder}/a{self.suffix}", True)
            return Path(folder, f"a{self.suffix}").read_bytes()


class Nrrd(Itk):
    """An NRRD file, or its header (.nhdr), at `path`."""

    name, suffix, fields = "NrrdImageIO", ".nrrd", staticmethod(packed.nrrd_fields)

    def _load(self) -> NDArray[Any]:
        with readable():
            packed.check_nrrd(self._path)
        return super()._load()


class Meta(Itk):
    """A MetaImage file (.mha), or its header (.mhd), at `path`."""

    name, suffix, fields = "MetaImageIO", ".mha", staticmethod(packed.meta_fields)

    def _load(self) -> NDArray[Any]:
        with readable():
            voxels = packed.meta_voxels(self._path, self._stored, math.prod(self._shape))
        if voxels is None:
            return super()._load()
        if self._reader.GetNumberOfComponents() == 1:
            return voxels.reshape(self._shape, order="F")
        return np.moveaxis(voxels.reshape((self._shape[3], *self._shape[:3]), order="F"), 0, -1)
