"""Generated nuclei: reproducible, with masks that fit them."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from medsass.data import synthetic


def pair(folder: Path, index: int) -> tuple[np.ndarray, np.ndarray]:
    name = f"nuclei_{index:04d}.png"
    images = (cv2.imread(str(folder / kind / name), cv2.IMREAD_UNCHANGED) for kind in ("images", "masks"))
    image, mask = (np.asarray(image) for image in images)
    return image, mask


def test_same_arguments_give_the_same_pixels(tmp_path: Path) -> None:
    for name in ("a", "b"):
        synthetic.generate(tmp_path / name, 3, seed=5, size=48)
    for index in range(3):
        for left, right in zip(pair(tmp_path / "a", index), pair(tmp_path / "b", index), strict=True):
            np.testing.assert_array_equal(left, right)


def test_images_do_not_depend_on_their_number(tmp_path: Path) -> None:
    synthetic.generate(tmp_path / "two", 2, seed=5, size=48)
    synthetic.generate(tmp_path / "five", 5, seed=5, size=48)
    assert (
        len(list((tmp_path / "five" / "images").iterdir())) == len(list((tmp_path / "five" / "masks").iterdir())) == 5
    )
    for index in range(2):
        for left, right in zip(pair(tmp_path / "two", index), pair(tmp_path / "five", index), strict=True):
            np.testing.assert_array_equal(left, right)


def test_other_seed_and_other_index_give_other_images(tmp_path: Path) -> None:
    synthetic.generate(tmp_path / "a", 2, seed=5, size=48)
    synthetic.generate(tmp_path / "b", 1, seed=6, size=48)
    first, second, other = pair(tmp_path / "a", 0)[0], pair(tmp_path / "a", 1)[0], pair(tmp_path / "b", 0)[0]
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_files_are_8_bit_gray_of_the_size_with_masks_0_and_255(nuclei_folder: Path) -> None:
    for index in range(60):
        image, mask = pair(nuclei_folder, index)
        assert image.shape == mask.shape == (64, 64)
        assert image.dtype == mask.dtype == np.uint8
        assert set(np.unique(mask)) == {0, 255}


def test_foreground_is_brighter_than_background(nuclei_folder: Path) -> None:
    gaps = []
    for index in range(60):
        image, mask = pair(nuclei_folder, index)
        gaps.append(image[mask > 0].mean() - image[mask == 0].mean())
    assert np.mean(gaps) > 30
    assert np.mean(np.array(gaps) > 0) == 1


@pytest.mark.parametrize("size", [16, 33, 128])
def test_draw_gives_uint8_image_and_mask_of_0_and_1(size: int) -> None:
    image, mask = synthetic.draw(np.random.default_rng(0), size)
    assert image.shape == mask.shape == (size, size)
    assert image.dtype == mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, 1}
