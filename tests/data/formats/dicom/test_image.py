"""DICOM data sets against the arrays that were written into them."""

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from medsass.data.formats import depth
from medsass.data.formats.geometry import Box
from medsass.data.formats.image import Selection
from medsass.data.formats.opening import from_bytes, open_image
from tests.data.formats.dicom.dicoms import RGB, RNG, Dataset, dataset, gray, opened, saved


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("signed", [False, True])
def test_stored_values_are_read_whatever_stands_in_the_unused_bits(bits: int, signed: bool) -> None:
    array = gray(bits, signed)
    with opened(array, bits=bits) as picture:
        np.testing.assert_array_equal(picture.read(), array)
        np.testing.assert_array_equal(picture.read(0, Box(3, 4, 5, 6)), array[3:8, 4:10])
        assert picture.dtype == array.dtype
        assert (picture.height, picture.width, picture.colour, picture.limits) == (24, 40, False, None)
        assert picture.span == (int(array.min()), int(array.max()))
        assert picture.converted == ""
    if bits not in (8, 16):  # overlays once stood there
        dirty = (array.view(np.uint16) & ((1 << bits) - 1)) | (RNG.integers(0, 2, array.shape) << 15).astype(np.uint16)
        with opened(dirty.view(array.dtype), bits=bits) as picture:
            np.testing.assert_array_equal(picture.read(), array)


@pytest.mark.parametrize(("bits", "signed", "slope", "shift", "kind"), [
    (12, False, 1, -1024, "int16"),
    (16, False, 1, -1024, "int32"),
    (16, True, 1, 0, "int16"),
    (8, False, 2, 0, "uint16"),
    (8, False, -1, 0, "int16"),
    (12, False, 0.25, 3, "float32"),
    (12, True, 1.5, -0.5, "float32"),
])  # fmt: skip
def test_rescaled_values_are_exact(bits: int, signed: bool, slope: float, shift: float, kind: str) -> None:
    array = gray(bits, signed)
    truth = array.astype(float) * slope + shift
    with opened(array, bits=bits, RescaleSlope=slope, RescaleIntercept=shift) as picture:
        got = picture.read()
        assert got.dtype == picture.dtype == kind
        np.testing.assert_array_equal(got, truth)
        assert picture.span == (truth.min(), truth.max())
        assert picture.converted == ("rescaled" if (slope, shift) != (1, 0) else "")


def test_a_modality_table_is_applied() -> None:
    array, table = gray(8, False), RNG.integers(0, 4096, 256).astype(np.uint16)
    item = Dataset()
    item.LUTDescriptor, item.LUTData, item.ModalityLUTType = [256, 0, 12], table.tobytes(), "US"
    with opened(array, ModalityLUTSequence=[item]) as picture:
        np.testing.assert_array_equal(picture.read(), table[array])
        assert (picture.dtype, picture.span, picture.converted) == (np.uint16, (0, 4095), "modality LUT")


@pytest.mark.parametrize(("elements", "expected"), [
    ({"WindowCenter": 40, "WindowWidth": 400}, (-160, 239)),
    ({"WindowCenter": [40, 600], "WindowWidth": [400, 1500]}, (-160, 239)),
    ({"WindowCenter": 2048, "WindowWidth": 4096}, (0, 4095)),
    ({"WindowCenter": 40, "WindowWidth": 400, "VOILUTFunction": "LINEAR_EXACT"}, (-160, 240)),
    ({"WindowCenter": 40, "WindowWidth": 400, "VOILUTFunction": "SIGMOID"}, (-160, 240)),
    ({"WindowCenter": 40, "WindowWidth": 1}, None),
    ({"WindowCenter": 40}, None),
])  # fmt: skip
def test_the_first_window_gives_the_limits(elements: dict[str, Any], expected: tuple[float, float] | None) -> None:
    with opened(gray(12, False), bits=12, RescaleSlope=1, RescaleIntercept=-1024, **elements) as picture:
        assert picture.limits == expected


def test_a_table_of_values_of_interest_that_stands_for_the_window_is_told() -> None:
    item = Dataset()
    item.LUTDescriptor, item.LUTData = [256, 0, 8], bytes(range(256))
    with opened(gray(8, False), VOILUTSequence=[item]) as picture:
        assert picture.converted == "VOI LUT not applied"
    with opened(gray(8, False), VOILUTSequence=[item], WindowCenter=40, WindowWidth=40) as picture:
        assert picture.converted == ""


def test_a_slope_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="a rescale slope of 0, which makes all values one"):
        opened(gray(12, False), bits=12, RescaleSlope=0, RescaleIntercept=-1024)


def test_a_window_maps_as_the_standard_says() -> None:
    array = gray(12, False)
    with opened(array, bits=12, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=40, WindowWidth=400) as picture:
        got = depth.scaled(picture.read(), depth.limits(picture, 0, "minmax"), 8)
    x, centre, width = array.astype(float) - 1024, 40, 400  # PS3.3 C.11.2.1.2.1
    linear = ((x - (centre - 0.5)) / (width - 1) + 0.5) * 255
    truth = np.where(x <= centre - 0.5 - (width - 1) / 2, 0, np.where(x > centre - 0.5 + (width - 1) / 2, 255, linear))
    np.testing.assert_array_equal(got, np.rint(truth))
    data = saved(dataset(array, bits=12, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=40, WindowWidth=400))
    np.testing.assert_array_equal(from_bytes(data).array, got)


@pytest.mark.parametrize(("bits", "signed"), [(8, False), (12, False), (12, True), (16, True)])
def test_monochrome1_is_inverted_with_its_window(bits: int, signed: bool) -> None:
    array = gray(bits, signed)
    half = 1 << bits - 1
    truth = (-1 if signed else 2 * half - 1) - array.astype(int)
    with opened(array, bits=bits, PhotometricInterpretation="MONOCHROME1", WindowCenter=50, WindowWidth=21) as picture:
        np.testing.assert_array_equal(picture.read(), truth)
        assert picture.dtype == array.dtype
        assert picture.converted == "inverted (MONOCHROME1)"
        low, high = picture.limits or (0, 0)
        top = -1 if signed else 2 * half - 1
        assert (top - high, top - low) == (39.5, 59.5)


@pytest.mark.parametrize("planar", [0, 1])
def test_rgb_is_read(planar: int) -> None:
    made = dataset(RGB, PlanarConfiguration=planar)
    made.PixelData = (np.moveaxis(RGB, -1, 0) if planar else RGB).tobytes()
    with open_image(Path("image"), data=saved(made)) as picture:
        np.testing.assert_array_equal(picture.read(), RGB)
        assert (picture.colour, picture.converted) == (True, "")
    with open_image(Path("image"), Selection(channels=(2,)), saved(made)) as picture:
        np.testing.assert_array_equal(picture.read(), RGB[..., 2])


def test_ybr_becomes_rgb_as_opencv_makes_it() -> None:
    ybr = cv2.cvtColor(RGB, cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]]
    with opened(ybr, PhotometricInterpretation="YBR_FULL") as picture:
        assert np.abs(picture.read().astype(int) - RGB).max() <= 2
        assert picture.converted == "YBR_FULL to RGB"


@pytest.mark.parametrize(("entry", "kind"), [(8, "uint8"), (16, "uint16")])
def test_palette_becomes_rgb(entry: int, kind: str) -> None:
    array, table = gray(8, False), RNG.integers(0, 1 << entry, (3, 256)).astype(kind)
    options: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, values in zip(("Red", "Green", "Blue"), table, strict=True):
        options[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, entry]
        options[f"{name}PaletteColorLookupTableData"] = values.tobytes()
    with opened(array, **options) as picture:
        np.testing.assert_array_equal(picture.read(), np.moveaxis(table[:, array], 0, -1))
        assert (picture.dtype, picture.colour, picture.converted) == (kind, True, "palette to RGB")


@pytest.mark.parametrize("colour", [False, True])
def test_frames_are_read_one_or_all(colour: bool) -> None:
    stack = RNG.integers(0, 256, (5, 24, 40, 3)[: 3 + colour], np.uint8)
    with opened(stack, Selection(frames="middle"), frames=5) as picture:
        assert (picture.frames, picture.total, picture.converted) == (1, 5, "frame 2 of 5")
        np.testing.assert_array_equal(picture.read(), stack[2])
    with opened(stack, frames=5) as picture:
        assert (picture.frames, picture.converted) == (5, "")
        for frame in (4, 0, 2):
            np.testing.assert_array_equal(picture.read(frame), stack[frame])


def test_functional_groups_of_frames_count() -> None:
    stack = RNG.integers(0, 4096, (2, 24, 40)).astype(np.uint16)
    groups = []
    for slope, centre in ((1, 100), (2, 100)):
        group, values, window = Dataset(), Dataset(), Dataset()
        values.RescaleSlope, values.RescaleIntercept, values.RescaleType = slope, -7, "US"
        window.WindowCenter, window.WindowWidth = centre, 51
        group.PixelValueTransformationSequence = [values]
        group.FrameVOILUTSequence = [window]
        groups.append(group)
    options = {"frames": 2, "bits": 12, "PerFrameFunctionalGroupsSequence": groups}
    with opened(stack, Selection(frames="all"), **options) as picture:
        np.testing.assert_array_equal(picture.read(0), stack[0].astype(int) - 7)
        np.testing.assert_array_equal(picture.read(1), stack[1].astype(int) * 2 - 7)
        assert (picture.dtype, picture.span, picture.limits) == (np.int16, (-7, 8183), (74.5, 124.5))
    groups[1].FrameVOILUTSequence[0].WindowCenter = 300
    with opened(stack, Selection(frames="all"), **options) as picture:
        assert picture.limits is None  # no window that holds for all frames


def test_one_bit_segmentations_are_black_and_white() -> None:
    truth = RNG.random((16, 24)) > 0.5
    made = dataset(truth.astype(np.uint8), BitsAllocated=1, BitsStored=1, HighBit=0)
    made.PixelData = np.packbits(truth.ravel(), bitorder="little").tobytes()
    with open_image(Path("image"), data=saved(made)) as picture:
        np.testing.assert_array_equal(picture.read(), truth * np.uint8(255))


def test_float_pixels_are_read() -> None:
    array = RNG.normal(size=(24, 40)).astype(np.float32)
    made = dataset(array)
    del made.PixelData, made.PixelRepresentation, made.BitsStored, made.HighBit
    made.FloatPixelData = array.tobytes()
    with open_image(Path("image"), data=saved(made)) as picture:
        np.testing.assert_array_equal(picture.read(), array)
        assert picture.dtype == np.float32


def test_other_colour_models_are_refused() -> None:
    with pytest.raises(ValueError, match="photometric interpretation ARGB is not supported"):
        opened(RGB, PhotometricInterpretation="ARGB")


def test_an_image_too_large_to_decode_is_refused_from_its_header() -> None:
    with pytest.raises(ValueError, match="60000x60000 pixels are more than the 178,956,970"):
        opened(RGB[..., 0].copy(), Rows=60_000, Columns=60_000)


def test_without_pydicom_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ImportError, match="DICOM files need pydicom: pip install pydicom python-gdcm"):
        opened(RGB)
