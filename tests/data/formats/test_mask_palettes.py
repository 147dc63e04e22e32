"""Masks with a palette, which count by its indices; and BMP, of which Pillow mistakes the depth."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from medsass.data.formats.image import Selection
from medsass.data.formats.opening import open_image
from tests.data.formats.test_mask import read_mask


@pytest.mark.parametrize("colours", [[0, 0, 0, 128, 0, 0, 0, 128, 0], [255, 255, 255, 128, 0, 0, 0, 0, 0]])
@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_palette_counts_by_its_indices(suffix: str, colours: list[int], tmp_path: Path) -> None:
    truth = np.random.default_rng(1).integers(0, 3, (9, 7), np.uint8)
    image = Image.fromarray(truth, "P")
    image.putpalette(colours)
    image.save(tmp_path / f"m.{suffix}")
    np.testing.assert_array_equal(read_mask([tmp_path / f"m.{suffix}"], (1,)), truth == 1)
    np.testing.assert_array_equal(read_mask([tmp_path / f"m.{suffix}"], "nonzero"), truth > 0)
    named = "#" + bytes(colours[6:9]).hex()
    np.testing.assert_array_equal(read_mask([tmp_path / f"m.{suffix}"], (named,)), truth == 2)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_a_palette_of_white_and_black_counts_by_its_indices_too(suffix: str, tmp_path: Path) -> None:
    """What is drawn in black on white is 1; Pillow's quantize, which puts white first, asks for --foreground 0."""
    truth = np.random.default_rng(1).integers(0, 2, (9, 7), np.uint8)
    image = Image.fromarray(truth, "P")
    image.putpalette([255, 255, 255, 0, 0, 0])
    image.save(tmp_path / f"m.{suffix}")
    np.testing.assert_array_equal(read_mask([tmp_path / f"m.{suffix}"], "binary"), truth)
    np.testing.assert_array_equal(read_mask([tmp_path / f"m.{suffix}"], (0,)), 1 - truth)


def test_gif_counts_by_its_gray_where_its_palette_is_gray(tmp_path: Path) -> None:
    truth = np.random.default_rng(1).integers(0, 2, (9, 7), np.uint8) * np.uint8(255)
    Image.fromarray(truth).save(tmp_path / "m.gif")
    np.testing.assert_array_equal(read_mask([tmp_path / "m.gif"], (255,)), truth == 255)


@pytest.mark.parametrize("colours", [[0, 0, 0, 255, 255, 255], [0, 0, 0, 255, 0, 0]])
def test_frames_of_a_gif_behind_the_first_have_levels_and_no_indices(colours: list[int], tmp_path: Path) -> None:
    truth = np.random.default_rng(1).integers(0, 2, (2, 9, 7), np.uint8)
    first, second = (Image.fromarray(frame, "P") for frame in truth)
    for image in (first, second):
        image.putpalette(colours)
    first.save(tmp_path / "m.gif", save_all=True, append_images=[second])
    with open_image(tmp_path / "m.gif", Selection(frames="all", mask=True, raw=True)) as picture:
        if colours[-1]:
            np.testing.assert_array_equal([picture.read(frame) for frame in range(2)], truth * 255)
        else:
            np.testing.assert_array_equal(picture.read(), truth[0])
            with pytest.raises(
                ValueError, match=r"indices are known of the first frame alone, .* 1; save each as PNG$"
            ):
                picture.read(1)


@pytest.mark.parametrize("count", [2, 16, 256])
def test_gray_bmp_of_few_colours_is_opencvs(count: int, tmp_path: Path) -> None:
    """Pillow reads its indices of 8 bits as one bit each where there are two, black and white."""
    pixels = np.random.default_rng(3).integers(0, min(count, 3), (9, 8), np.uint8)
    image = Image.fromarray(pixels, "P")
    image.putpalette([0, 0, 0, 255, 255, 255] if count == 2 else [value for value in range(count) for _ in range(3)])
    image.save(tmp_path / "a.bmp")
    with open_image(tmp_path / "a.bmp") as picture:
        np.testing.assert_array_equal(picture.read(), cv2.imread(str(tmp_path / "a.bmp"), cv2.IMREAD_GRAYSCALE))
    np.testing.assert_array_equal(read_mask([tmp_path / "a.bmp"], "nonzero"), pixels > 0)
