"""The orientation tag against Pillow's `exif_transpose`."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from medsass.data.formats import orientation
from medsass.data.formats.geometry import Box

ARRAY = np.arange(6 * 9, dtype=np.uint8).reshape(6, 9)


def turned(value: int) -> np.ndarray:
    image = Image.fromarray(ARRAY)
    image.getexif()[orientation.TAG] = value
    return np.asarray(ImageOps.exif_transpose(image))


@pytest.mark.parametrize("value", range(1, 9))
def test_pixels_stand_upright(value: int) -> None:
    np.testing.assert_array_equal(orientation.upright(ARRAY, value), turned(value))
    assert orientation.swaps(value) == (turned(value).shape != ARRAY.shape)
    assert orientation.upright(np.dstack([ARRAY] * 3), value).shape == (*turned(value).shape, 3)


@pytest.mark.parametrize("value", range(1, 9))
def test_a_box_of_the_upright_image_is_found_in_the_file(value: int) -> None:
    height, width = turned(value).shape
    for box in (Box(0, 0, height, width), Box(1, 2, 3, 2), Box(height - 1, width - 2, 1, 2)):
        lying = orientation.lying(box, value, *ARRAY.shape)
        np.testing.assert_array_equal(orientation.upright(ARRAY[lying.slices], value), turned(value)[box.slices])


@pytest.mark.parametrize(("value", "meaning"), [(6, 6), (1, 1), (0, 1), (9, 1), (None, 1), ("6", 1), ((6,), 1)])
def test_unknown_values_mean_upright(value: object, meaning: int) -> None:
    assert orientation.known(value) == meaning
