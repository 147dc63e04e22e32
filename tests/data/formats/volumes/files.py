"""Volumes to read: NIfTI by nibabel, NRRD and MetaImage by SimpleITK, of any orientation."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk  # noqa: N813

from medsass.data.formats.image import ImageFile

RNG = np.random.default_rng(0)
SHAPE = (7, 9, 5)  # I, J, K
CODES = ("RAS", "LPS", "LAS", "PIR", "SAL", "ILA", "ASL", "SRP")  # of the grid's axes
SHOWN = {"z": "SPL", "y": "PIL", "x": "LIP"}  # where slices, rows and columns go


def grid(kind: str = "int16", shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return RNG.integers(0, 200, shape).astype(kind)


def affine(codes: str, zooms: tuple[float, ...] = (0.5, 2.0, 3.25), angle: float = 0.2) -> np.ndarray:
    """Return an oblique affine whose nearest axes are `codes`."""
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    turned = np.linalg.inv(nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(codes), SHAPE))
    turned[:3, :3] = rotation @ turned[:3, :3] * 1.0
    found = turned @ np.diag([*zooms, 1])
    found[:3, 3] = -11, 5, 70
    assert "".join(nib.aff2axcodes(found)) == codes
    return np.asarray(found)


def save(path: Path, array: np.ndarray, codes: str = "RAS", **header: Any) -> Path:
    image = nib.Nifti1Image(array, affine(codes))
    image.header.set_slope_inter(*header.get("rescale", (1, 0)))
    nib.save(image, path)
    return path


def reoriented(array: np.ndarray, codes: str, place: np.ndarray) -> nib.Nifti1Image:
    """Return a volume of the same places whose grid's axes are `codes`, by nibabel."""
    image = nib.Nifti1Image(array, place)
    own = nib.orientations.io_orientation(place)
    return image.as_reoriented(nib.orientations.ornt_transform(own, nib.orientations.axcodes2ornt(codes)))


def save_itk(
    path: Path, array: np.ndarray, codes: str = "LPS", vector: bool = False, place: np.ndarray | None = None
) -> Path:
    """Write an array whose axes are columns last, as SimpleITK's."""
    image, ras = sitk.GetImageFromArray(array, isVector=vector), affine(codes) if place is None else place
    lps = np.diag([-1, -1, 1, 1]) @ ras
    zooms = np.linalg.norm(lps[:3, :3], axis=0)
    if image.GetDimension() == 3:
        image.SetDirection((lps[:3, :3] / zooms).ravel().tolist())
        image.SetSpacing(zooms.tolist())
        image.SetOrigin(lps[:3, 3].tolist())
    sitk.WriteImage(image, str(path), path.suffix in (".nrrd", ".mha"))
    return path


def frames(picture: ImageFile) -> np.ndarray:
    return np.stack([picture.read(frame) for frame in range(picture.frames)])


def shown(array: np.ndarray, codes: str, axis: str) -> np.ndarray:
    """Return the slices as nibabel reorients the grid."""
    turned = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt(codes), nib.orientations.axcodes2ornt(SHOWN[axis])
    )
    return np.asarray(nib.orientations.apply_orientation(array, turned))
