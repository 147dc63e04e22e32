"""Photographic formats against Pillow, OpenCV, imagecodecs and the arrays that were written."""

import io
import struct
import tracemalloc
import zlib
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
from PIL import Image

from medsass.data.dali import decode
from medsass.data.formats.geometry import Box
from medsass.data.formats.image import WHOLE_FILE, Selection
from medsass.data.formats.opening import open_image, storable

RGB = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8), (0, 0), 2)
DEEP = np.random.default_rng(1).integers(0, 65536, (24, 40, 4), np.uint16)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    parts = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def header(width: int, height: int, kind: bytes = b"\x08\x02") -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">II", width, height) + kind + b"\0\0\0"


def read(data: bytes, view: Selection = WHOLE_FILE) -> np.ndarray:
    with open_image(Path("image"), view, data) as picture:
        array = picture.read()
        assert array.dtype == picture.dtype
        assert array.shape == (
            (picture.height, picture.width, 3) if picture.colour else (picture.height, picture.width)
        )
        return array


def test_a_picture_tells_what_it_is_before_it_is_read() -> None:
    with open_image(Path("image"), data=saved(Image.fromarray(RGB), "JPEG")) as picture:
        assert (picture.height, picture.width, picture.colour, picture.dtype) == (24, 40, True, np.uint8)
        assert (picture.frames, picture.levels, picture.streams, picture.limits) == (1, ((24, 40),), False, None)
        assert (picture.converted, picture.span, picture.per_channel) == ("", (0, 255), False)


@pytest.mark.parametrize("space", ["CMYK", "YCCK"])
def test_cmyk_jpeg_as_adobe_writes_it_equals_opencv(space: str) -> None:
    inks = 255 - np.asarray(Image.fromarray(RGB).convert("CMYK"))  # Adobe stores them inverted
    if space == "YCCK":
        data = imagecodecs.jpeg8_encode(inks, level=95, colorspace="CMYK", outcolorspace="YCCK")
    else:
        data = saved(Image.fromarray(RGB).convert("CMYK"), "JPEG", quality=95)
    theirs = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB).astype(int)
    assert np.abs(read(data) - theirs).max() <= 1
    assert np.abs(read(data) - RGB.astype(int)).mean() < 3  # and it looks like what was saved
    assert storable(data) is None


def test_palette_with_transparency_is_read_as_rgb() -> None:
    image = Image.fromarray(RGB).quantize(16)
    data = saved(image, "PNG", transparency=bytes([0, 128] + [255] * 14))
    assert Image.open(io.BytesIO(data)).info["transparency"][:2] == b"\0\x80"
    np.testing.assert_array_equal(read(data), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_shallow_gray_png_takes_the_whole_range_as_opencv_does(bits: int) -> None:
    raw = b"".join(b"\0" + bytes(row) for row in np.random.default_rng(2).integers(0, 256, (8, 5)).tolist())
    data = png(header(5 * 8 // bits, 8, bytes([bits, 0])), (b"IDAT", zlib.compress(raw)), (b"IEND", b""))
    theirs = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(read(data), theirs)
    assert theirs.max() == 255


@pytest.mark.parametrize(("channels", "expected"), [
    (1, DEEP[..., 0]), (2, DEEP[..., 0]), (3, DEEP[..., :3]), (4, DEEP[..., :3]),
])  # fmt: skip
def test_16_bit_png_of_any_kind_keeps_its_depth(channels: int, expected: np.ndarray) -> None:
    data = imagecodecs.png_encode(np.ascontiguousarray(DEEP[..., 0] if channels == 1 else DEEP[..., :channels]))
    assert data[24] == 16
    np.testing.assert_array_equal(read(data), expected)
    with open_image(Path("image"), data=data) as picture:
        assert picture.converted == ("alpha dropped" if channels in (2, 4) else "")


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("colour", [False, True])
def test_deep_jpeg_2000_keeps_its_depth(bits: int, colour: bool) -> None:
    array = (DEEP[..., :3] if colour else DEEP[..., 0]) >> (16 - bits)
    data = imagecodecs.jpeg2k_encode(np.ascontiguousarray(array), level=0, bitspersample=bits)
    np.testing.assert_array_equal(read(data), array)
    assert storable(data) is None
    with open_image(Path("image"), data=data) as picture:
        assert picture.span == (0, 2**bits - 1)
    for share in (0.3, 0.9, 0.99):
        with pytest.raises(ValueError, match=r"\w+ \w+"):
            read(data[: int(share * len(data))])


@pytest.mark.parametrize("bits", [1, 2, 4, 7])
@pytest.mark.parametrize("colour", [False, True])
def test_jpeg_2000_of_few_bits_keeps_its_values_and_is_shown_in_the_whole_range(bits: int, colour: bool) -> None:
    array = (RGB if colour else RGB[..., 0]) >> (8 - bits)
    data = imagecodecs.jpeg2k_encode(np.ascontiguousarray(array), level=0, bitspersample=bits)
    np.testing.assert_array_equal(read(data, Selection(mask=True, raw=True)), array)
    np.testing.assert_array_equal(read(data), np.rint(array * (255 / (2**bits - 1))))
    assert storable(data) is None


def test_signed_jpeg_2000_is_signed() -> None:
    array = (RGB[..., 0] ^ 128).view(np.int8)
    data = imagecodecs.jpeg2k_encode(array, level=0)
    np.testing.assert_array_equal(imagecodecs.jpeg2k_decode(data), array)
    np.testing.assert_array_equal(read(data), array)
    assert storable(data) is None


@pytest.mark.parametrize("turn", [1, 6])
def test_the_orientation_of_a_jpeg_is_that_of_its_exif_not_of_its_xmp(turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="3"/></x:xmpmeta>'
    for options in ({"xmp": xmp}, {"xmp": xmp, "exif": exif}):
        data = saved(Image.fromarray(RGB), "JPEG", **options)
        by_exif = turn if "exif" in options else 1
        truth = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)  # which turns by EXIF alone
        assert truth.shape == ((40, 24, 3) if by_exif == 6 else (24, 40, 3))
        with open_image(Path("image"), data=data) as picture:
            assert picture.turn == by_exif
            assert np.abs(picture.read().astype(int) - truth).max() <= 3
        assert storable(data) == (("jpg", (24, 40), "") if by_exif == 1 else None)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("kind", "letter"), [(1, "B"), (3, "H"), (4, "I"), (6, "b"), (7, "B"), (8, "h"), (9, "i")])
def test_a_jpeg_is_turned_as_dali_and_opencv_do_whatever_the_type_of_its_tag(
    kind: int, letter: str, order: str
) -> None:
    plain = saved(Image.fromarray(RGB), "JPEG", quality=95)
    for turn, count in ((3, 1), (6, 1), (6, 2), (9, 1)):
        exif = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HIHHHI", 42, 8, 1, 0x0112, kind, count)
        exif = b"Exif\0\0" + exif + struct.pack(f"{order}{letter}", turn).ljust(4, b"\0") + bytes(4)
        data = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:]
        truth = decode(data)
        with open_image(Path("image"), data=data) as picture:
            assert np.abs(picture.read().astype(int) - truth).max() <= 3
            np.testing.assert_array_equal(truth.shape, cv2.imdecode(np.frombuffer(data, np.uint8), 1).shape)
            assert (storable(data) is None) == (picture.turn != 1)


def test_orientation_at_the_end_of_a_png_is_found_also_at_16_bits() -> None:
    exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in DEEP[..., :3])
    data = png(header(40, 24, b"\x10\x02"), (b"IDAT", zlib.compress(raw)), (b"eXIf", exif), (b"IEND", b""))
    np.testing.assert_array_equal(read(data), np.rot90(DEEP[..., :3], -1))


@pytest.mark.parametrize(("channels", "expected"), [
    ((1,), RGB[..., 1]), ((2, 1, 0), RGB[..., ::-1]), ((0, -1, 2), RGB * np.uint8([1, 0, 1])),
])  # fmt: skip
def test_channels_are_chosen(channels: tuple[int, ...], expected: np.ndarray) -> None:
    np.testing.assert_array_equal(read(saved(Image.fromarray(RGB), "PNG"), Selection(channels=channels)), expected)


def test_alpha_can_be_chosen() -> None:
    image = np.dstack([RGB, RGB[..., 0] // 2])
    np.testing.assert_array_equal(read(saved(Image.fromarray(image), "PNG"), Selection(channels=(3,))), image[..., 3])


@pytest.mark.parametrize("channels", [(3,), (0, 1), (-1,), (0, 1, -2)])
def test_channels_that_are_not_there_are_refused(channels: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must be one or three of the file's 3, numbered from 0; -1 is black"):
        read(saved(Image.fromarray(RGB), "PNG"), Selection(channels=channels))


def test_another_pyramid_level_is_refused() -> None:
    with pytest.raises(ValueError, match="no pyramid level 1: the file has level 0 only"):
        read(saved(Image.fromarray(RGB), "PNG"), Selection(level=1))


def test_boxes_are_parts_of_the_frame_and_the_frame_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_image(Path("image"), data=saved(Image.fromarray(RGB), "PNG")) as picture:
        decode, calls = picture._decode, []
        monkeypatch.setattr(picture, "_decode", lambda *args: calls.append(args) or decode(*args))
        np.testing.assert_array_equal(picture.read(0, Box(3, 5, 7, 9)), RGB[3:10, 5:14])
        np.testing.assert_array_equal(picture.read(0, Box(20, 30, 4, 10)), RGB[20:, 30:])
        assert len(calls) == 1
        with pytest.raises(ValueError, match="not within the image of 40x24 pixels"):
            picture.read(0, Box(20, 30, 5, 10))
        with pytest.raises(ValueError, match="no frame 1: there are 1"):
            picture.read(1)


def bmp(width: int, height: int) -> bytes:
    return (
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(46)
    )


def jpeg(width: int, height: int) -> bytes:
    data = saved(Image.fromarray(RGB), "JPEG")
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def webp(width: int, height: int) -> bytes:
    sizes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", 1000) + b"WEBPVP8X" + struct.pack("<I", 10) + b"\x10\0\0\0" + sizes + bytes(900)


def webp_lossless(width: int, height: int) -> bytes:
    data = bytearray(imagecodecs.webp_encode(RGB, lossless=True))
    data[21:25] = ((width - 1) | (height - 1) << 14).to_bytes(4, "little")
    return bytes(data)


def jpeg2000(width: int, height: int) -> bytes:
    data = bytearray(imagecodecs.jpeg2k_encode(RGB, level=0, codecformat="j2k"))
    data[8:16] = struct.pack(">II", width, height)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (png(header(60_000, 60_000), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")), "60000x60000"),
        (png(header(60_000, 60_000, b"\x10\x02"), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")), "60000x60000"),
        (png(header(13_378, 13_377), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")), "13378x13377"),
        (bmp(60_000, 60_000), "60000x60000"),
        (jpeg(60_000, 60_000), "60000x60000"),
        (webp(16_383, 16_383), "16383x16383"),
        (webp_lossless(16_383, 16_383), "16383x16383"),
        (jpeg2000(60_000, 60_000), "60000x60000"),
    ],
    ids=["png", "png 16 bit", "just too large", "bmp", "jpeg", "webp", "webp lossless", "jpeg 2000"],
)
def test_an_image_too_large_to_decode_is_refused_from_its_header(data: bytes, size: str) -> None:
    tracemalloc.start()
    with pytest.raises(
        ValueError, match=rf"{size} pixels are more than the 178,956,970 .* tiled TIFF or a slide .* --tile"
    ):
        open_image(Path("image"), data=data)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()
    storable(data)  # and this does not decode it either


def test_real_photographs_equal_pillow(real_data: Path) -> None:
    paths = (
        sorted((real_data / "isic2017").rglob("*.jpg"))[:10] + sorted((real_data / "dsb2018").rglob("images/*.png"))[:5]
    )
    for path in paths:
        with open_image(path) as picture:
            np.testing.assert_array_equal(picture.read(), np.asarray(Image.open(path).convert("RGB")))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_frames_of_an_animation_are_read_where_they_are_asked_for(kind: str) -> None:
    colours = [(250, 3, 7), (5, 240, 9), (10, 20, 230)]
    pages = [Image.new("RGB", (40, 24), colour) for colour in colours]
    buffer = io.BytesIO()
    pages[0].save(
        buffer, kind, save_all=True, append_images=pages[1:], **({"lossless": True} if kind == "WEBP" else {})
    )
    with open_image(Path(), data=buffer.getvalue()) as picture:
        assert (picture.frames, picture.total) == (1, 3)
        assert picture.converted.startswith("first of 3 frames")
        np.testing.assert_array_equal(picture.read()[5, 5], colours[0])
    with open_image(Path(), Selection(frames="all"), buffer.getvalue()) as picture:
        for frame in (2, 0, 1):
            np.testing.assert_array_equal(picture.read(frame)[5, 5], colours[frame])
    with open_image(Path(), Selection(frames=1), buffer.getvalue()) as picture:
        np.testing.assert_array_equal(picture.read()[5, 5], colours[1])
        assert picture.converted.startswith("frame 1 of 3")


@pytest.mark.parametrize("colours", [1, 4, 15])
def test_an_index_without_a_colour_is_refused(colours: int) -> None:
    rows = b"".join(b"\0" + row.tobytes() for row in np.arange(16, dtype=np.uint8).reshape(4, 4))
    data = png(header(4, 4, b"\x08\x03"), (b"PLTE", bytes(3 * colours)), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    with pytest.raises(ValueError, match=f"pixels of colour 15, and a palette of colours 0 to {colours - 1}; save it"):
        read(data)
    np.testing.assert_array_equal(read(data, Selection(mask=True, raw=True)).ravel(), range(16))
