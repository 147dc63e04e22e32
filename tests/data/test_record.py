"""One sample: which bytes a shard stores for it, and what is refused."""

import hashlib
import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from medsass.data.catalog import Sample
from medsass.data.recipe import Masks
from medsass.data.record import Record, prepare

RGB = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
MASK = (np.random.default_rng(1).random((24, 40)) > 0.6).astype(np.uint8) * 255


def put(folder: Path, name: str, array: np.ndarray, mode: str = "") -> str:
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(folder / name)
    return name


def run(folder: Path, image: str, masks: tuple[str, ...] = (), rules: Masks | None = None, size: int = 0) -> Record:
    return prepare(Sample("key", image, masks, "train", "sick", "p1"), folder, rules or Masks(), size)


def pixels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.jp2"])
def test_plain_file_keeps_its_bytes(name: str, tmp_path: Path) -> None:
    put(tmp_path, name, RGB)
    record = run(tmp_path, name)
    assert record.files[name[2:]] == (tmp_path / name).read_bytes()
    assert record.meta["converted"] == ""


def test_suffix_follows_the_content(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", RGB)
    (tmp_path / "a.jpg").rename(tmp_path / "a.png")
    assert set(run(tmp_path, "a.png").files) == {"jpg", "json"}


@pytest.mark.parametrize("name", ["a.bmp", "a.tif"])
def test_other_format_is_stored_as_png_without_loss(name: str, tmp_path: Path) -> None:
    put(tmp_path, name, RGB)
    record = run(tmp_path, name)
    assert set(record.files) == {"png", "json"}
    np.testing.assert_array_equal(pixels(record.files["png"]), RGB)


def test_rgba_png_is_stored_without_alpha_and_noted(tmp_path: Path) -> None:
    put(tmp_path, "a.png", np.dstack([RGB, RGB[..., 0]]))
    record = run(tmp_path, "a.png")
    np.testing.assert_array_equal(pixels(record.files["png"]), RGB)
    assert record.meta["converted"] == "alpha dropped"


def test_json_describes_the_sample(tmp_path: Path) -> None:
    put(tmp_path, "a.png", RGB)
    put(tmp_path, "m.png", MASK)
    record = run(tmp_path, "a.png", ("m.png",))
    meta = json.loads(record.files["json"])
    assert meta.pop("mask_coverage") == pytest.approx((MASK > 0).mean(), abs=1e-6)
    assert meta == {
        "key": "key", "source": "a.png", "width": 40, "height": 24, "class": "sick", "group": "p1", "converted": "",
        "sha256": hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest(),
    }  # fmt: skip


def test_mask_is_stored_as_0_and_255(tmp_path: Path) -> None:
    put(tmp_path, "a.png", RGB)
    put(tmp_path, "m.png", MASK // 255)
    stored = pixels(run(tmp_path, "a.png", ("m.png",)).files["mask.png"])
    assert stored.dtype == np.uint8
    np.testing.assert_array_equal(stored, MASK)


@pytest.mark.parametrize(("size", "way"), [(16, cv2.INTER_AREA), (64, cv2.INTER_CUBIC)])
def test_size_resizes_image_and_mask(size: int, way: int, tmp_path: Path) -> None:
    put(tmp_path, "a.png", RGB)
    put(tmp_path, "m.png", MASK)
    record = run(tmp_path, "a.png", ("m.png",), size=size)
    np.testing.assert_array_equal(pixels(record.files["png"]), cv2.resize(RGB, (size, size), interpolation=way))
    expected = cv2.resize(MASK, (size, size), interpolation=cv2.INTER_NEAREST_EXACT)
    np.testing.assert_array_equal(pixels(record.files["mask.png"]), expected)
    assert (record.meta["width"], record.meta["height"]) == (size, size)


def test_resized_jpeg_stays_jpeg(tmp_path: Path) -> None:
    ramp = np.stack([np.add.outer(np.arange(60), np.arange(80)).astype(np.uint8)] * 3, -1)
    put(tmp_path, "a.jpg", ramp)
    record = run(tmp_path, "a.jpg", size=30)
    with Image.open(io.BytesIO(record.files["jpg"])) as image:
        assert (image.format, image.size) == ("JPEG", (30, 30))
    expected = cv2.resize(ramp, (30, 30), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(pixels(record.files["jpg"]) - expected).mean() < 2


def test_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "a.png", RGB)
    put(tmp_path, "m.png", MASK[:20, :30])
    with pytest.raises(ValueError, match=r"mask m.png: size 30x20 differs from the image's 40x24"):
        run(tmp_path, "a.png", ("m.png",))


def test_mask_of_another_size_is_refused_with_size_too(tmp_path: Path) -> None:
    put(tmp_path, "a.png", RGB)
    put(tmp_path, "m.png", MASK[:16, :16])
    with pytest.raises(ValueError, match=r"mask m.png: size 16x16 differs from the image's 40x24"):
        run(tmp_path, "a.png", ("m.png",), size=16)


def test_mask_of_another_size_is_resized_where_the_recipe_allows(tmp_path: Path) -> None:
    put(tmp_path, "a.png", RGB)
    put(tmp_path, "m.png", np.repeat(np.repeat(MASK, 2, 0), 2, 1))
    stored = pixels(run(tmp_path, "a.png", ("m.png",), Masks(resize=True)).files["mask.png"])
    np.testing.assert_array_equal(stored, MASK)


def test_image_without_a_mask_is_refused_where_one_is_required(tmp_path: Path) -> None:
    put(tmp_path, "a.png", RGB)
    with pytest.raises(ValueError, match="image without a mask"):
        run(tmp_path, "a.png", rules=Masks(required=True))
    assert set(run(tmp_path, "a.png").files) == {"png", "json"}


def test_truncated_jpeg_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", RGB)
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) * 3 // 4])
    with pytest.raises(ValueError, match=r"truncated|cannot read it"):
        run(tmp_path, "a.jpg")


def test_turned_jpeg_is_stored_upright_with_its_mask_of_that_size(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RGB).save(tmp_path / "a.jpg", exif=exif)
    put(tmp_path, "m.png", MASK.T)
    record = run(tmp_path, "a.jpg", ("m.png",))
    with Image.open(tmp_path / "a.jpg") as image:
        expected = np.asarray(image.rotate(-90, expand=True))
    np.testing.assert_array_equal(pixels(record.files["png"]), expected)
    assert record.meta["converted"] == "turned upright"
