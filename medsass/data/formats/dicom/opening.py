"""What a DICOM file holds: an image, a stack of frames, a volume or a slide; and stacks cut along any axis."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from medsass.data.formats.arrays.grid import Grid
from medsass.data.formats.damage import readable
from medsass.data.formats.dicom import series
from medsass.data.formats.dicom.header import frames_of, functional_group, read_header
from medsass.data.formats.dicom.image import SEGMENTATIONS, Dicom
from medsass.data.formats.dicom.slide import DicomSlide
from medsass.data.formats.image import ImageFile, Selection
from medsass.data.formats.volumes.volume import check_voxels


def open_dicom(source: Path | bytes, view: Selection) -> ImageFile:
    """Open a DICOM file, a path or its bytes: an image, a stack of frames, a volume where each frame says its place, or a slide.

    Raises:
        ValueError: where it holds no such image.
        ImportError: without pydicom.
    """
    header, _ = known = read_header(source)
    total = frames_of(header, source)
    with readable():
        tiled = header.get("TotalPixelMatrixColumns") and header.get("TotalPixelMatrixRows") and "Rows" in header
        placed = header.get("ImagePositionPatient")
    if tiled:
        return DicomSlide(source, view, known)
    if total > 1 and (planes := series.planes_of(header)):
        stack = Dicom(source, replace(view, axis="", frames="all", every=1), known)
        if not stack.colour:
            return series.Enhanced(stack, planes, view)
    said = functional_group(header, 0, "PlanePositionSequence") is not header
    if view.raw and total > 1 and said and header.get("SOPClassUID") in SEGMENTATIONS:
        raise ValueError(
            "a DICOM segmentation whose frames are not the slices of one volume, as those of several segments; save each segment "
            "as a volume (NIfTI, by dcmqi or 3D Slicer): they are united"
        )
    if view.across and total > 1:
        return _cut(Dicom(source, replace(view, axis="z", frames="all", every=1), known), view)
    if view.across and placed:
        raise ValueError(
            f"a slice of a series, which cannot be cut along {view.axis} alone: make a NIfTI file of the series (dcm2niix)"
        )
    return Dicom(source, view, known)


def _cut(stack: Dicom, view: Selection) -> Grid:
    """Cut a stack along another axis than its own; it is decoded whole."""
    with stack:
        check_voxels((stack.width, stack.height, stack.total), 2 * (3 if stack.colour else 1) * stack.dtype.itemsize)
        array = np.stack([stack.read(frame) for frame in range(stack.frames)])
    cut = Grid([array], "ZYXC" if stack.colour else "ZYX", replace(view, channels=()))
    cut.limits, cut.padding, cut.span, cut.common = stack.limits, stack.padding, stack.span, True
    cut.mirror = stack.mirror
    cut.converted = ", ".join(filter(None, (cut.converted, stack.converted)))
    return cut
