"""Masks that lie elsewhere than their image by the headers of both, and segmentations that are no one volume."""

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from medsass.config import ShardConfig
from medsass.data.formats.dicom import place
from medsass.data.formats.dicom.image import Dicom
from medsass.data.formats.image import WHOLE_FILE, Selection
from medsass.data.formats.opening import open_image
from medsass.data.sharding import shard
from tests.data.formats.dicom.dicoms import RNG, dataset, saved
from tests.data.formats.dicom.test_series import enhanced
from tests.data.sharding.test_shard_volumes import decoded, samples

AXIAL, SPACING = [1, 0, 0, 0, 1, 0], [0.5, 0.75]


def placed(array: np.ndarray, position: list[float], orientation: list[float] = AXIAL, **elements: object) -> bytes:
    made = dataset(array, ImagePositionPatient=position, ImageOrientationPatient=orientation, **elements)
    made.PixelSpacing = SPACING
    return saved(made)


def segment(array: np.ndarray, position: list[float]) -> bytes:
    """A segmentation (1, h, w) that says in its functional groups where it lies."""
    made, group = dataset(array[None], frames=1), Dataset()
    for sequence, name, value in (("PlanePosition", "ImagePositionPatient", position),
                                  ("PlaneOrientation", "ImageOrientationPatient", AXIAL),
                                  ("PixelMeasures", "PixelSpacing", SPACING)):  # fmt: skip
        item = Dataset()
        setattr(item, name, value)
        setattr(group, f"{sequence}Sequence", [item])
    made.SharedFunctionalGroupsSequence = [group]
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.66.4"
    return saved(made)


def test_a_gap_is_the_farthest_corners() -> None:
    """By the formula of PS3.3, C.7.6.2.1.1, for 24 rows 0.5 mm apart and 40 columns 0.75 mm apart."""
    pixels = RNG.integers(0, 9, (24, 40), np.uint8)
    image = Dicom(placed(pixels, [1, 2, 3]), WHOLE_FILE)

    def to(data: bytes) -> float:
        return place.gap(image, Dicom(data, Selection(raw=True)))

    assert to(placed(pixels, [1, 2, 3.2])) == 0
    assert to(placed(pixels, [1, 2, 8])) == 5
    assert to(placed(pixels, [1, 2, 3], [-1, 0, 0, 0, -1, 0])) == pytest.approx(2 * 0.75 * 39)
    assert to(segment(pixels, [1, 2, 3])) == 0
    assert to(segment(pixels, [1, 5, 7])) == 5
    assert to(saved(dataset(pixels))) == 0  # says nothing


def test_a_mask_of_another_slice_is_left_out_and_its_own_is_taken(tmp_path: Path) -> None:
    for name in ("images", "masks"):
        (tmp_path / "source" / name).mkdir(parents=True)
    for number in range(4):
        pixels = RNG.integers(0, 2, (24, 40), np.uint8)
        image, other = placed(pixels * 200, [0, 0, 2.0 * number]), 2.0 * (3 - number if number else 0)
        (tmp_path / "source" / "images" / f"{number}.dcm").write_bytes(image)
        (tmp_path / "source" / "masks" / f"{number}.dcm").write_bytes(segment(pixels, [0, 0, other]))
    manifest = shard.write(ShardConfig(tmp_path / "source", tmp_path / "out", group_by="image"))
    (kept,) = samples(tmp_path / "out").values()
    assert manifest.rejected == 3
    assert "by its header it lies" in (tmp_path / "out" / "rejected.jsonl").read_text()
    np.testing.assert_array_equal(decoded(kept["png"]) > 100, decoded(kept["mask.png"]) > 0)


def test_frames_of_several_segments_in_one_place_are_no_stack() -> None:
    made = enhanced(RNG.integers(0, 2, (4, 12, 16)).astype(np.int16), "axial", [0, 0, 1, 1])
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.66.4"
    with pytest.raises(ValueError, match="as those of several segments; save each segment as a volume"):
        open_image(Path("mask"), Selection(raw=True), saved(made))


def test_masks_of_other_patients_are_told(tmp_path: Path) -> None:
    for name in ("images", "masks"):
        (tmp_path / "source" / name).mkdir(parents=True)
    pixels, mask = RNG.integers(0, 255, (4, 24, 40), np.uint8), np.eye(24, 40, dtype=np.uint8)
    for i, (own, other) in enumerate([("ann", "ann"), ("bob", "ann"), ("cem", ""), ("", "ann")]):
        (tmp_path / f"source/images/{i}.dcm").write_bytes(saved(dataset(pixels[i], PatientID=own)))
        (tmp_path / f"source/masks/{i}.dcm").write_bytes(saved(dataset(mask, PatientID=other)))
    manifest = shard.write(ShardConfig(tmp_path / "source", tmp_path / "out"))
    (note,) = [note for note in manifest.notes if "another PatientID" in note]
    assert note == "WARNING: 1 masks name another PatientID than their images, such as that of 1: check the pairs"
