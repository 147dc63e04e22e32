"""16-bit batches: exactly the stored pixels, on a CPU and on a GPU."""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from medsass.data.loading.loader import Augment, Batch, Loader
from tests.support import built
from tests.support.loaded import config, same


@pytest.fixture(scope="module", params=["png", "jp2"])
def deep(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 16-bit images, 40 x 48 pixels."""
    return built.build(tmp_path_factory.mktemp("deep") / "out", 16, request.param)


def by_key(batches: Iterable[Batch]) -> dict[str, np.ndarray]:
    """Return the images by key, as int64."""
    pairs = [(i["key"], p.numpy().astype(np.int64)) for b in batches for i, p in zip(b.info, b.images, strict=True)]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


@pytest.mark.parametrize("augment", [None, Augment()], ids=["plain", "augmented"])
def test_16_bit_batches_have_the_documented_shape_and_type(deep: Path, augment: Augment | None) -> None:
    loader = Loader(config(deep, augment=augment))
    assert loader.depth == 16
    for batch in loader:
        assert batch.images.dtype == torch.uint16
        assert batch.images.shape == (len(batch.info), 32, 32)
        assert batch.masks is not None
        assert batch.masks.shape == batch.images.shape
        assert set(batch.masks.unique().tolist()) == {0, 1}


def square(folder: Path, depth: int, side: int) -> Path:
    """Build shards of square images of `built.sample`, which a resize to their own size does not change."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(built, "SIZE", (side, side))
        return built.build(folder, depth)


def test_16_bit_pixels_at_own_size_are_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = square(tmp_path / "square", 16, 40)
    monkeypatch.setattr(built, "SIZE", (40, 40))
    found = by_key(Loader(config(folder, size=40)))
    assert len(found) == 20
    for key, image in found.items():
        np.testing.assert_array_equal(image, built.sample(key, 16)[0])


def test_16_bit_halving_equals_pillows_antialiased_resize(deep: Path) -> None:
    for key, image in by_key(Loader(config(deep, size=20))).items():
        source = Image.fromarray(built.sample(key, 16)[0].astype(np.float32), "F")
        expected = np.asarray(source.resize((20, 20), Image.Resampling.BILINEAR))
        inner = np.abs(image - expected)[1:-1, 1:-1]
        assert inner.max() <= 1
        assert np.abs(image - expected).mean() < 0.01 * (expected.max() - expected.min())


def test_16_bit_images_and_masks_have_the_same_geometry(deep: Path) -> None:
    loader = Loader(config(deep, size=40, augment=Augment(jitter=0)))
    for batch in [batch for _ in range(3) for batch in loader]:
        for image, mask in zip(batch.images.int(), batch.masks, strict=True):  # type: ignore[arg-type]
            middle = (int(image.max()) + 300) / 2
            assert ((image > middle) == mask.bool()).float().mean() > 0.94


def test_16_bit_flips_move_pixels_and_change_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = square(tmp_path / "square", 16, 40)
    monkeypatch.setattr(built, "SIZE", (40, 40))
    seen = set()
    loader = Loader(config(folder, size=40, augment=Augment(crop=1, jitter=0, hue=0)))
    for _ in range(2):
        for key, image in by_key(loader).items():
            upright = built.sample(key, 16)[0]
            turns = [upright, upright[::-1], upright[:, ::-1], upright[::-1, ::-1]]
            seen.add(next(i for i, turn in enumerate(turns) if np.array_equal(image, turn)))
    assert seen == {0, 1, 2, 3}


def test_16_bit_jitter_scales_brightness_and_contrast_about_the_mean(deep: Path) -> None:
    """y = b (m + c (x - m)): a straight line through (m, b m), with b and c within 1 +- jitter."""
    plain = by_key(Loader(config(deep)))
    slopes = []
    for key, image in by_key(Loader(config(deep, augment=Augment(1.0, False, 0.3, 6.0)))).items():
        x, y = plain[key].ravel().astype(float), image.ravel()
        kept = y > 0  # what is not clipped to black
        slope, start = np.polyfit(x[kept], y[kept], 1)
        assert np.abs(np.clip(slope * x + start, 0, None) - y).max() <= 1
        brightness = (slope * x.mean() + start) / x.mean()
        assert 0.69 <= brightness <= 1.31
        assert 0.69 <= slope / brightness <= 1.31
        slopes.append((round(brightness, 2), round(slope / brightness, 2)))
    assert len({b for b, _ in slopes}) > 5
    assert len({c for _, c in slopes}) > 5


def test_16_bit_without_jitter_ignores_hue(deep: Path) -> None:
    plain, turned = (by_key(Loader(config(deep, augment=a))) for a in (None, Augment(1.0, False, 0.0, 90.0)))
    for key, image in plain.items():
        assert np.abs(image - turned[key]).max() <= 1


def test_png_and_jpeg_2000_give_the_same_16_bit_batches(tmp_path: Path) -> None:
    one, other = (built.build(tmp_path / e, 16, e) for e in ("png", "jp2"))
    assert same(*(list(Loader(config(folder, augment=Augment()))) for folder in (one, other)))


def test_real_16_bit_microscopy_is_exact(real_data: Path, tmp_path: Path) -> None:
    paths = sorted((real_data / "bitdepth_nucseg" / "images_16bit").glob("*.tif"))[:4]
    images = {f"train_{i:03d}": cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for i, path in enumerate(paths)}
    assert all(image.dtype == np.uint16 and image.shape == (512, 512) for image in images.values())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(built, "sample", lambda key, _: (images[key], np.zeros((512, 512), np.uint8)))
        folder = built.build(tmp_path / "real", 16, splits={"train": len(images)})
    found = by_key(Loader(config(folder, size=512)))
    assert found.keys() == images.keys()
    for key, image in found.items():
        np.testing.assert_array_equal(image, images[key])


@pytest.mark.gpu
def test_16_bit_batches_of_the_gpu_equal_the_cpus(deep: Path) -> None:
    plain, other = (list(Loader(config(deep, device=device))) for device in ("cpu", "cuda"))
    for a, b in zip(plain, other, strict=True):
        assert b.images.is_cuda
        assert b.images.dtype == torch.uint16
        assert (a.images.int() - b.images.cpu().int()).abs().max() <= 1
        assert (a.masks != b.masks.cpu()).float().mean() < 0.01  # type: ignore[union-attr]


@pytest.mark.gpu
def test_16_bit_jitter_on_the_gpu_is_a_straight_line(deep: Path) -> None:
    plain = by_key(Loader(config(deep)))
    batches = list(Loader(config(deep, device="cuda", augment=Augment(1.0, False, 0.3, 6.0))))
    for key, image in by_key([Batch(b.images.cpu(), b.masks, b.info) for b in batches]).items():
        kept = image.ravel() > 0
        slope, start = np.polyfit(plain[key].ravel()[kept], image.ravel()[kept], 1)
        assert np.abs(np.clip(slope * plain[key] + start, 0, None) - image).max() <= 2
