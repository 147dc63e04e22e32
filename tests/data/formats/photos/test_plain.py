"""Plain PNG and JPEG, whose headers are read without Pillow, against Pillow."""

import io
import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from medsass.data.formats.image import Selection
from medsass.data.formats.opening import from_bytes, open_image, storable
from medsass.data.formats.photos.plain import Png, plain_jpeg, plain_png, unfiltered

RNG = np.random.default_rng(0)
SHAPES = {"L": (13, 17), "RGB": (13, 17, 3), "RGBA": (13, 17, 4)}
RGB = RNG.integers(0, 256, (24, 40, 3), np.uint8)


def png(array: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def jpeg(array: np.ndarray, mode: str = "", **options: object) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(buffer, "JPEG", **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def exif() -> Image.Exif:
    made = Image.Exif()
    made[0x0112] = 6
    return made


@pytest.mark.parametrize("mode", SHAPES)
def test_pixels_are_pillows(mode: str) -> None:
    array = RNG.integers(0, 256, SHAPES[mode], np.uint8)
    data = png(array)
    assert plain_png(data) == (13, 17, len(mode))
    with open_image(Path("a.png"), data=data) as picture:
        assert isinstance(picture, Png)
        assert (picture.height, picture.width, picture.colour) == (13, 17, mode != "L")
        assert picture.converted == ("alpha dropped" if mode == "RGBA" else "")
        np.testing.assert_array_equal(picture.read(), array[..., :3] if array.ndim == 3 else array)


@given(st.sampled_from(list(SHAPES)), st.lists(st.integers(0, 2), min_size=24, max_size=24), st.data())
def test_filtered_rows_are_pillows(mode: str, filters: list[int], data: st.DataObject) -> None:
    """Rows of any bytes behind any filters that are undone here, as a PNG that Pillow reads."""
    held, stride = len(mode), 40 * len(mode)
    rows = np.frombuffer(data.draw(st.binary(min_size=24 * stride, max_size=24 * stride)), np.uint8).reshape(24, stride)
    filtered = np.hstack([np.array(filters, np.uint8)[:, None], rows])
    header = struct.pack(">IIBBBBB", 40, 24, 8, {1: 0, 3: 2, 4: 6}[held], 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(filtered.tobytes())), (b"IEND", b"")]
    file = b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)
    np.testing.assert_array_equal(unfiltered(filtered, held), np.asarray(Image.open(io.BytesIO(file))))


def test_filters_that_need_their_neighbours_are_left_to_libpng() -> None:
    rows = np.zeros((200, 9), np.uint8)
    for filters in ([3] * 200, [4] + [0] * 199):
        rows[:, 0] = filters
        assert unfiltered(rows, 1) is None


@pytest.mark.parametrize("name", ["NONE", "SUB", "UP", "AVG", "PAETH", "ALL"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_flat_pictures_are_pillows_and_checked(name: str, channels: int) -> None:
    flat = np.kron(RNG.integers(0, 2, (4, 5, channels), np.uint8) * 200, np.ones((50, 60, 1), np.uint8))
    flat = flat[..., 0] if channels == 1 else flat
    data = bytes(imagecodecs.png_encode(flat, filter=imagecodecs.PNG.FILTER[name]))
    with open_image(Path("a.png"), data=data) as picture:
        assert isinstance(picture, Png)
        np.testing.assert_array_equal(
            picture.read(), np.asarray(Image.open(io.BytesIO(data)))[..., :3] if channels > 1 else flat
        )
        assert picture.sure


def test_other_png_is_left_to_pillow() -> None:
    gray = RNG.integers(0, 256, (9, 9), np.uint8)
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", "<x/>")
    others = {
        "palette": _palette(gray),
        "16 bit": png(gray.astype(np.uint16) * 257),
        "transparent": png(gray, transparency=3),
        "turned": png(gray, exif=exif()),
        "metadata": png(gray, pnginfo=text),
        "jpeg": b"\xff\xd8\xff" + bytes(40),
        "short": png(gray)[:20],
    }
    assert {name: plain_png(data) for name, data in others.items()} == dict.fromkeys(others)


def with_chunk(name: bytes, content: bytes, before: bytes, pixels: bytes = b"") -> bytes:
    """A gray PNG (9, 16) that begins with `pixels`, in two uncompressed IDAT, with one more chunk before another."""
    rows = bytes(1) + pixels.ljust(16, b"\0") + bytes(8 * 17)
    packed = zlib.compress(rows, 0)
    parts = [(b"IDAT", packed[:5]), (b"IDAT", packed[5:]), (b"IEND", b"")]
    data = png(np.zeros((9, 16), np.uint8))[:33] + b"".join(chunk(*part) for part in parts)
    at = data.index(before) - 4
    return data[:at] + chunk(name, content) + data[at:]


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
@pytest.mark.parametrize(("name", "content", "plain"), [
    (b"tEXt", b"Comment\0nothing", True),
    (b"pHYs", bytes(9), True),
    (b"tRNS", b"\0\7", False),
    (b"acTL", bytes(8), False),
    (b"eXIf", b"II*\0" + bytes(10), False),
    (b"tEXt", b"Raw profile type exif\0\n", False),
    (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x/>", False),
])  # fmt: skip
def test_chunks_before_and_behind_the_pixels_count(name: bytes, content: bytes, plain: bool, before: bytes) -> None:
    assert plain_png(with_chunk(name, content, before)) == ((9, 16, 1) if plain else None)


def test_pixels_that_spell_the_name_of_a_chunk_do_not_count() -> None:
    data = with_chunk(b"tEXt", b"a\0b", b"IEND", b"xmp eXIf tRNS")
    assert from_bytes(data).array[0].tobytes() == b"xmp eXIf tRNS\0\0\0"
    assert plain_png(data) == (9, 16, 1)
    assert storable(data) == ("png", (9, 16), "")
    turn = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    turned = with_chunk(b"eXIf", turn, b"IEND", b"xmp")
    assert from_bytes(turned).converted == "turned upright"
    assert storable(turned) is None


@given(st.binary(max_size=60))
def test_any_bytes_behind_the_header_of_a_png_end(tail: bytes) -> None:
    data = png(np.zeros((9, 9), np.uint8))[:33] + tail
    named = any(name in tail for name in (b"tRNS", b"acTL", b"eXIf", b"exif", b"xmp"))
    assert plain_png(data) == (None if named else (9, 9, 1))


def _palette(gray: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(gray).convert("P").save(buffer, "PNG")
    return buffer.getvalue()


def test_chosen_channels_are_left_to_pillow() -> None:
    array = RNG.integers(0, 256, (5, 6, 3), np.uint8)
    with open_image(Path("a.png"), Selection(channels=(2,)), png(array)) as picture:
        np.testing.assert_array_equal(picture.read(), array[..., 2])


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.9])
def test_truncated_file_is_refused(cut: float) -> None:
    data = png(RNG.integers(0, 256, (40, 40), np.uint8))
    with pytest.raises(ValueError, match="truncated PNG file"):
        from_bytes(data[: int(len(data) * cut)])


def test_any_changed_byte_of_the_pixels_is_refused() -> None:
    data = png(RNG.integers(0, 256, (20, 20), np.uint8))
    begin = data.index(b"IDAT") + 4
    for at in range(begin, begin + int.from_bytes(data[begin - 8 : begin - 4]), 37):
        with pytest.raises(ValueError, match="copy it again"):
            from_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


def test_header_that_claims_too_many_pixels_is_refused_before_decoding() -> None:
    data = bytearray(png(np.zeros((2, 2), np.uint8)))
    data[16:24] = (60_000).to_bytes(4) * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4)
    with pytest.raises(ValueError, match="60000x60000 pixels are more than the 178,956,970"):
        from_bytes(bytes(data))


def test_real_masks_and_images_are_pillows(real_data: Path) -> None:
    case = sorted((real_data / "dsb2018" / "stage1_train").iterdir())[0]
    paths = [(path, "L") for path in sorted((case / "masks").iterdir())[:5]]
    for path, mode in [*paths, *((path, "RGB") for path in (case / "images").iterdir())]:
        assert plain_png(path.read_bytes())
        np.testing.assert_array_equal(from_bytes(path.read_bytes()).array, np.asarray(Image.open(path).convert(mode)))


@pytest.mark.parametrize(
    "data",
    [
        jpeg(RGB), jpeg(RGB[..., 0]), jpeg(RGB, progressive=True), jpeg(RGB, subsampling=2, quality=5),
        jpeg(RGB, comment=b"\xff\xc0 words"), jpeg(RGB, dpi=(300, 300)), jpeg(RGB, icc_profile=bytes(70_000)),
    ],
    ids=["RGB", "gray", "progressive", "subsampled", "comment", "dpi", "profile"],
)  # fmt: skip
def test_the_size_of_a_plain_jpeg_is_pillows(data: bytes) -> None:
    with Image.open(io.BytesIO(data)) as image:
        assert plain_jpeg(data) == (image.height, image.width) == (24, 40)


@pytest.mark.parametrize(
    "data",
    [jpeg(RGB, exif=exif()), jpeg(RGB, "CMYK"), jpeg(RGB)[:150], b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n" + bytes(60)],
    ids=["turned", "CMYK", "no frame", "empty", "begin", "PNG"],
)  # fmt: skip
def test_other_jpeg_is_left_to_pillow(data: bytes) -> None:
    assert plain_jpeg(data) is None


@given(st.binary(max_size=60))
def test_any_bytes_of_a_jpeg_end(tail: bytes) -> None:
    found = plain_jpeg(b"\xff\xd8\xff" + tail)
    assert found is None or min(found) > 0


def test_real_jpeg_is_pillows(real_data: Path) -> None:
    paths = sorted((real_data / "isic2017" / "ISIC-2017_Validation_Data").glob("*.jpg"))
    paths += sorted((real_data / "isic2017_fullsize" / "ISIC-2017_Validation_Data").glob("*.jpg"))
    known = 0
    for path in paths:
        with Image.open(path) as image:
            found = plain_jpeg(path.read_bytes())
            assert found in (None, (image.height, image.width))
            known += found is not None
    assert known >= 150
