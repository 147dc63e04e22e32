"""Image and mask files -> 8-bit pixels, against Pillow, OpenCV and the arrays that were written."""

import io
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis.extra import numpy as hnp
from PIL import Image

from medsass.data.dali import decode
from medsass.data.formats import kinds, opening
from medsass.data.formats.depth import to_8bit
from tests.support.effort import examples

RGB = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
GRAY = RGB[..., 0].copy()
DEEP = np.random.default_rng(1).integers(300, 40_000, (24, 40), np.uint16)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(array: np.ndarray) -> bytes:
    """By OpenCV, which writes 16 bits; colour arrays are RGB here."""
    return cv2.imencode(".png", array if array.ndim == 2 else array[..., ::-1])[1].tobytes()


def tiff(array: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def stretched(array: np.ndarray) -> np.ndarray:
    return np.rint(np.interp(array.astype(float), [float(array.min()), float(array.max())], [0, 255])).astype(np.uint8)


def check(data: bytes, expected: np.ndarray, converted: str) -> None:
    got = opening.from_bytes(data)
    assert got.array.dtype == np.uint8
    np.testing.assert_array_equal(got.array, expected)
    assert got.converted == converted


@pytest.mark.parametrize("array", [GRAY, RGB], ids=["gray", "rgb"])
@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "JPEG2000"])
def test_lossless_8_bit_comes_back_exactly(kind: str, array: np.ndarray) -> None:
    check(saved(Image.fromarray(array), kind), array, "")


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits"])
def test_compressed_tiff_comes_back_exactly(compression: str) -> None:
    check(saved(Image.fromarray(RGB), "TIFF", compression=compression), RGB, "")


@pytest.mark.parametrize("array", [GRAY, RGB], ids=["gray", "rgb"])
def test_jpeg_equals_pillow_and_is_close_to_opencv(array: np.ndarray) -> None:
    data = saved(Image.fromarray(array), "JPEG")
    check(data, np.asarray(Image.open(io.BytesIO(data))), "")
    flag = cv2.IMREAD_GRAYSCALE if array.ndim == 2 else cv2.IMREAD_COLOR_RGB
    theirs = cv2.imdecode(np.frombuffer(data, np.uint8), flag).astype(int)
    assert np.abs(theirs - opening.from_bytes(data).array).mean() < 1


def test_webp_equals_opencv() -> None:
    data = saved(Image.fromarray(RGB), "WEBP", lossless=True)
    check(data, cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB), "")


@pytest.mark.parametrize(
    ("mode", "target", "converted"),
    [("P", "RGB", "palette to RGB"), ("RGBA", "RGB", "alpha dropped"), ("LA", "L", "alpha dropped"),
     ("1", "L", "bilevel to gray")],
)  # fmt: skip
def test_other_modes_of_png_are_converted_and_noted(mode: str, target: str, converted: str) -> None:
    image = Image.fromarray(RGB).convert(mode)
    check(saved(image, "PNG"), np.asarray(image.convert(target)), converted)


def test_alpha_is_dropped_not_blended() -> None:
    image = np.dstack([RGB, np.full(RGB.shape[:2], 7, np.uint8)])
    check(saved(Image.fromarray(image), "PNG"), RGB, "alpha dropped")


def test_cmyk_jpeg_is_converted_and_noted() -> None:
    data = saved(Image.fromarray(RGB).convert("CMYK"), "JPEG")
    check(data, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")), "CMYK to RGB")


def test_16_bit_gray_png_is_stretched() -> None:
    check(png(DEEP), stretched(DEEP), "uint16 to 8 bit")


def test_16_bit_rgb_png_is_stretched_over_all_channels() -> None:
    deep = np.dstack([DEEP, DEEP[::-1], DEEP // 3])
    check(png(deep), stretched(deep), "uint16 to 8 bit")


def test_16_bit_tiff_is_stretched() -> None:
    check(tiff(DEEP), stretched(DEEP), "uint16 to 8 bit")


def test_float_tiff_is_stretched() -> None:
    values = np.random.default_rng(2).normal(size=(20, 30)).astype(np.float32)
    check(tiff(values), stretched(values), "float32 to 8 bit")


def test_constant_deep_image_becomes_0() -> None:
    check(tiff(np.full((5, 6), 900, np.uint16)), np.zeros((5, 6), np.uint8), "uint16 to 8 bit")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_float_tiff_with_a_value_that_is_not_finite_is_refused(value: float) -> None:
    values = np.ones((4, 4), np.float32)
    values[2, 1] = value
    with pytest.raises(ValueError, match="not finite"):
        opening.from_bytes(tiff(values))


@given(hnp.arrays(np.uint16, hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=8)))
@examples(50)
def test_stretch_is_monotone_and_takes_the_whole_range(array: np.ndarray) -> None:
    got = to_8bit(array).ravel().astype(int)
    assert (np.diff(got[np.argsort(array.ravel())]) >= 0).all()
    assert got.min() == 0
    assert got.max() == (255 if array.min() < array.max() else 0)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_orientation_is_applied(kind: str, turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    data = saved(Image.fromarray(RGB), kind, exif=exif)
    lying = np.asarray(Image.open(io.BytesIO(data)))  # Pillow does not turn by itself
    upright = {1: lying, 2: lying[:, ::-1], 3: lying[::-1, ::-1], 4: lying[::-1], 5: lying.swapaxes(0, 1),
               6: np.rot90(lying, -1), 7: np.rot90(lying, 2).swapaxes(0, 1), 8: np.rot90(lying)}  # fmt: skip
    check(data, upright[turn], "" if turn == 1 else "turned upright")


@pytest.mark.parametrize("mode", ["P", "CMYK", "1"])
def test_tiff_of_another_mode_equals_pillow(mode: str) -> None:
    data = saved(Image.fromarray(RGB).convert(mode), "TIFF")
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("L" if mode == "1" else "RGB"))
    np.testing.assert_array_equal(opening.from_bytes(data).array, expected)


def test_tiff_whose_zero_is_white_equals_pillow() -> None:
    data = tiff(GRAY, photometric="miniswhite")
    np.testing.assert_array_equal(opening.from_bytes(data).array, np.asarray(Image.open(io.BytesIO(data)).convert("L")))


def test_tiff_orientation_is_applied() -> None:
    data = saved(Image.fromarray(RGB), "TIFF", tiffinfo={0x0112: 6})
    np.testing.assert_array_equal(opening.from_bytes(data).array, np.rot90(RGB, -1))


def test_tiff_with_alpha_drops_it() -> None:
    image = np.dstack([RGB, np.full(RGB.shape[:2], 7, np.uint8)])
    check(saved(Image.fromarray(image), "TIFF"), RGB, "alpha dropped")


def test_tiff_of_several_pages_is_refused_with_its_shape() -> None:
    with pytest.raises(ValueError, match=r"expected one gray .* image; got shape \(5, 24, 40\)"):
        opening.from_bytes(tiff(np.stack([GRAY] * 5), photometric="minisblack"))


def test_empty_file_is_refused() -> None:
    with pytest.raises(ValueError, match=r"empty file \(0 bytes\)"):
        opening.from_bytes(b"")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP", "WEBP", "JPEG2000"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_file_is_refused_with_a_reason(kind: str, share: float) -> None:
    data = saved(Image.fromarray(RGB), kind)
    with pytest.raises(ValueError, match=r"\w+ \w+"):
        opening.from_bytes(data[: int(len(data) * share)])


def test_truncated_16_bit_png_is_refused() -> None:
    data = png(np.dstack([DEEP] * 3))
    with pytest.raises(ValueError, match="damaged PNG file"):
        opening.from_bytes(data[: len(data) // 2])


def test_png_cut_within_its_header_says_so() -> None:
    with pytest.raises(ValueError, match=r"(?i)truncated|not an image|decoded"):
        opening.from_bytes(saved(Image.fromarray(RGB), "PNG")[:20])


@pytest.mark.parametrize("data", [b"hello, I am text\n", b"\0" * 4096, b"%PDF-1.7 ..."], ids=["text", "zeros", "pdf"])
def test_mislabelled_file_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="not an image file that can be read"):
        opening.open_image(path)


def test_jpeg_named_png_is_read_as_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(saved(Image.fromarray(GRAY), "JPEG"))
    np.testing.assert_array_equal(opening.from_bytes(path.read_bytes()).array, np.asarray(Image.open(path)))


@pytest.mark.parametrize(("kind", "suffix"), [("JPEG", "jpg"), ("PNG", "png"), ("JPEG2000", "jp2")])
@pytest.mark.parametrize("array", [GRAY, RGB], ids=["gray", "rgb"])
def test_plain_files_are_storable(kind: str, suffix: str, array: np.ndarray) -> None:
    assert opening.storable(saved(Image.fromarray(array), kind)) == (suffix, (24, 40), "")


def test_png_with_alpha_is_storable_because_dali_drops_it_too() -> None:
    data = saved(Image.fromarray(np.dstack([RGB, RGB[..., 1]])), "PNG")
    assert opening.storable(data) == ("png", (24, 40), "alpha dropped")
    np.testing.assert_array_equal(decode(data), RGB)


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(Image.fromarray(RGB), "JPEG", exif=exif)


@pytest.mark.parametrize(
    "data",
    [
        saved(Image.fromarray(RGB), "BMP"), saved(Image.fromarray(RGB), "WEBP"), saved(Image.fromarray(RGB), "TIFF"),
        *(saved(Image.fromarray(RGB).convert(mode), "PNG") for mode in ("P", "LA", "1")),
        saved(Image.fromarray(RGB).convert("CMYK"), "JPEG"), png(DEEP), png(np.dstack([DEEP] * 3)), turned(),
        saved(Image.fromarray(RGB), "PNG", transparency=(1, 2, 3)), b"", b"text", saved(Image.fromarray(RGB), "PNG")[:20],
    ],
    ids=["bmp", "webp", "tiff", "palette", "la", "bilevel", "cmyk", "16-bit gray", "16-bit rgb", "turned",
         "transparent colour", "empty", "text", "cut"],
)  # fmt: skip
def test_other_files_are_not_storable(data: bytes) -> None:
    assert opening.storable(data) is None


def test_readers_are_chosen_by_content_not_by_name(tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", DEEP)
    files = {"a.svs": png(RGB), "b.npz": saved(Image.fromarray(RGB), "JPEG"), "c.jpg": tiff(DEEP), "d.dcm": png(DEEP),
             "e.PNG": (tmp_path / "array.npy").read_bytes(), "f": saved(Image.fromarray(GRAY), "BMP")}  # fmt: skip
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        with opening.open_image(tmp_path / name) as picture:
            assert picture.read().shape[:2] == (24, 40), name
            assert picture.dtype == (np.uint8 if name in ("a.svs", "b.npz", "f") else np.uint16)


@pytest.mark.parametrize("name", ["image.tif", "image.png", "image.jp2"])
def test_bytes_at_hand_and_a_path_give_the_same_picture(name: str, tmp_path: Path) -> None:
    data = {"tif": tiff(DEEP), "png": png(DEEP), "jp2": saved(Image.fromarray(RGB), "JPEG2000")}[name[-3:]]
    (tmp_path / name).write_bytes(data)
    with opening.open_image(tmp_path / name) as one, opening.open_image(Path("elsewhere"), data=data) as other:
        np.testing.assert_array_equal(one.read(), other.read())
        assert (one.dtype, one.converted, one.span) == (other.dtype, other.converted, other.span)


@pytest.mark.parametrize("suffix", sorted(kinds.SUFFIXES))
def test_empty_and_senseless_files_are_refused_whatever_their_suffix(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"image{suffix}"
    for content in (b"", b"hello, I am text\n" * 20):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"\w+ \w+"):
            opening.open_image(path)
    with pytest.raises(FileNotFoundError):
        opening.open_image(tmp_path / f"nothing{suffix}")


def test_deep_gray_images_stay_deep_where_that_is_asked() -> None:
    np.testing.assert_array_equal(opening.from_bytes(png(DEEP), deep=True).array, DEEP)
    np.testing.assert_array_equal(opening.from_bytes(tiff(DEEP)).array, stretched(DEEP))
    np.testing.assert_array_equal(opening.from_bytes(png(RGB), deep=True).array, RGB)
    assert opening.from_bytes(png(np.dstack([DEEP] * 3)), deep=True).array.dtype == np.uint8


def test_deep_jpeg_2000_is_not_storable() -> None:
    assert opening.storable(imagecodecs.jpeg2k_encode(np.dstack([DEEP] * 3), level=0)) is None
