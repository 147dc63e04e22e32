"""The commonest PNG, read without Pillow, against Pillow."""

import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from medsass.data.formats import pngs
from medsass.data.formats.opening import Selection, from_bytes, open_image

GENERATOR = np.random.default_rng(0)
SHAPES = {"L": (13, 17), "RGB": (13, 17, 3), "RGBA": (13, 17, 4)}


def encoded(array: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", **options)  # type: ignore[arg-type]
    return buffer.getvalue()


@pytest.mark.parametrize("mode", SHAPES)
def test_pixels_are_pillows(mode: str) -> None:
    array = GENERATOR.integers(0, 256, SHAPES[mode], np.uint8)
    data = encoded(array)
    assert pngs.plain(data) == (13, 17, len(mode))
    with open_image(Path("a.png"), data=data) as picture:
        assert isinstance(picture, pngs.Png)
        assert (picture.height, picture.width, picture.colour) == (13, 17, mode != "L")
        assert picture.converted == ("alpha dropped" if mode == "RGBA" else "")
        np.testing.assert_array_equal(picture.read(), array[..., :3] if array.ndim == 3 else array)


def test_other_png_is_left_to_pillow() -> None:
    gray = GENERATOR.integers(0, 256, (9, 9), np.uint8)
    exif, text = Image.Exif(), PngImagePlugin.PngInfo()
    exif[0x0112] = 6
    text.add_itxt("XML:com.adobe.xmp", "<x/>")
    others = {
        "palette": _palette(gray),
        "16 bit": encoded(gray.astype(np.uint16) * 257),
        "transparent": encoded(gray, transparency=3),
        "turned": encoded(gray, exif=exif),
        "metadata": encoded(gray, pnginfo=text),
        "jpeg": b"\xff\xd8\xff" + bytes(40),
        "short": encoded(gray)[:20],
    }
    assert {name: pngs.plain(data) for name, data in others.items()} == dict.fromkeys(others)


def _palette(gray: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(gray).convert("P").save(buffer, "PNG")
    return buffer.getvalue()


def test_chosen_channels_are_left_to_pillow() -> None:
    array = GENERATOR.integers(0, 256, (5, 6, 3), np.uint8)
    with open_image(Path("a.png"), Selection(channels=(2,)), encoded(array)) as picture:
        np.testing.assert_array_equal(picture.read(), array[..., 2])


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.9])
def test_truncated_file_is_refused(cut: float) -> None:
    data = encoded(GENERATOR.integers(0, 256, (40, 40), np.uint8))
    with pytest.raises(ValueError, match="truncated PNG file"):
        from_bytes(data[: int(len(data) * cut)])


def test_any_changed_byte_of_the_pixels_is_refused() -> None:
    data = encoded(GENERATOR.integers(0, 256, (20, 20), np.uint8))
    begin = data.index(b"IDAT") + 4
    for at in range(begin, begin + int.from_bytes(data[begin - 8 : begin - 4]), 37):
        with pytest.raises(ValueError, match="PNG file"):
            from_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


def test_header_that_claims_too_many_pixels_is_refused_before_decoding() -> None:
    data = bytearray(encoded(np.zeros((2, 2), np.uint8)))
    data[16:24] = (60_000).to_bytes(4) * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4)
    with pytest.raises(ValueError, match="60000x60000 pixels are more than the 178,956,970"):
        from_bytes(bytes(data))


def test_real_masks_and_images_are_pillows(real_data: Path) -> None:
    case = sorted((real_data / "dsb2018" / "stage1_train").iterdir())[0]
    paths = [(path, "L") for path in sorted((case / "masks").iterdir())[:5]]
    for path, mode in [*paths, *((path, "RGB") for path in (case / "images").iterdir())]:
        assert pngs.plain(path.read_bytes())
        np.testing.assert_array_equal(from_bytes(path.read_bytes()).array, np.asarray(Image.open(path).convert(mode)))
