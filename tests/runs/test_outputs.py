"""What predict writes: rows into a TIFF that other readers open, and 16-bit probabilities that agree with the mask."""

import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medsass.runs import outputs


def _save(path: Path, array: np.ndarray, cuts: list[int]) -> None:
    bands = np.split(array, sorted(cuts))
    with path.open("wb") as file:
        outputs.save_rows(file, bands, array.shape, array.dtype)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 1100), st.integers(1, 1100), st.booleans(), st.data())
def test_bands_of_any_heights_come_back_as_one_image(
    tmp_path_factory: pytest.TempPathFactory, seed: int, height: int, width: int, deep: bool, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("rows") / "a.tif"
    noise = np.random.default_rng(seed).integers(0, 65536 if deep else 256, (height, width))
    array: np.ndarray = noise.astype(np.uint16 if deep else np.uint8)
    _save(path, array, data.draw(st.lists(st.integers(0, height), max_size=5)))
    found = np.asarray(tifffile.imread(path))
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_opencv_and_pillow_read_the_file(tmp_path: Path, dtype: type) -> None:
    array: np.ndarray = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (600, 700)).astype(dtype)
    _save(tmp_path / "a.tif", array, [100, 513])
    assert np.array_equal(np.asarray(cv2.imread(str(tmp_path / "a.tif"), cv2.IMREAD_UNCHANGED)), array)
    with Image.open(tmp_path / "a.tif") as image:
        assert np.array_equal(np.asarray(image), array)


def test_a_file_that_may_pass_4_gib_is_a_bigtiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array: np.ndarray = np.arange(600 * 700).reshape(600, 700).astype(np.uint8)
    _save(tmp_path / "classic.tif", array, [])
    monkeypatch.setattr(outputs, "_CLASSIC", 600 * 700 - 1)
    _save(tmp_path / "big.tif", array, [])
    for name, big in (("classic", False), ("big", True)):
        with tifffile.TiffFile(tmp_path / f"{name}.tif") as tiff:
            assert tiff.is_bigtiff == big
            assert np.array_equal(np.asarray(tiff.asarray()), array)


def test_memory_does_not_grow_with_the_height(tmp_path: Path) -> None:
    peaks = []
    for height in (2048, 20_480):
        bands = (np.full((256, 2000), y % 251, np.uint8) for y in range(0, height, 256))
        tracemalloc.start()
        with (tmp_path / "a.tif").open("wb") as file:
            outputs.save_rows(file, bands, (height, 2000), np.dtype(np.uint8))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 17e6  # at most the tiles that are compressed together; the image has 41 MB


def test_16_bit_probabilities_lie_above_the_middle_exactly_where_they_are_above_one_half() -> None:
    near = np.float32(0.5) + np.arange(-300, 301).astype(np.float32) * np.float32(2.0**-24)
    chance = np.concatenate(
        [near, np.random.default_rng(0).random(100_000, np.float32), np.array([0, 0.5, 1], np.float32)]
    )
    levels = outputs.levels(chance)
    assert levels.dtype == np.uint16
    assert np.array_equal(levels > 32767, chance > 0.5)
    assert (
        np.abs(levels / 65535 - chance.astype(np.float64)).max() <= 0.505 / 65535
    )  # half a step, and float32's rounding
    assert levels[-3:].tolist() == [0, 32767, 65535]


def test_probabilities_outside_their_range_by_a_rounding_error_do_not_wrap() -> None:
    chance = np.array([-1e-7, 1 + 3e-7], np.float32)
    assert outputs.levels(chance).tolist() == [0, 65535]
