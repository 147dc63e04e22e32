"""Files and their regions against OpenCV and NumPy: keys, boxes, pixels, ranges, masks, hashes."""

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray
from PIL import Image

from medsass.config import ShardConfig
from medsass.data.formats.geometry import Box
from medsass.data.sharding.catalog.entry import Entry
from medsass.data.sharding.recipe import Images, Masks, Recipe
from medsass.data.sharding.source_file import Region, SourceFile

RNG = np.random.default_rng(7)
GRAY = RNG.integers(0, 256, (50, 70), np.uint8)
COLOUR = RNG.integers(0, 256, (50, 70, 3), np.uint8)
DEEP = RNG.integers(300, 5000, (50, 70)).astype(np.uint16)


def png(path: Path, array: NDArray[Any]) -> Path:
    assert cv2.imwrite(str(path), array)
    return path


def tiff(path: Path, pages: list[NDArray[Any]]) -> Path:
    first, *rest = (Image.fromarray(page) for page in pages)
    first.save(path, save_all=True, append_images=rest)
    return path


def opened(
    image: Path,
    *masks: Path,
    frames: str = "first",
    rule: Masks | None = None,
    data: bytes | None = None,
    **options: Any,
) -> SourceFile:
    """Open `image` with its masks by a recipe of one [[images]] table."""
    recipe = Recipe("test", (Images("*", split="train", frames=frames),), masks=rule or Masks(), polarity="bright")
    entry = Entry("key", image.name, tuple(mask.name for mask in masks), "train", None, image.name)
    config = ShardConfig(image.parent, image.parent / "out", **{"tile": 0, "range": "minmax", **options})
    return SourceFile(entry, recipe, config, (image, data), [(mask, None) for mask in masks])


def test_whole_image_is_one_region_with_the_entrys_key(tmp_path: Path) -> None:
    one = opened(png(tmp_path / "a.png", GRAY))
    ((region,), skipped) = one.regions()
    assert (region, one.key(region), one.several, skipped) == (Region(), "key", False, 0)
    array, limits = one.read(region)
    np.testing.assert_array_equal(array, GRAY)
    assert limits is None
    assert one.mask(region) is None
    one.close()


@pytest.mark.parametrize(("tile", "stride"), [(32, 0), (32, 20), (50, 0), (100, 0), (70, 35)])
def test_tiles_are_the_boxes_of_opencvs_pixels_and_cover_all(tile: int, stride: int, tmp_path: Path) -> None:
    one = opened(png(tmp_path / "a.png", COLOUR), tile=tile, stride=stride)
    whole = np.asarray(cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_COLOR_RGB))
    seen = np.zeros((50, 70), int)
    keys = []
    for region in one.regions()[0]:
        assert region.box
        rows = slice(region.box.y, region.box.y + min(tile, 50))
        columns = slice(region.box.x, region.box.x + min(tile, 70))
        seen[rows, columns] += 1
        np.testing.assert_array_equal(one.read(region)[0], whole[rows, columns])
        keys.append(one.key(region))
        assert keys[-1] == f"key-y{region.box.y:06d}-x{region.box.x:06d}"
    assert seen.all()
    assert len(set(keys)) == len(keys)
    assert one.regions()[1] == 0


def test_tiles_with_too_little_foreground_are_left_out(tmp_path: Path) -> None:
    array = np.zeros((64, 64), np.uint8)
    array[:32, 32:40] = 250  # a quarter of the upper right tile
    path = png(tmp_path / "a.png", array)
    expected = {0.2: [(0, 32)], 0.3: [], 0.0: [(0, 0), (0, 32), (32, 0), (32, 32)]}
    for least, boxes in expected.items():
        one = opened(path, tile=32, min_foreground=least)
        kept, skipped = one.regions()
        assert [(region.box.y, region.box.x) for region in kept if region.box] == boxes
        assert skipped == 4 - len(boxes)


def test_each_frame_is_a_region_with_its_own_key_pixels_and_hash(tmp_path: Path) -> None:
    pages = [GRAY, GRAY[::-1].copy(), 255 - GRAY]
    one = opened(tiff(tmp_path / "a.tif", pages), frames="all")
    regions = one.regions()[0]
    assert [one.key(region) for region in regions] == [f"key-f{i:06d}" for i in range(3)]
    for region, page in zip(regions, pages, strict=True):
        np.testing.assert_array_equal(one.read(region)[0], page)
    hashes = [one.sha256(region) for region in regions]
    assert len(set(hashes)) == 3
    again = opened(tiff(tmp_path / "b.tif", pages[1:]), frames="all")  # the same pages in another file
    assert [again.sha256(region) for region in again.regions()[0]] == hashes[1:]


def test_a_blank_frame_is_no_others_twin_and_its_shape_counts(tmp_path: Path) -> None:
    pages = [np.zeros((6, 8), np.uint8), np.zeros((6, 8), np.uint8), np.arange(48, dtype=np.uint8).reshape(6, 8)]
    one, turned = (
        tiff(tmp_path / name, [p.reshape(shape) for p in pages])
        for name, shape in (("a.tif", (6, 8)), ("b.tif", (8, 6)))
    )
    files = [opened(path, frames="all") for path in (one, turned)]
    assert len({file.sha256(region) for file in files for region in file.regions()[0]}) == 6


@pytest.mark.parametrize("suffix", [".hdr", ".mhd"])
def test_volumes_of_equal_headers_are_told_apart_by_their_voxels(suffix: str, tmp_path: Path) -> None:
    hashes = set()
    for name, level in (("a", 10), ("b", 200)):
        (tmp_path / name).mkdir()
        volume = np.full((4, 5, 6), level, np.uint8) + np.arange(6, dtype=np.uint8)
        if suffix == ".hdr":
            nib.save(nib.Nifti1Pair(volume, np.eye(4)), tmp_path / name / "scan.hdr")
        else:
            sitk.WriteImage(sitk.GetImageFromArray(volume), str(tmp_path / name / "scan.mhd"))
        hashes.add(opened(tmp_path / name / f"scan{suffix}", frames="middle").sha256(Region()))
    assert (tmp_path / "a" / f"scan{suffix}").read_bytes() == (tmp_path / "b" / f"scan{suffix}").read_bytes()
    assert len(hashes) == 2


def test_tiles_of_an_unturned_mask_are_turned_as_the_image(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    upright = np.arange(60 * 80, dtype=np.uint16).reshape(60, 80) % 251
    Image.fromarray(np.rot90(upright.astype(np.uint8))).save(tmp_path / "a.png", exif=turned)
    mask = np.where(upright > 100, 255, 0).astype(np.uint8)
    truth = png(tmp_path / "m.png", np.ascontiguousarray(np.rot90(mask)))
    one = opened(tmp_path / "a.png", truth, rule=Masks(turn=True), tile=40)
    for region in one.regions()[0]:
        found = one.mask(region)
        assert found
        np.testing.assert_array_equal(found[0] > 0, one.read(region)[0] > 100)
    unturned = opened(tmp_path / "a.png", truth, tile=40)
    with pytest.raises(ValueError, match="size 60x80 differs from the image's 80x60; --turn-masks turns it"):
        unturned.mask(unturned.regions()[0][0])


def test_tiles_of_frames_name_both(tmp_path: Path) -> None:
    one = opened(tiff(tmp_path / "a.tif", [GRAY, 255 - GRAY]), frames="all", tile=50)
    keys = [one.key(region) for region in one.regions()[0]]
    assert keys == [f"key-f{frame:06d}-y000000-x{x:06d}" for frame in (0, 1) for x in (0, 20)]


@pytest.mark.parametrize("at_hand", [True, False])
def test_hash_of_a_single_image_is_that_of_its_file(at_hand: bool, tmp_path: Path) -> None:
    data = png(tmp_path / "a.png", GRAY).read_bytes()
    one = opened(tmp_path / "a.png", data=data if at_hand else None)
    for region in (Region(), Region(0, Box(0, 0, 8, 8))):
        assert one.sha256(region) == hashlib.sha256(data).hexdigest()


def stretched(array: NDArray[Any], low: float, high: float, top: int) -> NDArray[np.float64]:
    return np.interp(array.astype(np.float64), (low, high), (0, top))


@pytest.mark.parametrize(
    ("rule", "low", "high"),
    [("minmax", DEEP.min(), DEEP.max()), ("type", 0, 65535), ("percentile", *np.percentile(DEEP, (0.5, 99.5)))],
)
def test_16_bit_pixels_become_8_by_one_range_for_all_tiles(rule: str, low: float, high: float, tmp_path: Path) -> None:
    one = opened(png(tmp_path / "a.png", DEEP), tile=32, range=rule)
    for region in one.regions()[0]:
        assert region.box
        array, limits = one.read(region)
        assert limits
        np.testing.assert_allclose(limits, [(low, high)])
        assert array.dtype == np.uint8
        expected = stretched(DEEP[region.box.slices], low, high, 255)
        assert np.abs(array - expected).max() <= 0.5 + 1e-6


def test_depth_16_keeps_16_bit_pixels_and_widens_8_bit_ones(tmp_path: Path) -> None:
    array, limits = opened(png(tmp_path / "a.png", DEEP), depth=16).read(Region())
    np.testing.assert_array_equal(array, DEEP)
    assert limits is None
    array, limits = opened(png(tmp_path / "b.png", GRAY), depth=16).read(Region())
    np.testing.assert_array_equal(array, GRAY.astype(np.uint16) * 257)
    assert limits == [(0.0, 255.0)]
    with pytest.raises(ValueError, match=r"a colour image; --depth 16 .* choose a channel"):
        opened(png(tmp_path / "c.png", COLOUR), depth=16).read(Region())


def test_masks_are_united_and_cut_as_the_image_is(tmp_path: Path) -> None:
    masks = [(RNG.random((50, 70)) > 0.7).astype(np.uint8) * 255 for _ in range(3)]
    paths = [png(tmp_path / f"m{i}.png", mask) for i, mask in enumerate(masks)]
    union = np.maximum.reduce(masks) // 255
    one = opened(png(tmp_path / "a.png", GRAY), *paths, tile=32)
    for region in one.regions()[0]:
        assert region.box
        np.testing.assert_array_equal(mask_of(one, region), union[region.box.slices])
    np.testing.assert_array_equal(mask_of(one, Region()), union)


def test_the_level_of_a_mask_is_that_of_all_of_it(tmp_path: Path) -> None:
    mask = np.zeros((50, 70), np.uint8)
    mask[:, 40:] = 7
    one = opened(png(tmp_path / "a.png", GRAY), png(tmp_path / "m.png", mask), tile=20)
    for region in one.regions()[0]:
        assert region.box
        np.testing.assert_array_equal(mask_of(one, region), mask[region.box.slices] // 7)


@pytest.mark.parametrize(("rule", "levels"), [("nonzero", {1, 2, 200}), ("half", {200}), ((1, 2), {1, 2})])
def test_foreground_is_what_the_recipe_says(rule: Any, levels: set[int], tmp_path: Path) -> None:
    mask = RNG.choice(np.array([0, 1, 2, 200], np.uint8), (50, 70))
    one = opened(png(tmp_path / "a.png", GRAY), png(tmp_path / "m.png", mask), rule=Masks(rule))
    np.testing.assert_array_equal(mask_of(one, Region()), np.isin(mask, list(levels)))


def test_masks_of_several_levels_and_other_sizes_are_refused_by_name(tmp_path: Path) -> None:
    image = png(tmp_path / "a.png", GRAY)
    levels = png(tmp_path / "levels.png", np.arange(3500, dtype=np.uint8).reshape(50, 70) % 3)
    with pytest.raises(ValueError, match=r"^mask levels.png: 3 levels .* nonzero"):
        opened(image, levels).mask(Region())
    small = png(tmp_path / "small.png", np.zeros((25, 35), np.uint8))
    with pytest.raises(ValueError, match=r"^mask small.png: size 35x25 differs from the image's 70x50; tiles need"):
        opened(image, small, tile=32).mask(Region(0, Box(0, 0, 32, 32)))
    with pytest.raises(ValueError, match=r"^mask small.png: size 35x25 differs from the other masks' 70x50"):
        opened(image, png(tmp_path / "m.png", np.zeros_like(GRAY)), small).mask(Region())


def test_mask_that_cannot_be_read_is_named_and_what_was_open_is_closed(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"text")
    (tmp_path / "empty.png").touch()
    image, good = png(tmp_path / "a.png", GRAY), png(tmp_path / "m.png", np.zeros_like(GRAY))
    with pytest.raises(ValueError, match=r"^mask bad.png: not an image file"):
        opened(image, good, tmp_path / "bad.png")
    with pytest.raises(ValueError, match=r"^mask empty.png: empty file"):
        opened(image, tmp_path / "empty.png")
    with pytest.raises(ValueError, match=r"^mask lost.png: No such file"):
        opened(image, tmp_path / "lost.png")


def mask_of(file: SourceFile, region: Region) -> np.ndarray:
    found = file.mask(region)
    assert found
    return found[0]


def test_image_is_opened_on_first_use(tmp_path: Path) -> None:
    mask = png(tmp_path / "m.png", np.full_like(GRAY, 255))
    one = opened(tmp_path / "not there.png", mask)
    np.testing.assert_array_equal(mask_of(one, Region()), np.ones_like(GRAY))
    with pytest.raises(FileNotFoundError):
        _ = one.image


def test_threads_read_the_same_pixels(tmp_path: Path) -> None:
    one = opened(tiff(tmp_path / "a.tif", [DEEP, DEEP[::-1].copy()]), frames="all", tile=16, stride=8)
    regions, start = one.regions()[0], threading.Barrier(8)
    pages = [stretched(page, DEEP.min(), DEEP.max(), 255) for page in (DEEP, DEEP[::-1])]

    def read(i: int) -> None:
        start.wait()
        for region in regions[i::8] + regions[::-1][i::8]:
            assert region.box
            assert np.abs(one.read(region)[0] - pages[region.frame][region.box.slices]).max() <= 0.5 + 1e-6

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read, range(8)))


def test_a_file_that_cannot_be_read_has_all_its_tiles_which_tell_it(tmp_path: Path) -> None:
    data = cv2.imencode(".jpg", cv2.resize(GRAY, (300, 300)))[1].tobytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    one = opened(tmp_path / "a.jpg", tile=64, min_foreground=0.1)
    regions, skipped = one.regions()
    assert (len(regions), skipped) == (25, 0)
    with pytest.raises(ValueError, match="truncated"):
        one.read(regions[0])
