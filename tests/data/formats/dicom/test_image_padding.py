"""DICOM's padding, one range for all frames, and the values of masks; these against pydicom."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import pixel_array

from medsass.data.formats import depth
from medsass.data.formats.image import Selection
from medsass.data.formats.opening import open_image
from tests.data.formats.dicom.dicoms import RNG, dataset, opened, saved


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


def test_padding_of_other_values_in_each_frame_is_padding_in_all() -> None:
    array = RNG.integers(0, 900, (3, 24, 40)).astype(np.int16)
    array[:, :8] = -2000
    made = dataset(array, frames=3)
    made.add_new(0x00280120, "SS", -2000)
    made.PerFrameFunctionalGroupsSequence = []
    for frame in range(3):
        group, values = Dataset(), Dataset()
        values.RescaleSlope, values.RescaleIntercept = 1 + frame, 7
        group.PixelValueTransformationSequence = [values]
        made.PerFrameFunctionalGroupsSequence.append(group)
    with open_image(Path("image"), data=saved(made)) as picture:
        for frame in range(3):
            pixels = picture.read(frame)
            assert np.isnan(pixels[:8]).all()
            np.testing.assert_array_equal(pixels[8:], array[frame, 8:] * (1 + frame) + 7)
            assert depth.outside(pixels, picture.padding)[:8].all()
        assert depth.limits(picture, 0, "minmax")[0][0] >= 7


@pytest.mark.parametrize("number", ["4", "7"])  # of bits, and a label map
def test_segmentations_are_masks_and_no_images(number: str) -> None:
    made = dataset((RNG.random((2, 24, 40)) > 0.5).astype(np.uint8), frames=2)
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = f"1.2.840.10008.5.1.4.1.1.66.{number}"
    with pytest.raises(ValueError, match="a DICOM segmentation, which holds masks and no image"):
        open_image(Path("image"), data=saved(made))
    with open_image(Path("image"), Selection(raw=True), saved(made)) as mask:
        assert mask.frames == 2


@pytest.mark.parametrize(("kind", "bits"), [
    ("MONOCHROME1", 8), ("MONOCHROME2", 8), ("MONOCHROME1", 16), ("PALETTE COLOR", 8), ("MONOCHROME2", 1), ("MONOCHROME1", 1),
])  # fmt: skip
def test_values_of_masks_are_as_stored(kind: str, bits: int) -> None:
    array = RNG.integers(0, 2 if bits == 1 else 5, (24, 40)).astype("u2" if bits == 16 else "u1")
    made = dataset(array, PhotometricInterpretation=kind)
    if bits == 1:
        made.BitsAllocated, made.BitsStored, made.HighBit = 1, 1, 0
        made.PixelData = np.packbits(array, bitorder="little").tobytes()
    for name in ("Red", "Green", "Blue") if kind == "PALETTE COLOR" else ():
        setattr(made, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(made, f"{name}PaletteColorLookupTableData", RNG.bytes(512))
    with open_image(Path("image"), Selection(raw=True), saved(made)) as mask:
        np.testing.assert_array_equal(mask.read(), array)
        np.testing.assert_array_equal(mask.read(), pixel_array(io.BytesIO(saved(made))))
        told = "0 is shown bright" if kind == "MONOCHROME1" else ""
        assert (mask.dtype, mask.span, mask.converted) == (array.dtype, (0, (1 << bits) - 1), told)


def test_a_class_of_which_the_file_says_nothing_that_is_known_is_a_reason() -> None:
    data = saved(dataset(RNG.integers(0, 255, (24, 40), np.uint8)))
    at = data.rindex(b"\x08\0\x16\0UI")
    with pytest.raises(ValueError, match="Unknown Value Representation 'WI'"):
        open_image(Path("image"), data=data[: at + 4] + b"WI" + data[at + 6 :])
