"""DICOM in many encodings: against Pillow, and pairs of pydicom's own files that hold one image."""

import io
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
from PIL import Image

from medsass.data.formats.damage import DamagedError, UnreadableError
from medsass.data.formats.image import Selection
from medsass.data.formats.opening import open_image
from tests.data.formats.dicom.dicoms import RGB, bundled, dataset, gray, saved

pydicom = pytest.importorskip("pydicom")
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.pixels import pixel_array  # noqa: E402
from pydicom.uid import (  # noqa: E402
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)


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


@pytest.mark.parametrize(("syntax", "codec", "options"), [
    ("1.2.840.10008.1.2.4.201", "htj2k_encode", {}),
    ("1.2.840.10008.1.2.4.51", "jpeg8_encode", {"bitspersample": 12, "level": 100}),
    ("1.2.840.10008.1.2.4.70", "ljpeg_encode", {"bitspersample": 12}), ("1.2.840.10008.1.2.4.80", "jpegls_encode", {}),
])  # fmt: skip
def test_syntaxes_that_pydicom_leaves_to_others_are_read(syntax: str, codec: str, options: dict) -> None:
    smooth = cv2.GaussianBlur(gray(12, False), (0, 0), 3)
    made = dataset(np.stack([smooth, smooth // 2]), frames=2, bits=12)
    made.file_meta.TransferSyntaxUID = syntax
    made.PixelData = encapsulate([getattr(imagecodecs, codec)(one, **options) for one in (smooth, smooth // 2)])
    made["PixelData"].is_undefined_length = True
    with open_image(Path("image"), data=saved(made)) as picture:
        assert np.abs(picture.read(0).astype(int) - smooth).max() <= (9 if "level" in options else 0)
        assert np.abs(picture.read(1).astype(int) - smooth // 2).max() <= (9 if "level" in options else 0)


def test_deflated_files_and_those_without_a_photometric_interpretation_or_samples_are_read() -> None:
    with open_image(bundled("image_dfl.dcm")) as picture:
        np.testing.assert_array_equal(picture.read(), pydicom.dcmread(bundled("image_dfl.dcm")).pixel_array)
    for array in (gray(16, False), RGB):
        made = dataset(array)
        del made.PhotometricInterpretation
        with open_image(Path("image"), data=saved(made)) as picture:
            np.testing.assert_array_equal(picture.read(), array)
    made = dataset(gray(16, True))
    del made.SamplesPerPixel
    with open_image(Path("image"), data=saved(made)) as picture:
        np.testing.assert_array_equal(picture.read(), np.frombuffer(made.PixelData, "<i2").reshape(24, 40))


@pytest.mark.parametrize("implicit", [False, True])
def test_single_bits_are_read_also_where_a_frame_begins_within_a_byte(implicit: bool, tmp_path: Path) -> None:
    bits = np.random.default_rng(2).integers(0, 2, (5, 19, 21)).astype(np.uint8)
    made = dataset(bits, frames=5, BitsAllocated=1, BitsStored=1, HighBit=0)
    made.PixelData = np.packbits(bits, bitorder="little").tobytes()
    made.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    made.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    truth = pixel_array(tmp_path / "a.dcm")
    np.testing.assert_array_equal(truth, bits)
    with open_image(tmp_path / "a.dcm", Selection(raw=True)) as picture:
        for frame in (4, 1, 0, 2, 3):
            np.testing.assert_array_equal(picture.read(frame), truth[frame])


@pytest.mark.parametrize("axis", ["y", "x"])
def test_frames_are_cut_along_any_axis(axis: str) -> None:
    stack = np.stack([gray(12, False) for _ in range(4)])
    made = dataset(stack, frames=4, bits=12, RescaleIntercept=-7, RescaleSlope=2, WindowCenter=50, WindowWidth=11)
    slices = np.moveaxis(stack.astype(int) * 2 - 7, {"y": 1, "x": 2}[axis], 0)[::5]
    with open_image(Path("image"), Selection(axis=axis, every=5), saved(made)) as picture:
        assert (picture.frames, picture.limits, picture.common) == (len(slices), (44.5, 54.5), True)
        for frame, truth in enumerate(slices):
            np.testing.assert_array_equal(picture.read(frame), truth)


def test_one_slice_of_a_series_cannot_be_cut_along_another_axis() -> None:
    made = dataset(gray(12, False), bits=12, ImagePositionPatient=[0, 0, 1])
    with pytest.raises(ValueError, match="a slice of a series, which cannot be cut along y alone: make a NIfTI file"):
        open_image(Path("image"), Selection(axis="y"), saved(made))


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
    dose = name.startswith("rtdose")
    if dose:
        with pytest.raises(ValueError, match="a DICOM radiotherapy dose, which is no image"):
            open_image(path)
    with open_image(path, Selection(frames="all", raw=dose)) as picture:
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
    ("MR_truncated.dcm", "truncated DICOM file: 8,130 of 8,192 bytes of pixel data"),
    ("badVR.dcm", r"\w+"),
])  # fmt: skip
def test_files_that_hold_no_whole_image_are_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message), open_image(bundled(name)) as picture:
        picture.read()


def test_pixel_data_of_another_length_than_the_header_says_are_refused() -> None:
    made = dataset(np.zeros((3, 8, 9), np.uint8), frames=3)
    for count, message in (
        (1, "pixel data of 3 images, where the header says 1"),
        (4, "216 of 288 bytes of pixel data"),
    ):
        made.NumberOfFrames = count
        with pytest.raises(ValueError, match=message), open_image(Path("a.dcm"), data=saved(made)) as picture:
            picture.read()
    del made.PixelData
    with pytest.raises(ValueError, match="without pixel data"), open_image(Path("a.dcm"), data=saved(made)) as picture:
        picture.read()
    tiny = saved(dataset(np.ones((1, 1), np.uint8)))  # with a byte that makes their number even
    with open_image(Path("a.dcm"), data=tiny) as picture:
        assert picture.read() == 1


def test_a_part_of_an_image_in_several_files_is_refused() -> None:
    for number, total, which in ((2, 3, "part 2 of 3"), (2, None, "part 2 of several"), (None, 3, "part one of 3")):
        made = dataset(np.zeros((3, 8, 9), np.uint8), frames=3, ConcatenationUID="1.2.5")
        made.InConcatenationNumber, made.InConcatenationTotalNumber = number, total
        with pytest.raises(UnreadableError, match=rf"^{which} of one image \(a DICOM concatenation\); join the parts"):
            open_image(Path("a.dcm"), data=saved(made))
    made.InConcatenationNumber = made.InConcatenationTotalNumber = 1
    with open_image(Path("a.dcm"), data=saved(made)) as picture:
        assert picture.frames == 3


def test_text_named_dcm_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_text("hello, I am text, and there is more of it than a header holds " * 4)
    with pytest.raises(ValueError, match=r"\w+ \w+"):
        open_image(tmp_path / "a.dcm")


@pytest.mark.parametrize("tags", [
    {"RescaleSlope": [1, 2]}, {"RescaleIntercept": [0, 1]}, {"NumberOfFrames": -1},
    {"BitsStored": 20, "HighBit": 19, "PixelPaddingValue": 0}, {"BitsAllocated": 200},
], ids=str)  # fmt: skip
def test_headers_that_cannot_be_are_damage(tags: dict[str, object]) -> None:
    made = dataset(np.arange(48, dtype=np.uint16).reshape(6, 8))
    for name, value in tags.items():
        setattr(made, name, value)
    with pytest.raises(DamagedError), open_image(Path("a.dcm"), data=saved(made)) as picture:
        picture.read()


@pytest.mark.parametrize("high", [13, 15])
def test_pixels_that_end_at_another_bit_are_refused(high: int) -> None:
    made = dataset(np.array([[0, 100, 1000, 4095]], np.uint16) << (high - 11))
    made.BitsStored, made.HighBit = 12, high
    with pytest.raises(ValueError, match=rf"12 bits that end at bit {high}, .*; save it anew with HighBit 11$"):
        open_image(Path("a.dcm"), data=saved(made))
