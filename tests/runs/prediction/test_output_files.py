"""The files of predict: TIFFs that other readers open, 16-bit probabilities that agree with the mask, all files or none."""

import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import openslide
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from medsass.runs.prediction import output_files
from tests.data.formats.dicom.test_slide import PLACES, SLIDE, slide, tile
from tests.support.effort import examples
from tests.support.predicted import files_in, noise, read, run_predict, save_image, save_run, save_slide, smooth

pytestmark = pytest.mark.usefixtures("light_file")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on whole images. Read it, never change it."""
    return save_run(tmp_path_factory.mktemp("whole") / "run")


def _save(path: Path, array: np.ndarray, cuts: list[int]) -> None:
    bands = np.split(array, sorted(cuts))
    with path.open("wb") as file:
        output_files.save_rows(file, bands, array.shape, array.dtype)


@examples(20)
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
    monkeypatch.setattr(output_files, "_CLASSIC", 600 * 700 - 1)
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
            output_files.save_rows(file, bands, (height, 2000), np.dtype(np.uint8))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 17e6  # at most the tiles that are compressed together; the image has 41 MB


def test_16_bit_probabilities_lie_above_the_middle_exactly_where_they_are_above_one_half() -> None:
    near = np.float32(0.5) + np.arange(-300, 301).astype(np.float32) * np.float32(2.0**-24)
    chance = np.concatenate(
        [near, np.random.default_rng(0).random(100_000, np.float32), np.array([0, 0.5, 1], np.float32)]
    )
    levels = output_files.levels(chance)
    assert levels.dtype == np.uint16
    assert np.array_equal(levels > 32767, chance > 0.5)
    assert (
        np.abs(levels / 65535 - chance.astype(np.float64)).max() <= 0.505 / 65535
    )  # half a step, and float32's rounding
    assert levels[-3:].tolist() == [0, 32767, 65535]
    outside = np.array([-1e-7, 1 + 3e-7], np.float32)  # by a rounding error: they must not wrap
    assert output_files.levels(outside).tolist() == [0, 65535]


def test_overlay_and_probability_stand_beside_the_mask(trained: Path, tmp_path: Path) -> None:
    run_predict(trained, tmp_path / "out", save_image(tmp_path / "a.png"), overlay=True, probability=True)
    assert files_in(tmp_path / "out") == {"a.png", "a_overlay.png", "a_probability.png"}
    chance, mask = read(tmp_path / "out" / "a_probability.png"), read(tmp_path / "out" / "a.png")
    assert (chance.dtype.itemsize, chance.shape) == (2, (40, 56))
    assert chance[mask == 0].max(initial=0) <= 32768
    assert chance[mask == 255].min(initial=65535) >= 32767
    assert read(tmp_path / "out" / "a_overlay.png").shape == (40, 56, 3)


@pytest.mark.usefixtures("one_convolution")
def test_a_slide_gets_a_tiled_tiff_of_its_size(trained: Path, tmp_path: Path) -> None:
    slide = save_slide(tmp_path / "in" / "a.SVS", noise(700, 530))
    assert run_predict(trained, tmp_path / "out", slide, tile=128) == []
    assert files_in(tmp_path / "out") == {"a.tif"}
    with tifffile.TiffFile(tmp_path / "out" / "a.tif") as tiff:
        page = tiff.pages.first
        assert (page.shape, str(page.dtype), page.tile) == ((700, 530), "uint8", (512, 512))
        assert page.compression.name == "ADOBE_DEFLATE"
    assert set(np.unique(read(tmp_path / "out" / "a.tif"))) <= {0, 255}


@pytest.mark.usefixtures("one_convolution")
def test_a_dicom_slide_of_any_size_is_a_slide(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(slide([tile(SLIDE, *place) for place in PLACES]))
    assert run_predict(trained, tmp_path / "out", tmp_path / "a.dcm", tile=64) == []
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", SLIDE[..., ::-1])[1].tobytes())
    assert run_predict(trained, tmp_path / "out", tmp_path / "a.png", tile=64) == []
    with openslide.OpenSlide(tmp_path / "out" / "a.tif") as mask:
        assert mask.dimensions == (210, 150)
        shown = np.asarray(mask.read_region((0, 0), 0, mask.dimensions))[..., 0]
    np.testing.assert_array_equal(shown, read(tmp_path / "out" / "a.png"))


@pytest.mark.usefixtures("one_convolution")
def test_mask_and_probability_of_a_slide_agree_and_do_not_depend_on_one_another(trained: Path, tmp_path: Path) -> None:
    slide = save_slide(tmp_path / "a.svs", noise(600, 140))
    run_predict(trained, tmp_path / "both", slide, tile=140, probability=True)
    run_predict(trained, tmp_path / "mask", slide, tile=140)
    assert files_in(tmp_path / "both") == {"a.tif", "a_probability.tif"}
    chance, mask = read(tmp_path / "both" / "a_probability.tif"), read(tmp_path / "both" / "a.tif")
    assert (str(chance.dtype), chance.shape) == ("uint16", (600, 140))
    assert 0 < (mask > 0).mean() < 1
    assert np.array_equal(mask > 0, chance > 32767)
    assert np.array_equal(mask, read(tmp_path / "mask" / "a.tif"))


@pytest.mark.usefixtures("one_convolution")
def test_the_overlay_of_a_slide_is_an_overview(trained: Path, tmp_path: Path) -> None:
    slide = save_slide(tmp_path / "a.svs", np.repeat((smooth(300, 4100) * 255).astype(np.uint8)[..., None], 3, 2))
    run_predict(trained, tmp_path / "out", slide, tile=512, overlay=True)
    assert files_in(tmp_path / "out") == {"a.tif", "a_overlay.png"}
    overlay = read(tmp_path / "out" / "a_overlay.png")
    assert overlay.shape[2] == 3
    assert 1024 < overlay.shape[1] <= 2048
    assert abs(overlay.shape[1] / overlay.shape[0] - 4100 / 300) < 0.2


@pytest.mark.usefixtures("one_convolution")
def test_a_damaged_slide_leaves_nothing_and_the_others_are_written(trained: Path, tmp_path: Path) -> None:
    damaged, _ = (save_slide(tmp_path / "in" / name, noise(600, 200)) for name in ("damaged.svs", "whole.svs"))
    with tifffile.TiffFile(damaged) as tiff:
        offset, size = tiff.pages.first.dataoffsets[-1], tiff.pages.first.databytecounts[-1]
    data = bytearray(damaged.read_bytes())
    data[offset : offset + size] = b"\xff" * size
    damaged.write_bytes(data)
    failed = run_predict(trained, tmp_path / "out", damaged.parent, tile=64, overlay=True, probability=True)
    assert [path for path, _ in failed] == [damaged]
    assert files_in(tmp_path / "out") == {"whole.tif", "whole_overlay.png", "whole_probability.tif"}


@pytest.mark.usefixtures("one_convolution")
def test_a_failure_of_the_disk_leaves_nothing(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    for image in (save_slide(tmp_path / "a.svs", noise(70, 70)), save_slide(tmp_path / "b.tif", noise(70, 70))):
        with pytest.raises(OSError, match="No space left"):
            run_predict(trained, tmp_path / "out", image, tile=70, overlay=True)
    assert files_in(tmp_path / "out") == set()
