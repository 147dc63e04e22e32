"""DICOM files against the arrays that were written, Pillow, and pairs of pydicom's own files that hold one image."""

import io
import sys
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pytest
from PIL import Image

from medsass.data.formats import depth
from medsass.data.formats.geometry import Box
from medsass.data.formats.image import WHOLE_FILE, ImageFile, Selection
from medsass.data.formats.opening import from_bytes, open_image

pydicom = pytest.importorskip("pydicom")
from pydicom.data import get_testdata_file  # noqa: E402
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.pixels import pixel_array  # noqa: E402
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, RLELossless  # noqa: E402

RNG = np.random.default_rng(0)
RGB = cv2.GaussianBlur(RNG.integers(0, 256, (24, 40, 3), np.uint8), (0, 0), 3)


def bundled(name: str) -> Path:
    return Path(str(get_testdata_file(name, download=False)))


def dataset(array: np.ndarray, frames: int = 0, bits: int = 0, **elements: Any) -> Any:
    """A data set of `array`: (H, W), (H, W, 3), or with `frames` one axis more before these."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = "1.2.3.4"
    colour = array.ndim == 3 + bool(frames)
    made.Rows, made.Columns = array.shape[bool(frames) :][:2]
    made.SamplesPerPixel, made.PhotometricInterpretation = (3, "RGB") if colour else (1, "MONOCHROME2")
    if colour:
        made.PlanarConfiguration = 0
    made.BitsAllocated = array.dtype.itemsize * 8
    made.BitsStored = bits or made.BitsAllocated
    made.HighBit, made.PixelRepresentation = made.BitsStored - 1, int(array.dtype.kind == "i")
    if frames:
        made.NumberOfFrames = frames
    made.PixelData = array.tobytes() + b"\0" * (array.nbytes % 2)
    for name, value in elements.items():
        setattr(made, name, value)
    return made


def saved(made: Any) -> bytes:
    buffer = io.BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def opened(array: np.ndarray, view: Selection = WHOLE_FILE, **options: Any) -> ImageFile:
    return open_image(Path("image"), view, saved(dataset(array, **options)))


def gray(bits: int, signed: bool) -> np.ndarray:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    array = RNG.integers(low, high + 1, (24, 40))
    array[0, 0], array[0, 1] = low, high
    return array.astype(f"{'i' if signed else 'u'}{1 if bits == 8 else 2}")


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
    with opened(stack, frames=5) as picture:
        assert (picture.frames, picture.total, picture.converted) == (1, 5, "first of 5 frames")
        np.testing.assert_array_equal(picture.read(), stack[0])
    with opened(stack, Selection(frames="all"), frames=5) as picture:
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


def test_jpeg_baseline_equals_pillow() -> None:
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "JPEG", quality=95)
    made = dataset(RGB, PhotometricInterpretation="YBR_FULL_422")
    made.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    made.PixelData = encapsulate([buffer.getvalue()])
    made["PixelData"].is_undefined_length = True
    with open_image(Path("image"), data=saved(made)) as picture:
        assert np.abs(picture.read().astype(int) - np.asarray(Image.open(buffer))).max() <= 3


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
@pytest.mark.parametrize("array", [RGB, gray(16, False)], ids=["rgb", "16 bit"])
def test_lossless_syntaxes_come_back_exactly(syntax: str, array: np.ndarray) -> None:
    made = dataset(array)
    if syntax == RLELossless:
        made.compress(syntax, generate_instance_uid=False)
    else:
        made.file_meta.TransferSyntaxUID = syntax
        made.PixelData = encapsulate([imagecodecs.jpeg2k_encode(array, level=0, codecformat="j2k")])
        made["PixelData"].is_undefined_length = True
    with open_image(Path("image"), data=saved(made)) as picture:
        np.testing.assert_array_equal(picture.read(), array)


@pytest.mark.parametrize(
    "name", ["MR_small_RLE", "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless", "MR_small_bigendian",
             "MR_small_implicit", "MR_small_expb", "MR_small_padded"],
)  # fmt: skip
def test_one_image_in_many_encodings_is_the_same(name: str) -> None:
    stored = np.frombuffer(pydicom.dcmread(bundled("MR_small.dcm")).PixelData, "<i2").reshape(64, 64)
    with open_image(bundled(f"{name}.dcm")) as picture:
        np.testing.assert_array_equal(picture.read(), stored)
        assert picture.limits == (600 - 0.5 - 1599 / 2, 600 - 0.5 + 1599 / 2)


def test_ct_is_in_hounsfield_units() -> None:
    stored = np.frombuffer(pydicom.dcmread(bundled("CT_small.dcm")).PixelData, "<i2").reshape(128, 128)
    with open_image(bundled("CT_small.dcm")) as picture:
        np.testing.assert_array_equal(picture.read(), stored.astype(int) - 1024)


@pytest.mark.parametrize("name", ["SC_rgb_rle", "SC_rgb_gdcm_KY", "SC_rgb_jpeg_gdcm", "SC_ybr_full_422_uncompressed"])
def test_the_colour_chart_has_its_colours(name: str) -> None:
    with open_image(bundled(f"{name}.dcm")) as picture:
        got = picture.read()
    bars = got[[5, 25, 45], 50].astype(int)
    np.testing.assert_allclose(bars, [[255, 0, 0], [0, 255, 0], [0, 0, 255]], atol=3 + 100 * ("422" in name))
    assert got.shape == (100, 100, 3)


@pytest.mark.parametrize("name", ["examples_palette", "examples_ybr_color", "examples_overlay", "rtdose", "rtdose_rle"])
def test_other_files_of_pydicom_are_read(name: str) -> None:
    path = bundled(f"{name}.dcm")
    header = pydicom.dcmread(path, stop_before_pixels=True)
    with open_image(path, Selection(frames="all")) as picture:
        frame = picture.frames - 1
        assert (picture.height, picture.width, picture.frames) == (
            header.Rows,
            header.Columns,
            int(header.get("NumberOfFrames", 1)),
        )
        raw = pixel_array(path, index=frame)
        got = picture.read(frame)
        if name == "examples_palette":
            tables = [
                np.frombuffer(header[f"{c}PaletteColorLookupTableData"].value, "<u2") for c in ("Red", "Green", "Blue")
            ]
            np.testing.assert_array_equal(got, np.stack([table[raw] for table in tables], axis=-1))
        else:
            np.testing.assert_array_equal(got, raw)


@pytest.mark.parametrize("implicit", [False, True])
def test_a_file_without_the_mark_is_known_by_its_suffix(implicit: bool, tmp_path: Path) -> None:
    array = gray(16, True)
    made = dataset(array)
    del made.file_meta
    made.save_as(tmp_path / "image.dcm", implicit_vr=implicit, little_endian=True, enforce_file_format=False)
    assert (tmp_path / "image.dcm").read_bytes()[128:132] != b"DICM"
    with open_image(tmp_path / "image.dcm") as picture:
        np.testing.assert_array_equal(picture.read(), array)


def test_a_dicom_file_that_begins_as_a_tiff_file_is_dicom() -> None:
    data = bundled("CT_small.dcm").read_bytes()
    assert data.startswith(b"II*\0")
    with open_image(Path("image.tif"), data=data) as picture:
        assert (picture.height, picture.dtype) == (128, np.int32)


def test_a_file_with_the_mark_is_known_without_its_suffix() -> None:
    with open_image(Path("IM000001"), data=saved(dataset(RGB))) as picture:
        np.testing.assert_array_equal(picture.read(), RGB)


def test_a_photograph_named_dcm_is_read_as_what_it_is(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.dcm", "PNG")
    with open_image(tmp_path / "a.dcm") as picture:
        np.testing.assert_array_equal(picture.read(), RGB)


@pytest.mark.parametrize(("name", "message"), [
    ("rtplan.dcm", r"a DICOM file without an image \(modality RTPLAN\)"),
    ("test-SR.dcm", "a DICOM file without an image"),
    ("image_dfl.dcm", "[Pp]ixel [Dd]ata"),
    ("MR_truncated.dcm", r"\w+ \w+"),
    ("JPEG-lossy.dcm", r"\w+ \w+"),
    ("badVR.dcm", r"\w+"),
])  # fmt: skip
def test_files_that_hold_no_whole_image_are_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message), open_image(bundled(name)) as picture:
        picture.read()


def test_text_named_dcm_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_text("hello, I am text, and there is more of it than a header holds " * 4)
    with pytest.raises(ValueError, match=r"\w+ \w+"):
        open_image(tmp_path / "a.dcm")


def test_other_colour_models_are_refused() -> None:
    with pytest.raises(ValueError, match="photometric interpretation ARGB is not supported"):
        opened(RGB, PhotometricInterpretation="ARGB")


def test_an_image_too_large_to_decode_is_refused_from_its_header() -> None:
    with pytest.raises(ValueError, match="60000x60000 pixels are more than the 178,956,970"):
        opened(RGB[..., 0].copy(), Rows=60_000, Columns=60_000)


def test_without_pydicom_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ImportError, match=r"DICOM files need pydicom: pip install 'medsass\[dicom\]'"):
        opened(RGB)
