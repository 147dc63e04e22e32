"""Slices of volumes: which are read, with what range, and where they lie."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given
from hypothesis import strategies as st

from medsass.data.formats import depth
from medsass.data.formats.image import Selection
from medsass.data.formats.opening import open_image
from medsass.data.formats.volumes import volume
from tests.data.formats.volumes.files import CODES, RNG, SHAPE, affine, frames, grid, save, save_itk, shown
from tests.support.effort import examples


@given(st.sampled_from(CODES), st.sampled_from("zyx"), st.integers(1, 4))
@examples(40)
def test_each_nth_slice_lies_where_it_lay(codes: str, axis: str, every: int) -> None:
    array = grid()
    cut = volume.Cut.of(affine(codes), SHAPE, axis)
    slices = cut.slices(array)
    taken = cut.grid(slices[::every])
    np.testing.assert_array_equal(array[cut.taken(len(slices), every)], taken)


def test_each_nth_slice_is_written_with_its_place(tmp_path: Path) -> None:
    array = grid()
    for path in (save(tmp_path / "a.nii", array, "LPI"), save_itk(tmp_path / "a.mha", array.T, "LPI")):
        with open_image(path, Selection(every=2)) as picture:
            assert (picture.frames, picture.total, picture.converted) == (3, 5, "3 of 5 frames")
            assert isinstance(picture, volume.Volume)
            written = tmp_path / f"b{picture.suffix}"
            written.write_bytes(picture.encode(frames(picture)))
        back, original = sitk.ReadImage(str(written)), sitk.ReadImage(str(path))[:, :, ::2]
        np.testing.assert_array_equal(sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(original))
        for name in ("GetSpacing", "GetOrigin", "GetDirection"):
            np.testing.assert_allclose(getattr(back, name)(), getattr(original, name)(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("frames", "expected"), [("first", 0), ("middle", 2), (3, 3)])
def test_one_slice_can_be_chosen(frames: str | int, expected: int, tmp_path: Path) -> None:
    array = grid()
    with open_image(save(tmp_path / "a.nii", array), Selection(frames=frames)) as picture:
        assert (picture.frames, picture.total) == (1, 5)
        np.testing.assert_array_equal(picture.read(), shown(array, "RAS", "z")[expected])


@pytest.mark.parametrize("rule", ["minmax", "percentile"])
@pytest.mark.parametrize("kind", ["int16", "float32"])
def test_one_range_for_all_slices_whichever_are_read(kind: str, rule: str, tmp_path: Path) -> None:
    array = (RNG.normal(size=SHAPE) * 300).astype(kind)
    array[:, :, 3] *= 4
    expected = (array.min(), array.max()) if rule == "minmax" else np.percentile(array.astype(float), [0.5, 99.5])
    path = save(tmp_path / "a.nii", array)
    for view in (Selection(), Selection(axis="x"), Selection(frames=1), Selection(every=3)):
        with open_image(path, view) as picture:
            for frame in range(picture.frames):
                np.testing.assert_allclose(depth.limits(picture, frame, rule), [expected], rtol=1e-12)


def test_nan_around_the_picture_is_black_and_infinity_is_refused(tmp_path: Path) -> None:
    array = grid("float32")
    array[:3] = np.nan
    with open_image(save(tmp_path / "a.nii", array)) as picture:
        limits = depth.limits(picture, 0, "minmax")
        assert limits == [(np.nanmin(array), np.nanmax(array))]
        got = depth.scaled(picture.read(), limits, 8, picture.padding)
        assert not got[np.isnan(picture.read())].any()
    array[5, 5, 2] = np.inf
    with open_image(save(tmp_path / "b.nii", array)) as picture, pytest.raises(ValueError, match="not finite"):
        depth.limits(picture, 0, "minmax")


@pytest.mark.parametrize("suffix", [".nii", ".nrrd", ".mha"])
def test_time_points_are_chosen_or_refused(suffix: str, tmp_path: Path) -> None:
    array = grid(shape=(*SHAPE, 3))
    if suffix == ".nii":
        path = save(tmp_path / "a.nii", array)
    else:
        path = save_itk(tmp_path / f"a{suffix}", array.T)
        flip = slice(None, None, -1)
        array = array[flip, flip]  # without a direction the axes are those of LPS
    truth = np.stack([shown(array[..., time], "RAS", "z") for time in range(3)])
    with pytest.raises(ValueError, match=r"3 volumes in one file: --channels I \(0 to 2\) reads one, --frames all"):
        open_image(path)
    with open_image(path, Selection(channels=(2,))) as picture:
        np.testing.assert_array_equal(frames(picture), truth[2])
    with open_image(path, Selection(channels=(2, -1, 0))) as picture:
        assert (picture.colour, picture.per_channel) == (True, True)
        np.testing.assert_array_equal(picture.read(1)[..., 0], truth[2, 1])
        np.testing.assert_array_equal(picture.read(1)[..., 2], truth[0, 1])
    with open_image(path, Selection(frames="all")) as picture:
        np.testing.assert_array_equal(frames(picture), truth.reshape(-1, *truth.shape[2:]))
        assert depth.limits(picture, 0, "minmax") == [(array.min(), array.max())]
        assert isinstance(picture, volume.Volume)
        written = tmp_path / f"b{picture.suffix}"
        written.write_bytes(picture.encode(frames(picture)))
    back, original = sitk.ReadImage(str(written)), sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(original))
    assert back.GetSize() == original.GetSize()
    with pytest.raises(ValueError, match=r"--every takes slices of one volume, and the file holds 3; add --channels I"):
        open_image(path, Selection(frames="all", every=2))


def test_a_volume_that_is_one_slice_is_that_slice(tmp_path: Path) -> None:
    array = grid(shape=(6, 1, 8))
    for axis in "zyx":
        with open_image(save(tmp_path / "a.nii", array), Selection(axis=axis)) as picture:
            np.testing.assert_array_equal(frames(picture), shown(array, "RAS", "y"))
    flat = grid(shape=(6, 8))
    with open_image(save_itk(tmp_path / "a.mha", flat)) as picture:
        np.testing.assert_array_equal(frames(picture)[0], flat)
        assert isinstance(picture, volume.Volume)
        (tmp_path / "b.mha").write_bytes(picture.encode(frames(picture)))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "b.mha"))), flat)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha"])
def test_a_damaged_volume_is_a_value_error(name: str, tmp_path: Path) -> None:
    path = save(tmp_path / name, grid()) if ".nii" in name else save_itk(tmp_path / name, grid())
    data = path.read_bytes()
    for end in (len(data) - 30, len(data) // 2):
        path.write_bytes(data[:end])
        with pytest.raises(ValueError, match=r"\w+"), open_image(path) as picture:
            frames(picture)
