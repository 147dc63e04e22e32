"""NRRD and MetaImage of any orientation against SimpleITK."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from medsass.data.formats import folder
from medsass.data.formats.image import Selection
from medsass.data.formats.opening import open_image
from medsass.data.formats.volumes import volume
from tests.data.formats.volumes.files import CODES, SHAPE, affine, frames, grid, save_itk


@pytest.mark.parametrize("axis", "zyx")
@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr", ".mha", ".mhd"])
@pytest.mark.parametrize("codes", CODES[:3])
def test_nrrd_and_metaimage_are_shown_as_simpleitk_orients_them_and_come_back(
    codes: str, suffix: str, axis: str, tmp_path: Path
) -> None:
    path = save_itk(tmp_path / f"a{suffix}", grid(shape=SHAPE[::-1]), codes)
    original = sitk.ReadImage(str(path))
    lps = sitk.GetArrayFromImage(sitk.DICOMOrient(original, "LPS"))  # slices to the head, rows to the back
    expected = {"z": lps, "y": lps.transpose(1, 0, 2)[:, ::-1], "x": lps.transpose(2, 0, 1)[:, ::-1]}[axis]
    with open_image(path, Selection(axis=axis)) as picture:
        got = frames(picture)
        np.testing.assert_array_equal(got, expected)
        assert isinstance(picture, volume.Volume)
        assert picture.suffix == (".nrrd" if "n" in suffix else ".mha")
        written = tmp_path / f"b{picture.suffix}"
        written.write_bytes(picture.encode((got > 90).astype(np.uint8)))
    back = sitk.ReadImage(str(written))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(original) > 90)
    for name in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(back, name)(), getattr(original, name)(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("axis", "zyx")
@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
@pytest.mark.parametrize("times", [1, 3])
def test_masks_of_several_times_lie_where_simpleitk_says_their_volumes_lie(
    times: int, suffix: str, axis: str, tmp_path: Path
) -> None:
    array = grid("uint8", (times, *SHAPE[::-1]))
    original = sitk.GetImageFromArray(array, isVector=False)
    original.SetSpacing((0.5, 2.0, 3.25, 7.0))
    original.SetOrigin((-11.0, 5.0, 70.0, 2.0))
    original.SetDirection(np.diag([-1.0, 1.0, -1.0, 1.0]).ravel().tolist())
    sitk.WriteImage(original, str(tmp_path / f"a{suffix}"))
    for view, expected in (
        (Selection(axis=axis), array) if times == 1 else (Selection(axis=axis, frames="all"), array),
        (Selection(axis=axis, channels=(times - 1,)), array[-1:]),
    ):
        with open_image(tmp_path / f"a{suffix}", view) as picture:
            assert isinstance(picture, volume.Volume)
            (tmp_path / f"b{suffix}").write_bytes(picture.encode((frames(picture) > 90).astype(np.uint8)))
        back = sitk.ReadImage(str(tmp_path / f"b{suffix}"))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(back), expected > 90)
        for name in ("GetSpacing", "GetOrigin", "GetDirection"):
            np.testing.assert_allclose(getattr(back, name)(), getattr(original, name)(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_a_mask_of_a_plane_lies_where_the_plane_lies(suffix: str, tmp_path: Path) -> None:
    original = sitk.GetImageFromArray(grid("uint8", (9, 7)))
    original.SetSpacing((0.5, 2.0))
    original.SetOrigin((-11.0, 5.0))
    original.SetDirection((0.0, 1.0, 1.0, 0.0))
    sitk.WriteImage(original, str(tmp_path / f"a{suffix}"))
    with open_image(tmp_path / f"a{suffix}") as picture:
        assert isinstance(picture, volume.Volume)
        (tmp_path / f"b{suffix}").write_bytes(picture.encode((frames(picture) > 90).astype(np.uint8)))
    back = sitk.ReadImage(str(tmp_path / f"b{suffix}"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(original) > 90)
    for name in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(back, name)(), getattr(original, name)(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("suffix", [".mha", ".mhd"])
@pytest.mark.parametrize("first", [b"", b"Comment = of a scan\n", b"Comment: a\n\nName = b\n"])
def test_a_metaimage_of_much_metadata_is_read(first: bytes, suffix: str, tmp_path: Path) -> None:
    array = grid()
    nib.save(nib.Nifti1Image(array, affine("LPS")), tmp_path / "n.nii.gz")
    image, path = sitk.ReadImage(str(tmp_path / "n.nii.gz")), tmp_path / f"a{suffix}"
    for number in range(40):
        image.SetMetaData(f"field_{number}", "x" * 100)
    sitk.WriteImage(image, str(path), False)
    data = path.read_bytes()
    assert data.find(b"DimSize") > 4000
    path.write_bytes(first + data)
    assert path in folder.images(tmp_path)[0]
    with open_image(path) as picture:
        np.testing.assert_array_equal(frames(picture), sitk.GetArrayFromImage(sitk.ReadImage(str(path))))
        np.testing.assert_array_equal(frames(picture), array.T)


def test_vectors_are_channels(tmp_path: Path) -> None:
    array = grid("uint8", (*SHAPE[::-1], 3))
    for path in (save_itk(tmp_path / "a.nrrd", array, vector=True), save_itk(tmp_path / "a.mha", array, vector=True)):
        with open_image(path) as picture:
            assert (picture.colour, picture.dtype) == (True, "uint8")
            np.testing.assert_array_equal(frames(picture), array)
            assert isinstance(picture, volume.Volume)
            written = tmp_path / f"b{picture.suffix}"
            written.write_bytes(picture.encode(array[..., 1]))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(written))), array[..., 1])
        with open_image(path, Selection(channels=(1,))) as picture:
            np.testing.assert_array_equal(frames(picture), array[..., 1])
    rgb = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    rgb["G"] = grid("uint8")
    nib.save(nib.Nifti1Image(rgb, affine("LPS")), tmp_path / "a.nii")
    with open_image(tmp_path / "a.nii") as picture:
        np.testing.assert_array_equal(frames(picture)[..., 1], rgb["G"].transpose(2, 1, 0))
        assert not frames(picture)[..., ::2].any()
