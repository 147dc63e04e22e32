"""Thumbnails in TIFF files that no tag tells, and small pages that are none."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from medsass.data.formats.image import Selection
from medsass.data.formats.opening import open_image

SMOOTH = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8), (0, 0), 5)
MASK = np.zeros((70, 90), np.uint8)
MASK[10:40, 20:60] = 255


def write(path: Path, *pages: np.ndarray) -> Path:
    with tifffile.TiffWriter(path) as writer:
        for page in pages:
            writer.write(page, metadata=None, contiguous=False)
    return path


def shrunk(array: np.ndarray, scale: int) -> np.ndarray:
    return cv2.resize(array, (90 // scale, 70 // scale), interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize(
    "kind", [SMOOTH, SMOOTH[..., 0], SMOOTH[..., 0].astype(np.uint16) * 99, SMOOTH[..., 0].astype("f4"), MASK]
)
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("scale", [2, 5])
def test_a_page_that_is_another_made_small_is_no_image(
    scale: int, first: bool, kind: np.ndarray, tmp_path: Path
) -> None:
    pages = (shrunk(kind, scale), kind)
    path = write(tmp_path / "a.tif", *(pages if first else pages[::-1]))
    for mask in (False, True):
        with open_image(path, Selection(mask=mask, raw=mask)) as picture:
            np.testing.assert_array_equal(picture.read(), kind)
            assert "left out" not in picture.converted


@pytest.mark.parametrize("scale", [2, 5])
@pytest.mark.parametrize("kind", [SMOOTH, SMOOTH[..., 0]])
def test_a_small_page_of_another_picture_is_one(kind: np.ndarray, scale: int, tmp_path: Path) -> None:
    other = shrunk(np.ascontiguousarray(kind[::-1, ::-1]), scale)
    with open_image(write(tmp_path / "a.tif", other, kind)) as picture:
        np.testing.assert_array_equal(picture.read(), other)
        assert picture.converted == "other images in the file left out"


@pytest.mark.parametrize("order", [1, -1])
def test_masks_of_several_objects_are_no_thumbnails(order: int, tmp_path: Path) -> None:
    small = np.zeros((14, 18), np.uint8)
    small[:2, :3] = 255
    half = np.zeros((35, 45), np.uint8)  # as a level of a pyramid would be
    half[:10, :10] = 255
    for other in (small, half):
        with pytest.raises(ValueError, match="it holds several images, of which a mask is one; save each as a file"):
            open_image(write(tmp_path / "a.tif", *(other, MASK)[::order]), Selection(mask=True, raw=True))


@pytest.mark.parametrize("full", [MASK, MASK * 0])
def test_a_mask_with_levels_of_its_own_that_no_tag_tells_is_one(full: np.ndarray, tmp_path: Path) -> None:
    with open_image(write(tmp_path / "a.tif", full, shrunk(full, 2)), Selection(mask=True, raw=True)) as picture:
        np.testing.assert_array_equal(picture.read(), full)
