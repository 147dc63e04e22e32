"""Predictions of volumes: slice by slice as of single images, in a file of the volume's own geometry."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from PIL import Image

from tests.data.formats.dicom.test_series import by_simpleitk, save_series
from tests.data.formats.volumes.files import save, save_itk, shown
from tests.support.predicted import files_in, noise, read, run_predict, save_image, save_run

pytestmark = pytest.mark.usefixtures("light_file")
SHAPE = (40, 36, 5)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on whole images. Read it, never change it."""
    return save_run(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="module")
def array() -> np.ndarray:
    """An int16 volume whose range -1000..1000 is reached."""
    values = np.stack([noise(*SHAPE[:2], seed)[..., 0] for seed in range(SHAPE[2])], axis=-1)
    values[0, 0, 0], values[0, 1, 0] = 0, 255
    return np.asarray(np.rint(values * (2000 / 255)) - 1000).astype(np.int16)


@pytest.mark.parametrize("axis", ["z", "x"])
def test_a_nifti_mask_lies_upon_its_volume(trained: Path, array: np.ndarray, axis: str, tmp_path: Path) -> None:
    path = save(tmp_path / "ct.nii", array, "LAS")
    for place, image in enumerate(shown(array, "LAS", axis)[:2]):
        levels = np.rint((image.astype(float) + 1000) * 255 / 2000).astype(np.uint8)
        Image.fromarray(levels).save(tmp_path / f"{place}.png")
    images = [path, tmp_path / "0.png", tmp_path / "1.png"]
    assert run_predict(trained, tmp_path / "out", *images, axis=axis, probability=True) == []
    assert {"ct.nii.gz", "ct_probability.nii.gz"} < files_in(tmp_path / "out")
    mask, chance, original = (
        nib.load(place) for place in (tmp_path / "out" / "ct.nii.gz", tmp_path / "out" / "ct_probability.nii.gz", path)
    )
    values = np.asarray(mask.dataobj)
    for image in (mask, chance):
        np.testing.assert_array_equal(image.affine, original.affine)
        assert (image.shape, image.header.get_zooms()) == (original.shape, original.header.get_zooms())
    assert (mask.get_data_dtype(), chance.get_data_dtype()) == (np.uint8, np.float32)
    assert set(np.unique(values)) == {0, 1}
    np.testing.assert_array_equal(values, np.asarray(chance.dataobj) > 0.5)
    for place in range(2):
        alone = read(tmp_path / "out" / f"{place}_probability.png") / 65535
        np.testing.assert_allclose(shown(np.asarray(chance.dataobj), "LAS", axis)[place], alone, atol=0.01)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_an_itk_mask_has_the_geometry_of_its_volume(
    trained: Path, array: np.ndarray, suffix: str, tmp_path: Path
) -> None:
    path = save_itk(tmp_path / f"a{suffix}", array.T.copy(), "PIR")
    assert run_predict(trained, tmp_path / "out", path, tile=32) == []
    mask, original = sitk.ReadImage(str(tmp_path / "out" / path.name)), sitk.ReadImage(str(path))
    assert mask.GetPixelID() == sitk.sitkUInt8
    for name in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(mask, name)(), getattr(original, name)(), rtol=1e-12, atol=1e-12)
    assert set(np.unique(sitk.GetArrayFromImage(mask))) == {0, 1}


def test_a_window_reads_the_volume_as_an_8_bit_one(trained: Path, array: np.ndarray, tmp_path: Path) -> None:
    flat = np.rint(np.clip((array.astype(float) + 160) * 255 / 400, 0, 255)).astype(np.uint8)
    images = save(tmp_path / "a.nii", array), save(tmp_path / "b.nii", flat)
    run_predict(trained, tmp_path / "out", images[0], window="-160,240", probability=True)
    run_predict(trained, tmp_path / "out", images[1], probability=True)
    a, b = (nib.load(tmp_path / "out" / f"{name}_probability.nii.gz") for name in "ab")
    np.testing.assert_array_equal(np.asarray(a.dataobj), np.asarray(b.dataobj))


def test_a_volume_is_read_as_the_shards_of_the_run_were_unless_options_differ(
    trained: Path, array: np.ndarray, tmp_path: Path
) -> None:
    path = save(tmp_path / "a.nii", array)
    given = {"axis": "x", "window": "-160,240"}
    run_predict(save_run(tmp_path / "run", **given, every=3, frames="middle"), tmp_path / "facts", path)
    run_predict(trained, tmp_path / "options", path, **given)
    one, other = (np.asarray(nib.load(tmp_path / out / "a.nii.gz").dataobj) for out in ("facts", "options"))
    assert one.shape == SHAPE
    np.testing.assert_array_equal(one, other)


def test_part_of_a_volume_is_written_as_that_part(trained: Path, array: np.ndarray, tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", array, "LPI")
    run_predict(trained, tmp_path / "whole", path)
    run_predict(trained, tmp_path / "part", path, every=2)
    run_predict(trained, tmp_path / "one", path, frames="middle")
    whole, part = (nib.load(tmp_path / out / "a.nii.gz") for out in ("whole", "part"))
    np.testing.assert_array_equal(np.asarray(part.dataobj), np.asarray(whole.dataobj)[..., ::2])
    np.testing.assert_allclose(part.affine, whole.slicer[..., ::2].affine)
    middle = shown(np.asarray(whole.dataobj), "LPI", "z")[2]
    np.testing.assert_array_equal(read(tmp_path / "one" / "a.png") > 0, middle > 0)


def test_volumes_with_one_mask_are_refused_before_anything_is_written(
    trained: Path, array: np.ndarray, tmp_path: Path
) -> None:
    images = save(tmp_path / "a.nii", array), save(tmp_path / "a.nii.gz", array)
    with pytest.raises(ValueError, match=r"would both write .*a\.nii\.gz; predict them into different folders"):
        run_predict(trained, tmp_path / "out", *images)
    assert not (tmp_path / "out").exists()


def test_a_dicom_series_gets_one_volume_on_its_own_place(trained: Path, tmp_path: Path) -> None:
    for patient, plane in (("P1", "axial"), ("P2", "sagittal")):
        save_series(tmp_path / "in" / patient, plane, slices=4)
    save_image(tmp_path / "in" / "P2" / "photo.png")
    assert run_predict(trained, tmp_path / "out", tmp_path / "in") == []
    assert files_in(tmp_path / "out") == {"P1.nii.gz", "P2.nii.gz", "P2/photo.png"}
    run_predict(trained, tmp_path / "alone", tmp_path / "in" / "P1")
    run_predict(trained, tmp_path / "files", *sorted((tmp_path / "in" / "P1").iterdir()))
    theirs = by_simpleitk(tmp_path / "in" / "P1")
    masks = [sitk.ReadImage(str(tmp_path / out / "P1.nii.gz")) for out in ("out", "alone", "files")]
    for mask in masks:
        np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), sitk.GetArrayFromImage(masks[0]))
        for name in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
            np.testing.assert_allclose(getattr(mask, name)(), getattr(theirs, name)(), rtol=1e-5, atol=1e-5)


def test_series_of_one_folder_are_told_apart_by_their_numbers(trained: Path, tmp_path: Path) -> None:
    for number, plane in ((2, "axial"), (5, "coronal")):
        save_series(tmp_path / str(number), plane, slices=2, SeriesNumber=number)
        for path in (tmp_path / str(number)).iterdir():
            path.rename(tmp_path / f"{number}-{path.name}")
        (tmp_path / str(number)).rmdir()
    run_predict(trained, tmp_path / "out", *sorted(tmp_path.glob("*.dcm")))
    assert files_in(tmp_path / "out") == {f"{tmp_path.name}-2.nii.gz", f"{tmp_path.name}-5.nii.gz"}
