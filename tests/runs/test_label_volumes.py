"""`medsass label` on volumes, stacks and padding, against OpenCV slice by slice."""

import csv
from pathlib import Path

import cv2
import nibabel as nib
import numpy as np
import pydicom
import pytest
import tifffile
from PIL import Image

from medsass.config import LabelConfig
from medsass.data.formats.depth import scaled
from medsass.runs.label import label
from tests.data.formats.dicom.dicoms import dataset, saved
from tests.data.formats.dicom.test_series import save_series
from tests.data.formats.volumes.files import save, shown

RNG = np.random.default_rng(0)


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def otsu(levels: np.ndarray) -> tuple[float, np.ndarray]:
    level, mask = cv2.threshold(np.ascontiguousarray(levels), 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return level, np.asarray(mask)


@pytest.mark.parametrize("window", [None, "-100,900"])
def test_each_slice_has_its_threshold_and_the_mask_lies_upon_the_volume(window: str | None, tmp_path: Path) -> None:
    array = (RNG.normal(size=(30, 24, 4)) * 300 + RNG.integers(0, 2, (30, 24, 4)) * 900).astype(np.int16)
    (tmp_path / "in").mkdir()
    path = save(tmp_path / "in" / "a.nii.gz", array, "LAS")
    assert label(LabelConfig(tmp_path / "in", tmp_path / "out", polarity="bright", window=window, device="cpu")) == []
    mask, original = nib.load(tmp_path / "out" / "a.nii.gz"), nib.load(path)
    np.testing.assert_array_equal(mask.affine, original.affine)
    got, found = shown(np.asarray(mask.dataobj), "LAS", "z"), rows(tmp_path / "out")
    limits = (-100, 900) if window else (array.min(), array.max())
    levels = scaled(shown(array, "LAS", "z"), [limits], 8)
    for frame, image in enumerate(levels):
        level, truth = otsu(image)
        np.testing.assert_array_equal(got[frame], truth)
        assert (found[frame]["mask"], found[frame]["source"], found[frame]["frame"]) == ("a.nii.gz",) * 2 + (
            str(frame),
        )
        assert float(found[frame]["threshold"]) == level


def test_a_stack_becomes_a_stack(tmp_path: Path) -> None:
    stack = RNG.integers(0, 256, (5, 40, 32), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack")
    label(LabelConfig(tmp_path, tmp_path / "out", polarity="bright", every=2, device="cpu"))
    got = tifffile.imread(tmp_path / "out" / "a.tif")
    np.testing.assert_array_equal(got, np.stack([otsu(page)[1] * 255 for page in stack[::2]]))
    assert [row["frame"] for row in rows(tmp_path / "out")] == ["0", "2", "4"]


@pytest.mark.parametrize("value", [-2000, 3000])
def test_padding_is_no_class(value: int, tmp_path: Path) -> None:
    y, x = np.mgrid[:128, :128]
    field, disc = np.hypot(y - 64, x - 64) <= 60, np.hypot(y - 50, x - 70) < 12
    made = dataset(np.where(~field, value, np.where(disc, 300, 40)).astype(np.int16))
    made.add_new(0x00280120, "SS", value)
    (tmp_path / "a.dcm").write_bytes(saved(made))
    label(LabelConfig(tmp_path, tmp_path / "out", device="cpu"))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / "a.png")) > 0, disc)


def test_a_dicom_series_is_one_volume(tmp_path: Path) -> None:
    array = save_series(tmp_path / "in" / "P1")
    label(LabelConfig(tmp_path / "in", tmp_path / "out", polarity="bright", device="cpu"))
    mask = nib.load(tmp_path / "out" / "P1.nii.gz")
    levels = scaled(array, [(array.min(), array.max())], 8)
    np.testing.assert_array_equal(np.asarray(mask.dataobj).T, np.stack([otsu(image)[1] for image in levels]))
    assert [row["source"] for row in rows(tmp_path / "out")] == ["P1"] * 6


def test_options_for_files_are_refused_for_shards(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--window are for files, and these are shards"):
        label(LabelConfig(shards, tmp_path / "out", axis="y", device="cpu"))


def test_the_mask_of_a_slide_is_a_png(tmp_path: Path) -> None:
    image = RNG.integers(0, 256, (64, 64, 3), np.uint8)
    tifffile.imwrite(tmp_path / "a.svs", image, tile=(32, 32), compression="zlib", photometric="rgb")
    label(LabelConfig(tmp_path, tmp_path / "out", polarity="bright", device="cpu"))
    mask = np.asarray(Image.open(tmp_path / "out" / "a.png"))
    np.testing.assert_array_equal(mask > 0, otsu(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[1])


def test_series_that_would_have_one_name_keep_their_masks_apart(tmp_path: Path) -> None:
    """Merged studies have series of one number; a localizer has another plane."""
    for place, (uid, plane) in enumerate((("1.2.9", "axial"), ("1.2.9", "coronal"), ("1.2.8", "axial"))):
        save_series(tmp_path / str(place), plane, slices=3, SeriesNumber=4)
        for path in (tmp_path / str(place)).iterdir():
            made = pydicom.dcmread(path)
            made.SeriesInstanceUID = uid
            (tmp_path / "in").mkdir(exist_ok=True)
            made.save_as(tmp_path / "in" / f"{place}{path.name}")
    assert label(LabelConfig(tmp_path / "in", tmp_path / "out", device="cpu")) == []
    assert sorted(path.name for path in (tmp_path / "out").glob("*.gz")) == [
        "in-4-2.nii.gz",
        "in-4-3.nii.gz",
        "in-4.nii.gz",
    ]


def test_slices_three_pixels_wide_are_labelled(tmp_path: Path) -> None:
    volume = np.zeros((3, 40, 5), np.int16)
    volume[1:, 10:20, 1:] = 500
    (tmp_path / "in").mkdir()
    nib.save(nib.Nifti1Image(volume, np.eye(4)), tmp_path / "in/a.nii.gz")
    assert label(LabelConfig(tmp_path / "in", tmp_path / "out", device="cpu", polarity="bright")) == []
    mask = np.asarray(nib.load(tmp_path / "out/a.nii.gz").dataobj)
    np.testing.assert_array_equal(mask[..., 1:], volume[..., 1:] > 0)
