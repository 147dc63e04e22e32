"""DICOM's padding, and one range for all frames."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medsass.data.formats import depth
from medsass.data.formats.image import Selection
from medsass.data.formats.opening import open_image
from tests.data.formats.dicoms import RNG, dataset, opened, saved


@pytest.mark.parametrize(("value", "elements"), [
    (-2000, {}),
    (63536, {"PixelPaddingRangeLimit": 63530}),  # -2000 written as unsigned
    (-2000, {"RescaleSlope": 1, "RescaleIntercept": -1024}),
    (-2000, {"RescaleSlope": 0.3, "RescaleIntercept": 7}),
    (-2000, {"PhotometricInterpretation": "MONOCHROME1"}),
])  # fmt: skip
def test_padding_is_known_in_the_values_that_are_read(value: int, elements: dict[str, Any]) -> None:
    array = RNG.integers(-900, 900, (24, 40)).astype(np.int16)
    array[:8], array[9, :3] = -2000, -2006
    out = (array == -2000) | ((array == -2006) & ("PixelPaddingRangeLimit" in elements))
    limit = elements.pop("PixelPaddingRangeLimit", None)
    with opened(array, **elements) as bare:
        assert bare.padding is None
    made, kind = dataset(array, **elements), "SS" if value < 0 else "US"
    made.add_new(0x00280120, kind, value)
    if limit:
        made.add_new(0x00280121, kind, limit)
    with open_image(Path("image"), data=saved(made)) as picture:
        assert picture.padding
        np.testing.assert_array_equal(depth.outside(picture.read(), picture.padding), out)
        inside = picture.read()[~out]
        limits = depth.limits(picture, 0, "minmax")
        assert limits == [(inside.min(), inside.max())]
        assert not depth.scaled(picture.read(), limits, 8, picture.padding)[out].any()


def test_frames_of_a_file_have_one_range() -> None:
    stack = np.stack([np.full((24, 40), level, np.uint16) for level in (100, 700, 300)])
    with opened(stack, Selection(frames="all"), frames=3) as picture:
        assert [depth.limits(picture, frame, "minmax") for frame in range(3)] == [[(100, 700)]] * 3
