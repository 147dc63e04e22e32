"""JPEG-LS, lossless and 12-bit JPEG, JPEG XL, deep AVIF and Netpbm, against the arrays that were written, OpenCV and Pillow."""

import io
import sys
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
from PIL import Image, ImageOps

from medsass.data.formats import image
from medsass.data.formats.image import WHOLE_FILE, ImageFile, Selection
from medsass.data.formats.opening import from_bytes, open_image, storable

RGB = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8), (0, 0), 4)
DEEP = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 4096, (24, 40), np.uint16), (0, 0), 2)


def opened(data: bytes, view: Selection = WHOLE_FILE) -> ImageFile:
    return open_image(Path("image"), view, data)


@pytest.mark.parametrize(("data", "array", "top"), [
    (imagecodecs.jpegls_encode(DEEP), DEEP, None), (imagecodecs.jpegls_encode(RGB), RGB, 255),
    (imagecodecs.ljpeg_encode(DEEP, bitspersample=12), DEEP, 4095), (imagecodecs.ljpeg_encode(RGB[..., 0]), RGB[..., 0], 255),
    (imagecodecs.jpeg8_encode(DEEP * 9, lossless=True, bitspersample=16), DEEP * 9, 65535),
    (imagecodecs.jpeg8_encode(RGB, lossless=True), RGB, 255),
    (imagecodecs.jpegxl_encode(RGB, lossless=True), RGB, 255), (imagecodecs.jpegxl_encode(DEEP, lossless=True), DEEP, 65535),
    (imagecodecs.jpegxl_encode(DEEP / np.float32(4095), lossless=True), DEEP / np.float32(4095), 1),
    (imagecodecs.avif_encode(np.dstack([DEEP] * 3) // 4, bitspersample=10, level=100), np.dstack([DEEP] * 3) // 4, 1023),
    (imagecodecs.avif_encode(RGB, level=100), RGB, 255),
], ids=["ls", "ls rgb", "sof3 12", "sof3 8", "sof3 16", "sof3 rgb", "jxl", "jxl 16", "jxl float", "avif 10", "avif"])  # fmt: skip
def test_lossless_formats_come_back_exactly(data: bytes, array: np.ndarray, top: int | None) -> None:
    with opened(data) as picture:
        read = picture.read()
        np.testing.assert_array_equal(read, array)
        assert read.dtype == picture.dtype == array.dtype
        assert top is None or picture.span == (0, top)
    if array.ndim == 3:
        with opened(data, Selection(channels=(1,))) as picture:
            np.testing.assert_array_equal(picture.read(), array[..., 1])


def test_lossless_jpeg_equals_pillow_where_pillow_reads_it() -> None:
    data = imagecodecs.ljpeg_encode(RGB[..., 0])
    np.testing.assert_array_equal(from_bytes(data).array, np.asarray(Image.open(io.BytesIO(data))))


def test_12_bit_jpeg_is_close_to_what_was_written() -> None:
    data = imagecodecs.jpeg8_encode(DEEP, bitspersample=12, level=99)
    with opened(data) as picture:
        assert picture.span == (0, 4095)
        assert np.abs(picture.read().astype(int) - DEEP).max() < 16


@pytest.mark.parametrize("data", [
    imagecodecs.ljpeg_encode(RGB[..., 0]), imagecodecs.jpeg8_encode(DEEP, bitspersample=12), imagecodecs.jpegls_encode(RGB),
    imagecodecs.jpegxl_encode(RGB), imagecodecs.avif_encode(RGB),
], ids=["lossless", "12 bit", "ls", "jxl", "avif"])  # fmt: skip
def test_what_dali_does_not_decode_is_not_stored_unchanged(data: bytes) -> None:
    assert storable(data) is None


def turned(data: bytes) -> bytes:
    """Put the orientation 6 into a JPEG."""
    exif = Image.Exif()
    exif[0x0112] = 6
    body = exif.tobytes()
    return data[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2) + body + data[2:]


@pytest.mark.parametrize("data", [imagecodecs.ljpeg_encode(DEEP, bitspersample=12), imagecodecs.jpegls_encode(DEEP)])
def test_the_orientation_counts(data: bytes) -> None:
    with opened(turned(data)) as picture:
        np.testing.assert_array_equal(picture.read(), np.rot90(DEEP, -1))
        assert (picture.turn, picture.converted) == (6, "turned upright")


def avif(name: bytes, number: int) -> bytes:
    """An AVIF of 10 bits whose box of bits a channel, of which decoders make no use, is one that turns or mirrors."""
    data = imagecodecs.avif_encode(RGB.astype(np.uint16) << 2, level=100, bitspersample=10)
    data, at = data.replace(b"\4\1\2\x83\4", b"\4\1\x82\x83\4"), data.index(b"pixi")  # the second of four is essential
    return data[:at] + name + bytes([number]) + data[at + 5 :]


@pytest.mark.parametrize("number", range(4))
def test_a_deep_avif_is_turned_as_pillow_turns_it(number: int) -> None:
    data = avif(b"irot", number)
    theirs = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    np.testing.assert_array_equal(theirs, np.rot90(RGB, number))
    with opened(data) as picture:
        np.testing.assert_array_equal(picture.read(), theirs.astype(np.uint16) << 2)
        assert picture.converted == "turned upright" * (number > 0)
    with pytest.raises(ValueError, match="an AVIF image of more than 8 bits that its header mirrors; save it as PNG"):
        opened(avif(b"imir", number & 1))


def netpbm(kind: str, top: int, array: np.ndarray) -> bytes:
    height, width = array.shape[:2]
    count = array.shape[2] if array.ndim == 3 else 1
    head = f"{kind}\n# by hand\n{width} {height}\n{top}\n"
    if kind == "P7":
        head = f"P7\nWIDTH {width}\nHEIGHT {height}\nDEPTH {count}\nMAXVAL {top}\nTUPLTYPE X\nENDHDR\n"
    return head.encode() + array.astype(">u2" if top > 255 else "u1").tobytes()


@pytest.mark.parametrize("top", [4095, 65535])
def test_deep_netpbm_equals_opencv(top: int) -> None:
    colours = np.dstack([DEEP, DEEP // 2, DEEP // 3])
    for kind, array in (("P5", DEEP), ("P6", colours)):
        data = netpbm(kind, top, array)
        theirs = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        with opened(data) as picture:
            np.testing.assert_array_equal(picture.read(), theirs if theirs.ndim == 2 else theirs[..., ::-1])
            assert picture.span == (0, top)


@pytest.mark.parametrize("kind", ["P2", "P3"])
@pytest.mark.parametrize("top", [256, 4095, 65535])
def test_deep_netpbm_in_text_equals_opencv(kind: str, top: int) -> None:
    array = (np.dstack([DEEP, DEEP // 2, DEEP // 3]) if kind == "P3" else DEEP).astype(int) * 16 % (top + 1)
    text = f"{kind} 40 24 {top}\n" + " ".join(map(str, array.ravel())) + "\n"
    theirs = cv2.imdecode(np.frombuffer(text.encode(), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(theirs if kind == "P2" else theirs[..., ::-1], array)
    remarks = f"{kind}# 1 2\n40\n#\n 24 # 5\r{top}\n" + " # 6\n7".join(text.split("\n")[1].split(" 7"))
    for data in (text, remarks):
        with opened(data.encode()) as picture:
            np.testing.assert_array_equal(picture.read(), array)
            assert (picture.dtype, picture.span) == (np.uint16, (0, top))


@pytest.mark.parametrize("gap", [" # one\n", "# one\n", "\n#\n# 7 7\n\t"])
def test_comments_stand_anywhere_in_the_header_of_deep_netpbm(gap: str) -> None:
    data = netpbm("P5", 4095, DEEP)
    head = f"{gap.join(['P5', '40', '24', '4095'])}\n".encode()
    with opened(head + data[-DEEP.nbytes :]) as picture:
        np.testing.assert_array_equal(picture.read(), DEEP)


@pytest.mark.parametrize("kind", ["P5", "P6", "P2", "P3"])
@pytest.mark.parametrize("top", [255, 100])
def test_netpbm_equals_pillow(kind: str, top: int) -> None:
    array = (RGB if kind in ("P6", "P3") else RGB[..., 0]).astype(int) % (top + 1)
    data = netpbm(kind, top, array)
    if kind in ("P2", "P3"):
        data = f"{kind} 40 24 {top}\n{' '.join(map(str, array.ravel()))}\n".encode()
    np.testing.assert_array_equal(from_bytes(data).array, np.rint(array * (255 / top)))
    np.testing.assert_array_equal(from_bytes(data).array, np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize(("array", "top", "expected", "converted"), [
    (RGB, 255, RGB, ""), (RGB[..., :1], 255, RGB[..., 0], ""), (np.dstack([RGB, RGB[..., 0]]), 255, RGB, "alpha dropped"),
    (RGB[..., :1] & 1, 1, (RGB[..., 0] & 1) * 255, ""), (RGB.astype(np.uint16) * 9, 4095, RGB.astype(np.uint16) * 9, ""),
], ids=["rgb", "gray", "rgba", "bits", "deep"])  # fmt: skip
def test_pam_is_read_as_it_was_written(array: np.ndarray, top: int, expected: np.ndarray, converted: str) -> None:
    with opened(netpbm("P7", top, array)) as picture:
        np.testing.assert_array_equal(picture.read(), expected)
        assert picture.converted == converted


@pytest.mark.parametrize(("data", "message"), [
    (netpbm("P5", 4095, DEEP)[:-9], r"truncated: 1,911 bytes of pixels of 1,920"),
    (netpbm("P7", 70_000, DEEP), "a header of 40x24 pixels of 1 channels up to 70000"),
    (b"P2 2 2 300 1 2 3", "truncated: 3 values of 4"), (b"P2 2 1 300 1 x", "damaged, or of an unknown sort"),
    (b"P2 2 1 300 1 301", "damaged: values from 1 to 301, and its header says 0 to 300"),
    (b"P7\nWIDTH 4\nENDHDR\n", "damaged, or of an unknown sort"),
    (imagecodecs.jpegls_encode(DEEP)[:-30], r"\w+"), (imagecodecs.jpegxl_encode(DEEP)[:30], r"\w+"),
], ids=["cut pgm", "pam of 70000", "cut text", "no number", "too large", "pam without height", "cut ls", "cut jxl"])  # fmt: skip
def test_files_that_cannot_be_read_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        opened(data)


@pytest.mark.parametrize("data", [
    imagecodecs.jpegxl_encode(RGB), imagecodecs.jpegxl_encode(np.zeros((24, 40), np.uint8)),
    imagecodecs.jpegxl_encode(np.zeros((31, 1007), np.uint8)), imagecodecs.jpegxl_encode(np.zeros((300, 300), np.uint16)),
    imagecodecs.jpegls_encode(DEEP), imagecodecs.ljpeg_encode(DEEP, bitspersample=12), netpbm("P6", 4095, RGB),
    imagecodecs.avif_encode(np.dstack([DEEP] * 3) // 4, bitspersample=10),
], ids=["jxl", "jxl small", "jxl odd", "jxl square", "ls", "sof3", "ppm", "avif"])  # fmt: skip
def test_a_large_image_is_refused_by_its_header(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(data) as picture:
        pixels = picture.height * picture.width
    monkeypatch.setattr(image, "MOST_PIXELS", pixels - 1)
    with pytest.raises(ValueError, match=r"\d+x\d+ pixels are more than"):
        opened(data)


@pytest.mark.parametrize("deep", [False, True])
def test_heic_is_nearly_what_it_was_made_of(deep: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    heif, buffer = pytest.importorskip("pillow_heif"), io.BytesIO()
    smooth = cv2.GaussianBlur(RGB, (0, 0), 5).astype(np.uint16 if deep else np.uint8)
    stored = smooth * 257 if deep else smooth
    heif.encode("RGB;16" if deep else "RGB", (40, 24), stored.tobytes(), buffer, quality=-1 if deep else 95)
    with opened(buffer.getvalue()) as picture:
        assert (picture.dtype, picture.colour) == (stored.dtype, True)
        assert np.abs(picture.read() / picture.span[1] - smooth / 255).max() < 0.03
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ValueError, match="HEIC images need pillow-heif: pip install pillow-heif"):
        opened(buffer.getvalue())


def test_a_frame_that_is_not_there_is_refused() -> None:
    data = b"P5 2 2 65535\n" + bytes(8)
    with pytest.raises(ValueError, match="no frame 3: the file has 1, numbered from 0"):
        open_image(Path("a.pgm"), Selection(frames=3), data)
