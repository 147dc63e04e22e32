"""Kinds of files by their content, on files that other libraries wrote, and the search of a folder."""

import gzip
import io
import zipfile
from pathlib import Path, PurePath

import h5py
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
import tifffile
from PIL import Image
from pydicom.data import get_testdata_file

from medsass.data.formats import kinds

GRAY = np.random.default_rng(0).integers(0, 256, (24, 40), np.uint8)


def written(name: str, folder: Path) -> Path:
    """Write an image of this suffix by a library of that format."""
    path = folder / name
    suffix = name.partition(".")[2]
    if suffix in ("npy", "npz"):
        (np.save if suffix == "npy" else np.savez)(path, GRAY)
    elif suffix in ("nii", "nii.gz", "hdr"):
        affine, volume = np.eye(4), np.zeros((5, 6, 7), np.int16)
        nibabel.save((nibabel.Nifti1Pair if suffix == "hdr" else nibabel.Nifti1Image)(volume, affine), path)
    elif suffix in ("nrrd", "nhdr", "mha", "mhd"):
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.zeros((5, 6, 7), np.int16)), path)
    elif suffix in ("h5", "mat"):
        with h5py.File(path, "w", userblock_size=512 if suffix == "mat" else 0) as file:
            file["a"] = GRAY
    elif suffix == "tif":
        tifffile.imwrite(path, GRAY, bigtiff=True, byteorder=">")
    else:
        Image.fromarray(GRAY).save(path)
    return path


@pytest.mark.parametrize(("name", "expected"), [
    ("a.npy", "array"), ("a.npz", "array"), ("a.nii", "volume"), ("a.nii.gz", "volume"), ("a.hdr", "volume"),
    ("a.nrrd", "volume"), ("a.nhdr", "volume"), ("a.mha", "volume"), ("a.mhd", "volume"), ("a.h5", "hdf5"),
    ("a.mat", "hdf5"), ("a.tif", "tiff"), *((f"a.{name}", "photo") for name in ["avif", "bmp", "gif", "jp2", "jpg", "pgm", "png", "webp"]),
])  # fmt: skip
def test_a_file_of_any_name_is_known_by_its_content(name: str, expected: str, tmp_path: Path) -> None:
    head = written(name, tmp_path).read_bytes()[: kinds.HEAD]
    for other in ("image", "image.txt", "image.png", "image.tif"):
        assert kinds.kind(head, PurePath(other)) == expected


def test_a_metaimage_is_known_by_its_first_lines(tmp_path: Path) -> None:
    image = SimpleITK.GetImageFromArray(np.zeros((5, 6, 7), np.int16))
    image.SetMetaData("field", "x" * kinds.HEAD)
    SimpleITK.WriteImage(image, tmp_path / "a.mha")
    head = (tmp_path / "a.mha").read_bytes()[: kinds.HEAD]
    assert b"DimSize" not in head
    assert kinds.kind(head, PurePath("image.txt")) == "volume"
    for other in (b"ObjectType = Transform\nNDims = 3\n", b"ObjectType = ImageList\n", b"NDims = 3\n", b"a = 1\n"):
        assert kinds.kind(other, PurePath("a.txt")) == ""


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "rtplan.dcm", "ExplVR_LitEndNoMeta.dcm"])
def test_dicom_needs_neither_suffix_nor_preamble(name: str) -> None:
    head = Path(get_testdata_file(name)).read_bytes()[: kinds.HEAD]
    assert kinds.kind(head, PurePath("IM0001")) == "dicom"


def test_a_directory_of_dicom_files_is_no_image() -> None:
    head = Path(get_testdata_file("DICOMDIR")).read_bytes()[: kinds.HEAD]
    assert pydicom.misc.is_dicom(get_testdata_file("DICOMDIR"))
    assert kinds.kind(head, PurePath("DICOMDIR")) == ""


def archive(member: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(member, "text")
    return buffer.getvalue()


@pytest.mark.parametrize("content", [
    b"", b"name,age\n", b"P1 and P2 are patients\n", b"BM is a station\n", archive("[Content_Types].xml"), gzip.compress(b"a,b\n", mtime=0),
    b"%PDF-1.7", b"\x7fELF", b"{}", bytes(1024), b"RIFF\0\0\0\0WAVE",
], ids=["empty", "csv", "P1", "BM", "docx", "gzip", "pdf", "elf", "json", "zeros", "wave"])  # fmt: skip
def test_other_files_are_no_images_unless_their_name_says_so(content: bytes) -> None:
    assert kinds.kind(content, PurePath("file")) == kinds.kind(content, PurePath("a.csv")) == ""
    assert kinds.kind(content, PurePath("a.PNG")) == "photo"  # damaged: to be reported, not passed over
    assert kinds.kind(content, PurePath("a.nii.gz")) == "volume"


def test_raw_files_of_cameras_are_no_tiff() -> None:
    assert kinds.kind(b"II*\0" + bytes(99), PurePath("a.NEF")) == ""


def test_voxels_beside_a_header_are_no_files_of_their_own() -> None:
    assert kinds.headers("a/v.raw") == ["a/v.hdr", "a/v.mhd", "a/v.nhdr"]
    assert kinds.headers("v.IMG") == ["v.hdr", "v.mhd", "v.nhdr"]
    assert kinds.headers("v.txt") == []
