"""The header of the commonest JPEG, read without Pillow, against Pillow."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from medsass.data.formats import jpegs

RGB = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)


def encoded(array: np.ndarray, mode: str = "", **options: object) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(buffer, "JPEG", **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def exif() -> Image.Exif:
    made = Image.Exif()
    made[0x0112] = 6
    return made


@pytest.mark.parametrize(
    "data",
    [
        encoded(RGB), encoded(RGB[..., 0]), encoded(RGB, progressive=True), encoded(RGB, subsampling=2, quality=5),
        encoded(RGB, comment=b"\xff\xc0 words"), encoded(RGB, dpi=(300, 300)), encoded(RGB, icc_profile=bytes(70_000)),
    ],
    ids=["RGB", "gray", "progressive", "subsampled", "comment", "dpi", "profile"],
)  # fmt: skip
def test_size_is_pillows(data: bytes) -> None:
    with Image.open(io.BytesIO(data)) as image:
        assert jpegs.plain(data) == (image.height, image.width) == (24, 40)


@pytest.mark.parametrize(
    "data",
    [encoded(RGB, exif=exif()), encoded(RGB, "CMYK"), encoded(RGB)[:150], b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n" + bytes(60)],
    ids=["turned", "CMYK", "no frame", "empty", "begin", "PNG"],
)  # fmt: skip
def test_other_files_are_left_to_pillow(data: bytes) -> None:
    assert jpegs.plain(data) is None


@given(st.binary(max_size=60))
def test_any_bytes_end(tail: bytes) -> None:
    found = jpegs.plain(b"\xff\xd8\xff" + tail)
    assert found is None or min(found) > 0


def test_real_files_are_pillows(real_data: Path) -> None:
    paths = sorted((real_data / "isic2017" / "ISIC-2017_Validation_Data").glob("*.jpg"))
    paths += sorted((real_data / "isic2017_fullsize" / "ISIC-2017_Validation_Data").glob("*.jpg"))
    known = 0
    for path in paths:
        with Image.open(path) as image:
            found = jpegs.plain(path.read_bytes())
            assert found in (None, (image.height, image.width))
            known += found is not None
    assert known >= 150
