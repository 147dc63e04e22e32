"""Damaged packed voxels of NRRD and MetaImage against gzip and zlib; whole ones against SimpleITK."""

import gzip
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from medsass.data.formats.image import Selection
from medsass.data.formats.opening import open_image
from tests.data.formats.volumes.files import RNG, SHAPE, frames, grid, save_itk

KINDS = ("uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64")


@pytest.mark.parametrize("name", ["a.nrrd", "a.nhdr", "a.mha", "a.mhd"])
def test_a_wrong_bit_of_packed_voxels_is_refused(name: str, tmp_path: Path) -> None:
    array = RNG.integers(0, 1 << 15, SHAPE[::-1]).astype(np.int16)
    file, start = _saved(tmp_path / name, array)
    whole, unpack = file.read_bytes(), gzip.decompress if "n" in name else zlib.decompress
    refused = 0
    for at in range(start, len(whole)):
        data = bytearray(whole)
        data[at] ^= 4
        try:
            unpack(data[start:])
        except (zlib.error, OSError, EOFError):
            file.write_bytes(data)
            with pytest.raises(ValueError, match=r"^damaged"), open_image(tmp_path / name) as picture:
                frames(picture)
            refused += 1
    assert refused > 0.9 * (len(whole) - start)
    for end in range(1, 9):
        file.write_bytes(whole[:-end])
        with pytest.raises(ValueError, match=r"\w"), open_image(tmp_path / name) as picture:
            frames(picture)
    file.write_bytes(whole)
    with open_image(tmp_path / name) as picture:
        np.testing.assert_array_equal(frames(picture), array)


@pytest.mark.parametrize("size", ["7 9 4", "7 9 6"])
def test_packed_voxels_of_another_number_than_the_header_says_are_refused(size: str, tmp_path: Path) -> None:
    _saved(tmp_path / "a.mha", grid(shape=SHAPE[::-1]))
    data = (tmp_path / "a.mha").read_bytes()
    (tmp_path / "a.mha").write_bytes(data.replace(b"DimSize = 7 9 5", f"DimSize = {size}".encode()))
    with pytest.raises(ValueError, match=r"^damaged: .* its header"), open_image(tmp_path / "a.mha") as picture:
        frames(picture)


@pytest.mark.parametrize("vector", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_packed_metaimage_of_any_type_is_read_as_simpleitk_does(kind: str, vector: bool, tmp_path: Path) -> None:
    array = grid(kind, (*SHAPE[::-1], 3)) if vector else grid(kind, SHAPE[::-1])
    save_itk(tmp_path / "a.mha", array, vector=vector)
    assert b"CompressedData = True" in (tmp_path / "a.mha").read_bytes()
    with open_image(tmp_path / "a.mha") as picture:
        np.testing.assert_array_equal(frames(picture), sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "a.mha")))
        assert picture.dtype == kind


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("skipped", [0, 7])
def test_a_metaimage_whose_voxels_are_in_another_file_is_read(order: str, skipped: int, tmp_path: Path) -> None:
    array = RNG.integers(0, 1 << 15, (4, 5, 6)).astype(f"{order}i2")
    packed = zlib.compress(array.tobytes())
    (tmp_path / "v.bin").write_bytes(bytes(skipped) + packed)
    (tmp_path / "a.mhd").write_text(
        f"ObjectType = Image\r\nNDims = 3\r\nBinaryData = True\r\nBinaryDataByteOrderMSB = {order == '>'}\r\n"
        f"CompressedData = True\r\nCompressedDataSize = {len(packed)}\r\nHeaderSize = {skipped}\r\nDimSize = 6 5 4\r\n"
        "ElementType = MET_SHORT\r\nElementDataFile = v.bin\r\n",
        newline="",
    )
    with open_image(tmp_path / "a.mhd") as picture:
        np.testing.assert_array_equal(frames(picture), sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "a.mhd")))
        np.testing.assert_array_equal(frames(picture), array)
    (tmp_path / "v.bin").unlink()
    with pytest.raises(ValueError, match=r"v\.bin must be beside it"), open_image(tmp_path / "a.mhd") as picture:
        frames(picture)


def test_times_of_a_packed_metaimage_are_read(tmp_path: Path) -> None:
    array = grid("uint8", (3, *SHAPE[::-1]))
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=False), tmp_path / "a.mha", True)
    with open_image(tmp_path / "a.mha", Selection(channels=(2,))) as picture:
        np.testing.assert_array_equal(frames(picture), array[2])


@pytest.mark.parametrize("field", ["", "byte skip: 6\n", "line skip: 2\n", "note:=a: b\n# c: d\n"])
def test_other_forms_of_packed_nrrd_are_read_as_simpleitk_does(field: str, tmp_path: Path) -> None:
    array = RNG.integers(0, 200, (4, 5, 6)).astype(np.int16)
    header = "NRRD0004\ntype: short\ndimension: 3\nsizes: 6 5 4\nendian: little\nencoding: gz\n" + field
    before = b"one\ntwo\n" if "line" in field else b""
    packed = before + gzip.compress(bytes(6 if "byte" in field else 0) + array.tobytes()) + b"tail"
    (tmp_path / "a.nrrd").write_bytes(header.encode() + b"\n" + packed)
    (tmp_path / "b.nhdr").write_text(header + "datafile: v.raw.gz\n")
    (tmp_path / "v.raw.gz").write_bytes(packed)
    for name in ("a.nrrd", "b.nhdr"):
        with open_image(tmp_path / name) as picture:
            np.testing.assert_array_equal(frames(picture), array)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / name)), array)


def _saved(path: Path, array: np.ndarray) -> tuple[Path, int]:
    """Write an array, packed; return the file of its voxels and where in it they begin."""
    sitk.WriteImage(sitk.GetImageFromArray(array), path, True)
    beside = {".nhdr": ".raw.gz", ".mhd": ".zraw"}.get(path.suffix)
    if beside:
        return path.with_suffix(beside), 0
    end = b"\n\n" if path.suffix == ".nrrd" else b"LOCAL\n"
    return path, path.read_bytes().index(end) + len(end)
