"""Tiles against counting pixels, foreground against scikit-image, orientation against Pillow, channels."""

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from skimage.filters import threshold_otsu

from medsass.data.formats import geometry
from medsass.data.formats.geometry import Box

PLANES = np.random.default_rng(0).integers(1, 256, (3, 5, 6), np.uint8)
ARRAY = np.arange(6 * 9, dtype=np.uint8).reshape(6, 9)

seeds = st.integers(0, 2**32 - 1)
lengths = st.integers(1, 300)


@st.composite
def _steps(draw: st.DrawFn) -> tuple[int, int]:
    tile = draw(st.integers(1, 90))
    return tile, draw(st.integers(1, tile))


def test_a_box_indexes_rows_then_columns() -> None:
    array = np.arange(35).reshape(5, 7)
    assert array[Box(1, 4, 2, 3).slices].tolist() == [[11, 12, 13], [18, 19, 20]]


@pytest.mark.parametrize(
    ("length", "tile", "stride", "expected"),
    [
        (100, 30, 30, [0, 30, 60, 70]),
        (90, 30, 30, [0, 30, 60]),
        (91, 30, 30, [0, 30, 60, 61]),
        (100, 40, 20, [0, 20, 40, 60]),
        (30, 30, 10, [0]),
        (29, 30, 30, [0]),
        (31, 30, 30, [0, 1]),
        (1, 1, 1, [0]),
    ],
)
def test_starts_of_known_lengths(length: int, tile: int, stride: int, expected: list[int]) -> None:
    assert geometry.starts(length, tile, stride) == expected


@given(lengths, _steps())
def test_every_pixel_is_covered_and_none_beyond_the_edge(length: int, step: tuple[int, int]) -> None:
    tile, stride = step
    starts = geometry.starts(length, tile, stride)
    side = min(tile, length)
    covered = {pixel for start in starts for pixel in range(start, start + side)}
    assert covered == set(range(length))
    assert starts == sorted(set(starts))
    assert all(later - earlier == stride for earlier, later in pairwise(starts[:-1]))


@given(lengths, _steps())
def test_there_are_no_more_tiles_than_the_length_needs(length: int, step: tuple[int, int]) -> None:
    tile, stride = step
    needed = 1
    while (needed - 1) * stride + tile < length:
        needed += 1
    assert len(geometry.starts(length, tile, stride)) == needed


@given(st.integers(1, 60), st.integers(1, 60), _steps())
def test_the_grid_covers_the_image_with_tiles_of_one_size_row_by_row(
    height: int, width: int, step: tuple[int, int]
) -> None:
    boxes = list(geometry.grid(height, width, *step))
    seen = np.zeros((height, width), int)
    for box in boxes:
        part = seen[box.slices]
        assert part.shape == (box.height, box.width) == (min(step[0], height), min(step[0], width))
        part += 1
    assert seen.min() >= 1
    if step[0] == step[1] and height % step[0] == width % step[0] == 0:
        assert seen.max() == 1
    assert boxes == sorted(boxes, key=lambda box: (box.y, box.x))


@given(seeds)
def test_foreground_is_what_scikit_images_otsu_leaves_above(seed: int) -> None:
    rng = np.random.default_rng(seed)
    dark, light = rng.normal(60, 15, (40, 50)), rng.normal(170, 20, (40, 50))
    small = np.where(rng.random((40, 50)) < 0.4, dark, light).clip(0, 255).astype(np.uint8)
    above = small > threshold_otsu(small)
    assert np.array_equal(geometry.foreground(small, "bright"), above)
    assert np.array_equal(geometry.foreground(small, "dark"), ~above)


@given(seeds, st.integers(1, 12), st.integers(1, 12))
def test_auto_takes_the_class_that_holds_less_of_the_border(seed: int, height: int, width: int) -> None:
    above = np.random.default_rng(seed).random((height, width)) < 0.5
    ring = [
        above[y, x] for y in range(height) for x in range(width) if y in (0, height - 1) or x in (0, width - 1)
    ]  # each pixel of the border once
    small = np.where(above, 200, 20).astype(np.uint8)
    expected = above if sum(ring) <= len(ring) / 2 else ~above
    if above.all() or not above.any():
        expected = np.zeros_like(above)
    found = geometry.foreground(small, "auto")
    assert found.dtype == np.uint8
    assert np.array_equal(found, expected)


def test_auto_counts_each_border_pixel_of_a_narrow_image_once() -> None:
    small = np.array([[200], [200], [20], [200], [20], [20], [200]], np.uint8)
    assert geometry.foreground(small, "auto")[:, 0].tolist() == [0, 0, 1, 0, 1, 1, 0]


@pytest.mark.parametrize("value", [0, 7, 255])
@pytest.mark.parametrize("polarity", ["bright", "dark", "auto"])
def test_a_constant_image_has_no_foreground(value: int, polarity: str) -> None:
    assert not geometry.foreground(np.full((9, 11), value, np.uint8), polarity).any()


@given(seeds, st.integers(1, 5), st.integers(1, 5), st.data())
def test_the_share_is_the_masks_mean_where_the_box_falls_on_its_pixels(
    seed: int, down: int, across: int, data: st.DataObject
) -> None:
    mask = (np.random.default_rng(seed).random((9, 13)) < 0.3).astype(np.uint8)
    whole = np.kron(mask, np.ones((down, across), np.uint8))
    top, left = data.draw(st.integers(0, 8)), data.draw(st.integers(0, 12))
    height, width = data.draw(st.integers(1, 9 - top)), data.draw(st.integers(1, 13 - left))
    box = Box(top * down, left * across, height * down, width * across)
    assert geometry.share(mask, box, *whole.shape) == pytest.approx(float(whole[box.slices].mean()), abs=1e-12)


@given(seeds, st.integers(1, 700), st.integers(1, 700), _steps())
def test_the_share_of_any_tile_of_any_image_is_a_share(
    seed: int, height: int, width: int, step: tuple[int, int]
) -> None:
    shape = max(1, height // 7), max(1, width // 11)
    mask = (np.random.default_rng(seed).random(shape) < 0.5).astype(np.uint8)
    for start in geometry.starts(height, *step)[-2:]:
        box = Box(start, geometry.starts(width, *step)[-1], min(step[0], height), min(step[0], width))
        assert 0 <= geometry.share(mask, box, height, width) <= 1
        assert geometry.share(np.ones_like(mask), box, height, width) == 1


def test_the_share_follows_the_real_mask_of_a_dermoscopy(real_data: Path) -> None:
    folder = real_data / "isic2017_fullsize"
    path = sorted(folder.rglob("*_segmentation.png"))[0]
    with Image.open(path) as image:
        mask = (np.asarray(image.convert("L")) > 0).astype(np.uint8)
    height, width = mask.shape
    small = cv2.resize(mask * np.uint8(255), (width * 256 // height, 256), interpolation=cv2.INTER_AREA) > 127
    for box in geometry.grid(height, width, 512, 512):
        exact = float(mask[box.slices].mean())
        assert abs(geometry.share(small.astype(np.uint8), box, height, width) - exact) < 0.05


@pytest.mark.parametrize(("name", "polarity"), [("dsb2018", "bright"), ("isic2017", "dark")])
def test_auto_finds_the_side_of_real_images(real_data: Path, name: str, polarity: str) -> None:
    pattern = {"dsb2018": "stage1_train/*/images/*.png", "isic2017": "ISIC-2017_Validation_Data/*.jpg"}[name]
    right = []
    for path in sorted((real_data / name).glob(pattern))[:40]:
        with Image.open(path) as image:
            small = np.asarray(image.convert("L"))
        right.append(np.array_equal(geometry.foreground(small, "auto"), geometry.foreground(small, polarity)))
    assert np.mean(right) > 0.75


def turned(value: int) -> np.ndarray:
    image = Image.fromarray(ARRAY)
    image.getexif()[geometry.ORIENTATION] = value
    return np.asarray(ImageOps.exif_transpose(image))


@pytest.mark.parametrize("value", range(1, 9))
def test_pixels_stand_upright(value: int) -> None:
    np.testing.assert_array_equal(geometry.upright(ARRAY, value), turned(value))
    assert geometry.swaps_axes(value) == (turned(value).shape != ARRAY.shape)
    assert geometry.upright(np.dstack([ARRAY] * 3), value).shape == (*turned(value).shape, 3)


@pytest.mark.parametrize("value", range(1, 9))
def test_a_box_of_the_upright_image_is_found_in_the_file(value: int) -> None:
    height, width = turned(value).shape
    for box in (Box(0, 0, height, width), Box(1, 2, 3, 2), Box(height - 1, width - 2, 1, 2)):
        stored = geometry.stored_box(box, value, *ARRAY.shape)
        np.testing.assert_array_equal(geometry.upright(ARRAY[stored.slices], value), turned(value)[box.slices])


@pytest.mark.parametrize(("value", "meaning"), [(6, 6), (1, 1), (0, 1), (9, 1), (None, 1), ("6", 1), ((6,), 1)])
def test_unknown_values_mean_upright(value: object, meaning: int) -> None:
    assert geometry.known_orientation(value) == meaning


@pytest.mark.parametrize("chosen", [(0,), (2, 1, 0), (0, 0, 1), (1, -1, 0), (-1, 2, -1)])
def test_channels_are_put_together_and_read_once(chosen: tuple[int, ...]) -> None:
    read: list[int] = []
    got = geometry.compose(chosen, lambda i: read.append(i) or PLANES[i])
    padded = np.concatenate([PLANES, np.zeros((1, 5, 6), np.uint8)])  # -1 is the last: black
    np.testing.assert_array_equal(
        got, padded[list(chosen)].transpose(1, 2, 0)[..., 0 if len(chosen) == 1 else slice(None)]
    )
    assert got.dtype == np.uint8
    assert sorted(read) == sorted({i for i in chosen if i >= 0})
