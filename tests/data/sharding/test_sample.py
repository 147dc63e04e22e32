"""One sample: the bytes that a shard stores for it, and what is refused."""

import hashlib
import io
import json
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from medsass.config import ShardConfig
from medsass.data.dali import decode
from medsass.data.formats.geometry import Box
from medsass.data.sharding.catalog.entry import Entry
from medsass.data.sharding.recipe import Images, Masks, Recipe
from medsass.data.sharding.sample import APART, Sample, encode
from medsass.data.sharding.source_file import Region, SourceFile

RGB = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
MASK = (np.random.default_rng(1).random((24, 40)) > 0.6).astype(np.uint8) * 255


def put(folder: Path, name: str, array: np.ndarray, mode: str = "") -> str:
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(folder / name)
    return name


def run(
    folder: Path,
    image: str,
    masks: tuple[str, ...] = (),
    rules: Masks | None = None,
    region: Region | None = None,
    **more: Any,
) -> Sample:
    """Make the sample of a whole image, or of a region of it."""
    chosen = Recipe("mine", (Images("*", split="train"),), masks=rules or Masks())
    config = ShardConfig(folder, folder, **{"tile": 0, "range": "minmax", **more})
    entry = Entry("key", image, masks, "train", "sick", "p1")
    data = (folder / image).read_bytes()
    with closing(
        SourceFile(entry, chosen, config, (folder / image, data), [(folder / m, None) for m in masks])
    ) as file:
        return encode(file, region or Region())


def pixels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.jp2"])
def test_plain_file_keeps_its_bytes(name: str, tmp_path: Path) -> None:
    put(tmp_path, name, RGB)
    sample = run(tmp_path, name)
    assert sample.files[name[2:]] == (tmp_path / name).read_bytes()
    assert sample.meta["converted"] == ""


def test_suffix_follows_the_content(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", RGB)
    (tmp_path / "a.jpg").rename(tmp_path / "a.png")
    assert set(run(tmp_path, "a.png").files) == {"jpg", "json"}


@pytest.mark.parametrize("name", ["a.bmp", "a.tif"])
def test_other_format_is_stored_as_png_without_loss(name: str, tmp_path: Path) -> None:
    put(tmp_path, name, RGB)
    sample = run(tmp_path, name)
    assert set(sample.files) == {"png", "json"}
    np.testing.assert_array_equal(pixels(sample.files["png"]), RGB)


def test_rgba_png_keeps_its_bytes_and_training_sees_it_without_alpha(tmp_path: Path) -> None:
    put(tmp_path, "a.png", np.dstack([RGB, RGB[..., 0]]))
    sample = run(tmp_path, "a.png")
    assert sample.files[sample.extension] == (tmp_path / "a.png").read_bytes()
    np.testing.assert_array_equal(decode(sample.files[sample.extension]), RGB)
    assert sample.meta["converted"] == "alpha dropped"


def test_json_describes_the_sample(tmp_path: Path) -> None:
    put(tmp_path, "a.png", RGB)
    put(tmp_path, "m.png", MASK)
    sample = run(tmp_path, "a.png", ("m.png",))
    meta = json.loads(sample.files["json"])
    assert meta.pop("mask_coverage") == pytest.approx((MASK > 0).mean(), abs=1e-6)
    assert meta == {
        "key": "key", "source": "a.png", "width": 40, "height": 24, "class": "sick", "group": "p1", "converted": "",
        "sha256": hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest(),
    }  # fmt: skip


@pytest.mark.parametrize("scale", [1, 20])  # read by libpng, and flat enough for its rows
def test_a_masks_own_bytes_are_stored_only_where_dali_is_sure_to_read_them(scale: int, tmp_path: Path) -> None:
    """It cannot read a PNG with an empty background colour (chunk bKGD), which other decoders pass over."""
    put(tmp_path, "a.png", np.kron(RGB, np.ones((scale, scale, 1), np.uint8)))
    put(tmp_path, "m.png", mask := np.kron(MASK, np.ones((scale, scale), np.uint8)))
    data = (tmp_path / "m.png").read_bytes()
    assert run(tmp_path, "a.png", ("m.png",)).files["mask.png"] == data
    (tmp_path / "m.png").write_bytes(data[:33] + bytes(4) + b"bKGD" + zlib.crc32(b"bKGD").to_bytes(4) + data[33:])
    with pytest.raises(ValueError, match="DALI"):
        decode((tmp_path / "m.png").read_bytes(), 1)
    stored = run(tmp_path, "a.png", ("m.png",)).files["mask.png"]
    np.testing.assert_array_equal(decode(stored, 1)[..., 0], mask)


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
    sample = run(tmp_path, "a.png", ("m.png",), size=size)
    np.testing.assert_array_equal(pixels(sample.files["png"]), cv2.resize(RGB, (size, size), interpolation=way))
    expected = cv2.resize(MASK, (size, size), interpolation=cv2.INTER_NEAREST_EXACT)
    np.testing.assert_array_equal(pixels(sample.files["mask.png"]), expected)
    assert (sample.meta["width"], sample.meta["height"]) == (size, size)


def test_resized_jpeg_stays_jpeg(tmp_path: Path) -> None:
    ramp = np.stack([np.add.outer(np.arange(60), np.arange(80)).astype(np.uint8)] * 3, -1)
    put(tmp_path, "a.jpg", ramp)
    sample = run(tmp_path, "a.jpg", size=30)
    with Image.open(io.BytesIO(sample.files["jpg"])) as image:
        assert (image.format, image.size) == ("JPEG", (30, 30))
    expected = cv2.resize(ramp, (30, 30), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(pixels(sample.files["jpg"]) - expected).mean() < 2


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


def test_turned_jpeg_is_stored_upright_with_its_mask_of_that_size(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RGB).save(tmp_path / "a.jpg", exif=exif)
    put(tmp_path, "m.png", MASK.T)
    sample = run(tmp_path, "a.jpg", ("m.png",))
    with Image.open(tmp_path / "a.jpg") as image:
        expected = np.asarray(image.rotate(-90, expand=True))
    np.testing.assert_array_equal(pixels(sample.files["png"]), expected)
    assert sample.meta["converted"] == "turned upright"


def test_a_mask_that_fits_a_turned_image_unturned_is_not_squeezed_into_it(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RGB).save(tmp_path / "a.jpg", exif=exif)
    put(tmp_path, "m.png", MASK)
    put(tmp_path, "half.png", MASK[::2, ::2])
    for name in ("m.png", "half.png"):
        with pytest.raises(ValueError, match="--turn-masks turns it as the image's tag says"):
            run(tmp_path, "a.jpg", (name,), Masks(resize=True))
    turned = run(tmp_path, "a.jpg", ("m.png",), Masks(resize=True, turn=True))
    np.testing.assert_array_equal(pixels(turned.files["mask.png"]) > 0, np.rot90(MASK, -1) > 0)
    put(tmp_path, "upright.png", MASK.T[::2, ::2])
    assert APART in run(tmp_path, "a.jpg", ("upright.png",), Masks(resize=True)).meta["converted"]


GRAY16 = np.random.default_rng(2).integers(1000, 50_000, (24, 40), np.uint16)


def test_deep_png_keeps_its_bytes_at_depth_16(tmp_path: Path) -> None:
    put(tmp_path, "a.png", GRAY16)
    sample = run(tmp_path, "a.png", depth=16)
    assert sample.files["png"] == (tmp_path / "a.png").read_bytes()
    assert (sample.meta["width"], sample.meta["height"], sample.meta["converted"]) == (40, 24, "")
    assert "range" not in sample.meta


@pytest.mark.parametrize("encode", ["keep", "png", "jpeg2000"])
def test_deep_tiff_is_stored_without_loss_at_depth_16(encode: str, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GRAY16)
    sample = run(tmp_path, "a.tif", depth=16, encode=encode)
    assert sample.extension == ("jp2" if encode == "jpeg2000" else "png")
    np.testing.assert_array_equal(pixels(sample.files[sample.extension]), GRAY16)


@pytest.mark.parametrize("rule", ["minmax", "percentile", "type"])
def test_deep_pixels_become_8_bit_by_the_rule_and_the_range_is_kept(rule: str, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GRAY16)
    sample = run(tmp_path, "a.tif", range=rule)
    low, high = {
        "minmax": (GRAY16.min(), GRAY16.max()),
        "percentile": np.percentile(GRAY16, [0.5, 99.5]),
        "type": (0, 65535),
    }[rule]
    np.testing.assert_allclose(sample.meta["range"], [(low, high)])
    expected = np.clip((GRAY16.astype(float) - low) / (float(high) - low) * 255, 0, 255)
    assert np.abs(pixels(sample.files[sample.extension]) - expected).max() <= 0.5 + 1e-6
    assert sample.meta["converted"] == "uint16 to 8 bit"


def test_8_bit_pixels_at_depth_16_take_the_whole_range(tmp_path: Path) -> None:
    put(tmp_path, "a.png", RGB[..., 0])
    np.testing.assert_array_equal(
        pixels(run(tmp_path, "a.png", depth=16).files["png"]), RGB[..., 0].astype(np.uint16) * 257
    )


def test_colour_at_depth_16_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "a.png", RGB)
    with pytest.raises(ValueError, match="a colour image; --depth 16 stores single-channel images"):
        run(tmp_path, "a.png", depth=16)


@pytest.mark.parametrize(("encode", "form"), [("png", "png"), ("jpeg", "jpg"), ("jpeg2000", "jp2")])
def test_encode_chooses_the_format_and_keeps_a_file_that_has_it(encode: str, form: str, tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png", "a.jp2"):
        put(tmp_path, name, RGB)
        sample = run(tmp_path, name, encode=encode)
        assert sample.extension == form
        assert (sample.files[sample.extension] == (tmp_path / name).read_bytes()) == name.endswith(form)
    if encode != "jpeg":
        np.testing.assert_array_equal(pixels(sample.files[sample.extension]), RGB)


def test_a_tile_is_cut_from_image_and_mask_and_says_where(tmp_path: Path) -> None:
    put(tmp_path, "a.png", RGB)
    put(tmp_path, "m.png", MASK)
    sample = run(tmp_path, "a.png", ("m.png",), region=Region(0, Box(8, 16, 10, 12)), tile=12)
    np.testing.assert_array_equal(pixels(sample.files[sample.extension]), RGB[8:18, 16:28])
    np.testing.assert_array_equal(pixels(sample.files["mask.png"]), MASK[8:18, 16:28])
    assert sample.key == "key-y000008-x000016"
    whole = {"height": 24, "width": 40}
    assert sample.meta["tile"] == {"y": 8, "x": 16, "height": 10, "width": 12, "level": 0, "of": whole}
    assert sample.meta["mask_coverage"] == pytest.approx((MASK[8:18, 16:28] > 0).mean(), abs=1e-6)


def test_tiles_of_a_deep_image_share_the_whole_images_range(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GRAY16)
    sample = run(tmp_path, "a.tif", region=Region(0, Box(0, 0, 8, 8)), tile=8)
    assert sample.meta["range"] == [(GRAY16.min(), GRAY16.max())]


def test_tiles_need_masks_of_the_images_size(tmp_path: Path) -> None:
    put(tmp_path, "a.png", RGB)
    put(tmp_path, "m.png", MASK[:20])
    with pytest.raises(ValueError, match=r"mask m.png: size 40x20 differs from the image's 40x24; tiles need masks of"):
        run(tmp_path, "a.png", ("m.png",), Masks(resize=True), Region(0, Box(0, 0, 8, 8)), tile=8)


def test_mask_of_many_levels_is_refused_unless_the_recipe_says_what_they_mean(tmp_path: Path) -> None:
    put(tmp_path, "a.png", RGB)
    put(tmp_path, "m.png", RGB[..., 0])
    with pytest.raises(ValueError, match=r"m.png.*levels in a mask that should have two"):
        run(tmp_path, "a.png", ("m.png",))
    for rule, expected in (
        ("nonzero", RGB[..., 0] > 0),
        ("half", RGB[..., 0] > 127),
        ((3, 7), np.isin(RGB[..., 0], (3, 7))),
    ):
        stored = pixels(run(tmp_path, "a.png", ("m.png",), Masks(rule)).files["mask.png"])
        np.testing.assert_array_equal(stored > 0, expected)


def test_a_deep_png_with_an_orientation_is_turned_as_dali_would_turn_it(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 3
    deep = np.arange(24 * 40, dtype=np.uint16).reshape(24, 40) * 60
    Image.fromarray(deep).save(tmp_path / "a.png", exif=turned)
    put(tmp_path, "m.png", np.where(deep > 30_000, 255, 0).astype(np.uint8))
    assert run(tmp_path, "a.png", ("m.png",), depth=16).meta["converted"] == f"turned upright, {APART}"
    sample = run(tmp_path, "a.png", ("m.png",), Masks(turn=True), depth=16)
    seen, mask = decode(sample.files["png"], 16)[..., 0], pixels(sample.files["mask.png"])
    np.testing.assert_array_equal(seen, np.rot90(deep, 2))
    np.testing.assert_array_equal(mask > 0, seen > 30_000)
