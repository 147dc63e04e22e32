"""The colours of JPEG 2000 files that shards keep: DALI, which reads them for training, against Pillow and OpenCV."""

import io
import struct
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
from PIL import Image

from medsass.data.dali import decode
from medsass.data.formats.opening import from_bytes, storable

RGB = cv2.resize(np.random.default_rng(0).integers(60, 200, (6, 8, 3), np.uint8), (80, 64))
GRAY = RGB[..., 0].copy()
SRGB, GREYSCALE, SYCC = 16, 17, 18  # enumerated colour spaces


def jp2(array: np.ndarray, space: int | None = None, **options: object) -> bytes:
    """A file by Pillow, its components stored as they are, with another number of its colour space."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "JPEG2000", mct=0, **options)
    data = bytearray(buffer.getvalue())
    if space is not None:
        struct.pack_into(">I", data, data.index(b"colr") + 7, space)
    return bytes(data)


def with_box(data: bytes, kind: bytes, content: bytes) -> bytes:
    """The file with one more box at the end of its header."""
    at = data.index(b"jp2h") - 4
    length = int.from_bytes(data[at : at + 4])
    box = struct.pack(">I", 8 + len(content)) + kind + content
    return data[:at] + struct.pack(">I", length + len(box)) + data[at + 4 : at + length] + box + data[at + length :]


@pytest.mark.parametrize("data", [jp2(RGB, SRGB), jp2(RGB), jp2(RGB, no_jp2=True)], ids=["sRGB", "Pillow's", "bare"])
def test_srgb_is_kept_and_dali_gives_its_colours(data: bytes) -> None:
    assert storable(data) == ("jp2", (64, 80), "")
    np.testing.assert_array_equal(decode(data), RGB)


def test_gray_is_kept_and_dali_gives_its_values() -> None:
    data = jp2(GRAY, GREYSCALE)
    assert storable(data) == ("jp2", (64, 80), "")
    np.testing.assert_array_equal(decode(data)[..., 1], GRAY)


@pytest.mark.parametrize(
    "data", [jp2(GRAY, no_jp2=True), jp2(GRAY).replace(b"colr\1", b"colr\2")], ids=["bare", "profile"]
)
def test_gray_that_is_not_said_to_be_gray_is_encoded_anew_because_dali_refuses_it(data: bytes) -> None:
    np.testing.assert_array_equal(from_bytes(data).array, GRAY)
    with pytest.raises(ValueError, match="DALI"):
        decode(data)
    assert storable(data) is None


def test_sycc_is_encoded_anew_because_dali_gives_other_colours(tmp_path: Path) -> None:
    components = np.ascontiguousarray(cv2.cvtColor(RGB, cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]])
    (tmp_path / "a.jp2").write_bytes(data := jp2(components, SYCC))
    got = from_bytes(data).array
    np.testing.assert_array_equal(got, np.asarray(Image.open(tmp_path / "a.jp2")))
    assert np.abs(got.astype(int) - RGB).max() <= 2
    assert np.abs(decode(data).astype(int) - RGB).max() > 10
    assert storable(data) is None


@pytest.mark.parametrize("space", [0, 1, 12, 14, 15, GREYSCALE, SYCC, 20, 21, 24])
def test_other_spaces_than_srgb_are_encoded_anew(space: int) -> None:
    assert storable(jp2(RGB, space)) is None


@pytest.mark.parametrize("space", [SRGB, SYCC])
def test_gray_of_a_space_of_colours_is_encoded_anew(space: int) -> None:
    assert storable(jp2(GRAY, space)) is None


def test_what_changes_channels_is_encoded_anew_and_a_profile_is_kept() -> None:
    swapped = with_box(jp2(RGB), b"cdef", struct.pack(">10H", 3, 0, 0, 3, 1, 0, 2, 2, 0, 1))
    np.testing.assert_array_equal(imagecodecs.jpeg2k_decode(swapped), RGB[..., ::-1])
    assert storable(swapped) is None
    assert storable(with_box(jp2(RGB), b"xml ", b"<a/>")) == ("jp2", (64, 80), "")
    assert storable(jp2(RGB).replace(b"colr\1", b"colr\2")) == ("jp2", (64, 80), "")
    assert storable(with_box(jp2(RGB), b"colr", struct.pack(">BBBI", 1, 0, 0, SYCC))) is None


def test_components_of_several_sizes_are_encoded_anew() -> None:
    for data in (jp2(RGB), jp2(RGB, no_jp2=True)):
        halved = bytearray(data)
        at = halved.index(b"\xff\x4f\xff\x51") + 42
        assert halved[at : at + 9] == b"\7\1\1" * 3
        halved[at + 4 : at + 6] = halved[at + 7 : at + 9] = b"\2\2"
        assert storable(bytes(halved)) is None
