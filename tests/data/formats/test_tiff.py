"""TIFF files of every kind against the arrays that were written, Pillow and OpenCV."""

import io
import struct
import threading
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from medsass.data.formats.geometry import Box
from medsass.data.formats.opening import open_image
from tests.data.formats.tiffs import GRAY, RGB, RNG, STORES, check, opened, tiff
from tests.support.effort import examples


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("from_memory", [False, True])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("array", [GRAY, RGB], ids=["gray", "rgb"])
def test_regions_equal_the_array_however_it_is_stored(
    store: str, from_memory: bool, byteorder: str, array: np.ndarray, tmp_path: Path
) -> None:
    options = {"photometric": "rgb"} if array.ndim == 3 else {}
    data = tiff(array, byteorder=byteorder, **options, **STORES[store])
    with opened(data, tmp_path, from_memory=from_memory) as picture:
        assert picture.streams == (store != "one strip")
        check(picture, array)
        assert picture.converted == ""


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("kind", ["uint8", "int8", "int16", "uint32", "int32", "float16", "float32", "float64"])
def test_every_real_type_is_read(kind: str, store: str, tmp_path: Path) -> None:
    array = (RNG.normal(size=(70, 90)) * 50).astype(kind)
    with opened(tiff(array, **STORES[store]), tmp_path) as picture:
        check(picture, array)


def test_complex_pixels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pixels of type complex64 are not supported"):
        opened(tiff(GRAY.astype(np.complex64)), tmp_path)


@pytest.mark.parametrize("store", STORES)
def test_planes_stored_apart_are_put_together(store: str, tmp_path: Path) -> None:
    data = tiff(np.moveaxis(RGB, -1, 0), photometric="rgb", planarconfig="separate", **STORES[store])
    with opened(data, tmp_path) as picture:
        check(picture, RGB)


@pytest.mark.parametrize("store", ["flat", "strips", "tiles"])
def test_zero_is_white_is_inverted(store: str, tmp_path: Path) -> None:
    with opened(tiff(GRAY, photometric="miniswhite", **STORES[store]), tmp_path) as picture:
        check(picture, 65535 - GRAY)
        assert picture.converted == "inverted (zero is white)"
    table = np.linspace(65535, 0, 256).astype(np.uint16) * np.ones((3, 1), np.uint16)
    data = tiff(RGB[..., 0], photometric="palette", colormap=table, **STORES[store])
    with opened(data, tmp_path) as picture:
        np.testing.assert_array_equal(picture.read(), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
        assert picture.converted == "palette to RGB"


@pytest.mark.parametrize("compression", [None, "group4", "tiff_lzw"])
@pytest.mark.parametrize("inverted", [False, True])
def test_bilevel_equals_pillow(compression: str | None, inverted: bool, tmp_path: Path) -> None:
    image = Image.fromarray(GRAY > 30_000)
    image.save(tmp_path / "a.tif", compression=compression, tiffinfo={262: 0 if inverted else 1})
    with open_image(tmp_path / "a.tif") as picture:
        check(picture, np.asarray(Image.open(tmp_path / "a.tif").convert("L")))
        assert picture.converted.startswith("bilevel to gray")


def test_4_bit_gray_takes_the_whole_range_as_pillow_does(tmp_path: Path) -> None:
    packed = RNG.integers(0, 256, (20, 10), np.uint8)
    data = bytearray(tiff(packed))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        for name, value in (("ImageWidth", 20), ("BitsPerSample", 4)):
            struct.pack_into("<H", data, file.pages.first.tags[name].valueoffset, value)
    with opened(bytes(data), tmp_path) as picture:
        check(picture, np.dstack([packed >> 4, packed & 15]).reshape(20, 20) * np.uint8(17))
        np.testing.assert_array_equal(picture.read(), np.asarray(Image.open(tmp_path / "image.tif").convert("L")))
        assert picture.converted == "4 bit to 8 bit"


@pytest.mark.parametrize("mode", ["P", "CMYK", "LAB", "YCbCr"])
def test_other_colour_models_equal_pillow(mode: str, tmp_path: Path) -> None:
    image = Image.fromarray(RGB)
    if mode == "LAB":
        image = Image.frombytes("LAB", image.size, image.tobytes())
    else:
        image = image.quantize(50) if mode == "P" else image.convert(mode)
    image.save(tmp_path / "a.tif")
    with open_image(tmp_path / "a.tif") as picture:
        check(picture, np.asarray(Image.open(tmp_path / "a.tif").convert("RGB")))
        assert "to RGB" in picture.converted


@pytest.mark.parametrize("tile", [None, (32, 32)])
def test_jpeg_in_tiff_equals_pillow(tile: tuple[int, int] | None, tmp_path: Path) -> None:
    smooth = cv2.GaussianBlur(RGB, (0, 0), 3)
    with opened(tiff(smooth, photometric="rgb", compression="jpeg", tile=tile), tmp_path) as picture:
        assert picture.streams == (tile is not None)
        check(picture, np.asarray(Image.open(tmp_path / "image.tif").convert("RGB")))
        assert np.abs(picture.read().astype(int) - smooth).max() < 25


@pytest.mark.parametrize("store", ["flat", "tiles", "one strip"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_orientation_is_applied_to_files_and_regions(turn: int, store: str, tmp_path: Path) -> None:
    upright = {1: RGB, 2: RGB[:, ::-1], 3: RGB[::-1, ::-1], 4: RGB[::-1], 5: RGB.swapaxes(0, 1),
               6: np.rot90(RGB, -1), 7: np.rot90(RGB, 2).swapaxes(0, 1), 8: np.rot90(RGB)}[turn]  # fmt: skip
    data = tiff(RGB, photometric="rgb", extratags=[(274, 3, 1, turn, True)], **STORES[store])
    with opened(data, tmp_path) as picture:
        check(picture, upright)
        assert picture.converted == ("" if turn == 1 else "turned upright")
        assert picture.levels == (upright.shape[:2],)
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "image.tif")), upright)


def test_orientation_of_a_file_that_pillow_reads_is_applied_once(tmp_path: Path) -> None:
    Image.fromarray(RGB).convert("YCbCr").save(tmp_path / "a.tif", tiffinfo={274: 6})
    with open_image(tmp_path / "a.tif") as picture:
        check(picture, np.asarray(Image.open(tmp_path / "a.tif").convert("RGB")))
        assert (picture.height, picture.turn, picture.converted) == (90, 6, "YCbCr to RGB, turned upright")


@pytest.mark.parametrize("store", [*STORES, "jpeg", "jpeg2000", "packbits"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_files_are_refused(store: str, share: float, tmp_path: Path) -> None:
    options = STORES.get(store) or ({} if store == "flat" else {"compression": store, "tile": (32, 32)})
    data = tiff(RGB, photometric="rgb", **options)
    for from_memory in (False, True):
        with (
            pytest.raises(ValueError, match=r"\w+"),
            opened(data[: int(len(data) * share)], tmp_path, from_memory=from_memory) as picture,
        ):
            picture.read(0, Box(0, 0, 70, 89))


@pytest.mark.parametrize("compression", ["jpeg", "lzw"])
def test_a_file_that_lacks_its_last_bytes_is_refused(compression: str, tmp_path: Path) -> None:
    data = tiff(RGB, photometric="rgb", compression=compression, tile=(32, 32))
    with pytest.raises(ValueError, match=r"truncated: the file has [\d,]+ bytes of [\d,]+"):
        opened(data[:-3], tmp_path)


def huge(width: int, height: int, rows: int, tile: int = 0) -> bytes:
    """A TIFF file of few bytes whose header tells of many pixels."""
    count = -(-height // rows) if not tile else 2
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)]
    entries += [(322, 4, 1, tile), (323, 4, 1, tile)] if tile else [(278, 4, 1, rows)]
    start = 8 + 2 + 12 * (len(entries) + 2) + 4
    entries += [
        (324 if tile else 273, 4, count, start if count > 1 else 8),
        (325 if tile else 279, 4, count, start + 4 * count if count > 1 else 4),
    ]
    body = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4) + b"\x08\0\0\0" * (2 * count)


@pytest.mark.parametrize("data", [huge(60_000, 60_000, 60_000), huge(60_000, 60_000, 1, 60_000)], ids=["strip", "tile"])
def test_an_image_too_large_to_decode_is_refused_from_its_header(data: bytes, tmp_path: Path) -> None:
    tracemalloc.start()
    for from_memory in (False, True):
        with pytest.raises(ValueError, match="60000x60000 pixels are more than the 178,956,970"):
            opened(data, tmp_path, from_memory=from_memory)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_a_large_striped_file_is_read_in_parts_only(tmp_path: Path) -> None:
    with opened(huge(60_000, 60_000, 100), tmp_path) as picture:
        assert picture.streams
        with pytest.raises(ValueError, match="60000x60000 pixels are more than"):
            picture.read()


def test_threads_read_the_same_file(tmp_path: Path) -> None:
    wrong: list[int] = []
    with opened(tiff(RGB, photometric="rgb", **STORES["tiles"]), tmp_path) as picture:

        def work(start: int) -> None:
            for i in range(start, 40, 4):
                box = Box(i, i, 30, 50)
                if not np.array_equal(picture.read(0, box), RGB[box.slices]) or not np.array_equal(picture.read(), RGB):
                    wrong.append(i)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


@given(st.data())
@examples(40)
def test_any_region_of_any_tiling_equals_the_array(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 60))
    tile = tuple(16 * data.draw(st.integers(1, 3)) for _ in range(2))
    y, x = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    box = Box(y, x, data.draw(st.integers(1, height - y)), data.draw(st.integers(1, width - x)))
    turn = data.draw(st.integers(1, 8))
    file = tiff(GRAY[:height, :width], tile=tile, compression="zlib", extratags=[(274, 3, 1, turn, True)])
    with open_image(Path("a.tif"), data=file) as picture:
        truth = np.asarray(Image.open(io.BytesIO(file)))
        if box.y + box.height <= picture.height and box.x + box.width <= picture.width:
            np.testing.assert_array_equal(picture.read(0, box), truth[box.slices])


def test_real_files_equal_opencv(real_data: Path) -> None:
    for path in [
        *sorted((real_data / "bitdepth_nucseg").rglob("*.tif"))[::9],
        real_data / "whole_slide/kidney-48-5.tif",
    ]:
        truth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        with open_image(path) as picture:
            np.testing.assert_array_equal(picture.read(), truth[..., ::-1] if truth.ndim == 3 else truth)
            box = Box(100, 200, 64, 33)
            np.testing.assert_array_equal(picture.read(0, box), picture.read()[box.slices])
