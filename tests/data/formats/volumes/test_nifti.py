"""NIfTI of any orientation and type against nibabel."""

import gzip
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medsass import budget
from medsass.data.formats.geometry import Box
from medsass.data.formats.image import Selection
from medsass.data.formats.opening import open_image
from medsass.data.formats.volumes import volume
from tests.data.formats.volumes.files import CODES, RNG, SHAPE, affine, frames, grid, save, shown


@pytest.mark.parametrize("axis", "zyx")
@pytest.mark.parametrize("codes", CODES)
def test_nifti_of_any_orientation_is_shown_as_nibabel_turns_it_and_comes_back(
    codes: str, axis: str, tmp_path: Path
) -> None:
    array = grid()
    path = save(tmp_path / "a.nii.gz", array, codes)
    with open_image(path, Selection(axis=axis)) as picture:
        got = frames(picture)
        np.testing.assert_array_equal(got, shown(array, codes, axis))
        np.testing.assert_array_equal(picture.read(1, Box(1, 2, 3, 2)), got[1, 1:4, 2:4])
        assert (picture.dtype, picture.colour, picture.total, picture.converted) == ("int16", False, len(got), "")
        assert isinstance(picture, volume.Volume)
        (tmp_path / "b.nii.gz").write_bytes(picture.encode((got > 90).astype(np.uint8)))
    back, original = nib.load(tmp_path / "b.nii.gz"), nib.load(path)
    assert back.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(back.dataobj), array > 90)
    np.testing.assert_array_equal(back.affine, original.affine)
    assert back.header.get_zooms() == original.header.get_zooms()
    assert [int(back.header[name]) for name in ("sform_code", "qform_code")] == [2, 0]


@pytest.mark.parametrize(("kind", "rescale", "expected"), [
    ("uint8", (1, 0), "uint8"),
    ("int16", (1, -1024), "int32"),
    ("uint8", (2, -100), "int16"),
    ("uint16", (0.5, 0), "float32"),
    ("float64", (1, 0), "float64"),
    ("float32", (2, 1), "float32"),
    (">i2", (1, 0), "int16"),
])  # fmt: skip
def test_values_are_nibabels_in_the_smallest_type(
    kind: str, rescale: tuple[float, float], expected: str, tmp_path: Path
) -> None:
    array = grid(kind)
    path = save(tmp_path / "a.nii", array, rescale=rescale)
    if kind[0] == ">":
        header = nib.Nifti1Header(endianness=">")
        header.set_data_dtype(kind)
        nib.save(nib.Nifti1Image(array, affine("RAS"), header), path)
    with open_image(path) as picture:
        assert picture.dtype == expected
        truth = shown(nib.load(path).get_fdata(), "RAS", "z")
        np.testing.assert_allclose(frames(picture), truth, rtol=1e-6)
        assert picture.span[0] <= truth.min() <= truth.max() <= picture.span[1] or picture.dtype.kind == "f"


def test_real_volumes_of_nibabel_are_read() -> None:
    folder = Path(nib.__file__).parent / "tests" / "data"
    for name in ("anatomical.nii", "standard.nii.gz", "example_nifti2.nii.gz"):
        image = nib.load(folder / name)
        with open_image(folder / name, Selection(channels=(1,)) if image.ndim == 4 else Selection()) as picture:
            values = np.asarray(image.dataobj)
            values = values[..., 1] if image.ndim == 4 else values
            truth = shown(values, "".join(nib.aff2axcodes(image.affine)), "z")
            np.testing.assert_allclose(frames(picture), truth, rtol=1e-6)


def test_a_volume_is_known_by_its_content(tmp_path: Path) -> None:
    array = grid()
    plain, packed = save(tmp_path / "a.nii", array), save(tmp_path / "a.nii.gz", array)
    for name, content in (("b.dat", plain.read_bytes()), ("c", packed.read_bytes()), ("d.nii", packed.read_bytes())):
        (tmp_path / name).write_bytes(content)
        with open_image(tmp_path / name) as picture:
            np.testing.assert_array_equal(frames(picture), shown(array, "RAS", "z"))
    pair = nib.Nifti1Pair(array, affine("RAS"))
    nib.save(pair, tmp_path / "p.hdr")
    with open_image(tmp_path / "p.hdr") as picture:
        np.testing.assert_array_equal(frames(picture), shown(array, "RAS", "z"))
        assert isinstance(picture, volume.Volume)
        (tmp_path / "q.nii.gz").write_bytes(picture.encode(frames(picture)))
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "q.nii.gz").dataobj), array)
    (tmp_path / "p.img").unlink()
    with pytest.raises(ValueError, match=r"its voxels are missing: p\.img must be beside it"):
        open_image(tmp_path / "p.hdr")


def test_a_volume_without_a_size_or_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "limit", lambda: 1 << 30)
    image = nib.Nifti1Image(grid(), affine("RAS"))
    data = bytearray(image.to_bytes())
    data[296:312] = bytes(16)  # srow_y
    (tmp_path / "a.nii").write_bytes(data)
    with pytest.raises(ValueError, match="no size in some direction"):
        open_image(tmp_path / "a.nii")
    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header["dim"][:4] = 3, 2000, 2000, 2000
    header["vox_offset"], header["pixdim"][1:4] = 352, 1
    header["magic"] = b"n+1"
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(header.binaryblock + bytes(4)))
    with pytest.raises(
        ValueError,
        match=r"2000x2000x2000 voxels, unless .* uncompressed \.nii.* would take 8\.0 GB of memory, more than the 1\.1 GB",
    ):
        open_image(tmp_path / "b.nii.gz")


def test_analyze_is_read_and_becomes_nifti(tmp_path: Path) -> None:
    array = grid()
    nib.save(nib.AnalyzeImage(array, np.diag([-2, 2, 3, 1])), tmp_path / "a.hdr")
    original = nib.load(tmp_path / "a.hdr")
    with open_image(tmp_path / "a.hdr") as picture:
        np.testing.assert_array_equal(frames(picture), shown(array, "LAS", "z"))
        assert isinstance(picture, volume.Volume)
        (tmp_path / "b.nii.gz").write_bytes(picture.encode(frames(picture)))
    back = nib.load(tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(np.asarray(back.dataobj), array)
    np.testing.assert_allclose(back.affine, original.affine)


@pytest.mark.parametrize("name", ["a.nii.gz", "a.dat", "p.hdr", "p.hdr.gz"])
def test_a_damaged_gzip_file_is_refused_wherever_a_bit_is_wrong(name: str, tmp_path: Path) -> None:
    path = _packed(tmp_path / name, RNG.integers(0, 1 << 15, SHAPE).astype(np.int16))
    damaged = path if name[0] == "a" else tmp_path / "p.img.gz"
    whole, refused = damaged.read_bytes(), 0
    for at in range(2, len(whole)):
        data = bytearray(whole)
        data[at] ^= 4
        try:
            gzip.decompress(data)
        except (zlib.error, OSError, EOFError):
            damaged.write_bytes(data)
            with pytest.raises(ValueError, match=r"\w") as error, open_image(path) as picture:
                frames(picture)
            refused += str(error.value).startswith("damaged gzip file: ")
    assert refused > 0.9 * len(whole)
    for end in range(1, 9):
        damaged.write_bytes(whole[:-end])
        with pytest.raises(ValueError, match=r"^damaged gzip file: "), open_image(path) as picture:
            frames(picture)


def test_a_damaged_header_of_a_pair_is_refused(tmp_path: Path) -> None:
    path = _packed(tmp_path / "p.hdr.gz", grid())
    data = bytearray(path.read_bytes())
    data[-8] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"^damaged gzip file: CRC"), open_image(path) as picture:
        frames(picture)


@pytest.mark.parametrize("form", ["members", "zeros", "tail"])
def test_other_forms_of_gzip_are_read_as_the_gzip_program_does(form: str, tmp_path: Path) -> None:
    array = grid()
    data = nib.Nifti1Image(array, affine("RAS")).to_bytes()
    packed = gzip.compress(data) + {"members": b"", "zeros": bytes(512), "tail": b"not gzip"}[form]
    if form == "members":
        packed = gzip.compress(data[:500]) + gzip.compress(data[500:]) + gzip.compress(bytes(1 << 21))
    (tmp_path / "a.nii.gz").write_bytes(packed)
    with open_image(tmp_path / "a.nii.gz") as picture:
        np.testing.assert_array_equal(frames(picture), shown(array, "RAS", "z"))


def _packed(path: Path, array: np.ndarray) -> Path:
    """Write a NIfTI file or, by its name, a pair, of which all that can be is packed by gzip."""
    if path.name[0] == "a":
        path.write_bytes(gzip.compress(nib.Nifti1Image(array, affine("RAS")).to_bytes()))
        return path
    nib.save(nib.Nifti1Pair(array, affine("RAS")), path.parent / "p.hdr")
    for name in ("p.img", "p.hdr") if path.suffix == ".gz" else ("p.img",):
        (path.parent / f"{name}.gz").write_bytes(gzip.compress((path.parent / name).read_bytes()))
        (path.parent / name).unlink()
    return path


def test_several_volumes_in_colour_are_refused(tmp_path: Path) -> None:
    kind = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 2, 3), kind), np.eye(4)), tmp_path / "a.nii")
    for view in (Selection(), Selection(channels=(0,))):
        with pytest.raises(ValueError, match=r"save its parts as files of their own"):
            open_image(tmp_path / "a.nii", view)


@pytest.mark.parametrize("coded", [(1, 2), (1, 0), (0, 4), (0, 0)])
@pytest.mark.parametrize("axis", "zyx")
def test_each_nth_slice_lies_where_it_lay_by_qform_and_by_sform(
    axis: str, coded: tuple[int, int], tmp_path: Path
) -> None:
    array, codes = grid(), "LAS"
    image = nib.Nifti1Image(array, affine(codes))
    forms = {"qform": affine(codes, angle=0.3), "sform": affine(codes, (1, 2.5, 3))}
    for (name, form), code in zip(forms.items(), coded, strict=True):
        getattr(image, f"set_{name}")(form, code)
    nib.save(image, tmp_path / "a.nii")
    with open_image(tmp_path / "a.nii", Selection(axis=axis, every=2)) as picture:
        (tmp_path / "b.nii.gz").write_bytes(picture.encode(frames(picture)))
    back, original = nib.load(tmp_path / "b.nii.gz"), nib.load(tmp_path / "a.nii")
    index = tuple(slice(int(start), None, 2 if size < whole else 1) for start, size, whole in zip(
        np.rint(np.linalg.inv(original.affine) @ back.affine[:, 3])[:3], back.shape, SHAPE, strict=True))  # fmt: skip
    np.testing.assert_array_equal(np.asarray(back.dataobj), array[index])
    cut = original.slicer[index]
    np.testing.assert_allclose(back.affine, cut.affine, atol=1e-4)
    for (name, form), code in zip(forms.items(), coded, strict=True):
        held, held_code = getattr(back.header, f"get_{name}")(coded=True)
        if any(coded):
            assert held_code == code
        if code:
            step = np.linalg.inv(original.affine) @ cut.affine
            np.testing.assert_allclose(held, form @ step, atol=1e-4)
