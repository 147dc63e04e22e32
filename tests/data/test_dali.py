"""The training decoder on single images."""

import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from medsass.data import dali


def encoded(array: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("shape", [(1, 1, 3), (7, 5, 3), (64, 48, 3), (33, 65)])
def test_png_equals_pillow(shape: tuple[int, ...]) -> None:
    data = encoded(noise(0, *shape), "PNG")
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(image.convert("RGB"))
    got = dali.decode(data)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, expected)


def test_jpeg_is_close_to_pillow() -> None:
    ramp = np.add.outer(np.arange(64), np.arange(80)).astype(np.uint8)
    data = encoded(np.stack([ramp, ramp[::-1], ramp[:, ::-1]], -1), "JPEG")
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(image).astype(int)
    difference = np.abs(dali.decode(data).astype(int) - expected)
    assert difference.max() <= 4
    assert difference.mean() < 0.5


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_truncated_file_raises_and_the_next_one_decodes(kind: str, share: float) -> None:
    data = encoded(noise(1, 64, 64, 3), kind)
    with pytest.raises(ValueError, match=r"training decoder .DALI. cannot read it: ."):
        dali.decode(data[: int(len(data) * share)])
    whole = noise(2, 32, 16, 3)
    np.testing.assert_array_equal(dali.decode(encoded(whole, "PNG")), whole)


@pytest.mark.parametrize("data", [b"", b"not an image", b"\0" * 1000], ids=["empty", "text", "zeros"])
def test_data_that_is_not_an_image_raises(data: bytes) -> None:
    with pytest.raises(ValueError, match="cannot read it"):
        dali.decode(data)


def test_each_thread_gets_its_own_images() -> None:
    arrays = [noise(seed, 20 + seed, 30, 3) for seed in range(24)]
    files = [encoded(array, "PNG") for array in arrays]
    with ThreadPoolExecutor(4) as pool:
        for got, expected in zip(pool.map(dali.decode, files), arrays, strict=True):
            np.testing.assert_array_equal(got, expected)


def test_only_the_bad_files_raise_in_threads() -> None:
    good = noise(3, 24, 24, 3)
    data = encoded(good, "PNG")

    def shape(item: bytes) -> tuple[int, ...] | str:
        try:
            return dali.decode(item).shape
        except ValueError:
            return "bad"

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(shape, [data, data[:100]] * 8)) == [(24, 24, 3), "bad"] * 8


def test_missing_dali_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(f"No module named '{name}'")

    monkeypatch.setattr("medsass.data.dali.importlib.import_module", absent)
    with pytest.raises(ImportError, match=r"needs NVIDIA DALI.*pip install 'medsass\[cuda13\]'"):
        dali.decode(encoded(noise(0, 8, 8, 3), "PNG"))


def test_importing_the_module_does_not_import_dali() -> None:
    code = "import sys, medsass.data.dali; print('nvidia.dali' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
