"""Parameters of random changes: their distributions, beside torchvision's, by scipy's tests and as documented."""

from dataclasses import replace
from itertools import product

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, ks_2samp, kstest
from torchvision.transforms import RandomResizedCrop

from medsass.data.loading import augment, order
from medsass.data.loading.augment import UNIFORM, Augment, View

STILL = Augment(crop=1.0, flip=False, jitter=0.0, hue=0.0)
ALL = Augment(jitter=0.4, saturation=0.3, hue=30.0, jitter_chance=0.8, gray=0.2, blur=0.5, solarize=0.1)
COUNT = 4000
UNIT = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64)  # corners, (x, y), clockwise


def drawn(
    chosen: Augment, size: int = 224, depth: int = 8, sides: object = (192, 256), seed: int = 0
) -> dict[str, np.ndarray]:
    """Return `parameters` of many images by name."""
    view = View(size, chosen)
    sizes = np.broadcast_to(np.array(sides), (COUNT, 2))
    uniform = np.random.default_rng(seed).random((COUNT, UNIFORM))
    found = augment.parameters(view, depth, uniform, sizes)
    columns = augment.columns(view, depth)
    assert found.dtype == np.float32
    assert found.shape == (COUNT, max(column.stop for column in columns.values()))
    return {name: found[:, column].astype(float) for name, column in columns.items()}


def uniform(values: np.ndarray, low: float, high: float) -> None:
    """Assert that values are uniform in that range."""
    assert low - 1e-5 <= values.min()
    assert values.max() <= high + 1e-5
    assert kstest(values.ravel(), "uniform", (low, high - low)).pvalue > 0.001


def chance(happens: np.ndarray, probability: float) -> None:
    """Assert that it happens with that probability."""
    assert binomtest(int(happens.sum()), happens.size, probability).pvalue > 0.001


def boxes(region: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return begin and extent (y, x) of regions, and whether they are flipped."""
    first, last = region[:, :2], region[:, 2:]
    return np.minimum(first, last), np.abs(last - first), first > last


@pytest.mark.parametrize("area", [(0.08, 1.0), (0.05, 0.4), (0.5, 0.5)])
@pytest.mark.parametrize("sides", [(192, 256), (40, 40), (100, 500), (300, 90)])
def test_crops_by_area_equal_torchvisions(area: tuple[float, float], sides: tuple[int, int]) -> None:
    """Compared in pixels, so that rounding and the fallback for images too long for any crop are covered."""
    begin, extent, flipped = boxes(drawn(replace(STILL, area=area), sides=sides)["region"])
    assert not flipped.any()
    torch.manual_seed(0)
    image = torch.empty(3, *sides)
    expected = np.array([RandomResizedCrop.get_params(image, list(area), [3 / 4, 4 / 3]) for _ in range(COUNT)])
    found = np.concatenate([begin * sides, extent * sides], axis=1)
    assert np.abs(found - np.round(found)).max() < 1e-3
    for mine, theirs in zip(np.round(found).T, expected.T, strict=True):
        if len(np.unique(theirs)) == 1:
            assert np.isin(mine, theirs).mean() > 0.99
        else:
            assert ks_2samp(mine, theirs).pvalue > 0.001


@pytest.mark.parametrize("sides", [(10, 1000), (1000, 10)])
def test_images_too_long_for_any_crop_get_torchvisions_middle(sides: tuple[int, int]) -> None:
    begin, extent, _ = boxes(drawn(replace(STILL, area=(0.9, 1.0)), sides=sides)["region"])
    expected = RandomResizedCrop.get_params(torch.empty(3, *sides), [0.9, 1.0], [3 / 4, 4 / 3])
    np.testing.assert_allclose(
        np.concatenate([begin * sides, extent * sides], 1), np.tile(expected, (COUNT, 1)), atol=1e-3
    )


@given(st.integers(1, 3000), st.integers(1, 3000), st.floats(0.01, 1.0))
def test_crops_by_area_lie_within_any_image(height: int, width: int, least: float) -> None:
    view = View(32, replace(STILL, area=(least, 1.0)))
    found = augment.parameters(
        view, 8, np.random.default_rng(0).random((50, UNIFORM)), np.tile([height, width], (50, 1))
    )
    begin, extent, _ = boxes(found[:, augment.columns(view, 8)["region"]].astype(float))
    assert (extent * (height, width) > 0.99).all()
    assert (begin >= 0).all()
    assert (begin + extent <= 1 + 1e-6).all()


def test_each_image_is_cropped_by_its_own_size() -> None:
    sides = np.stack([np.full(COUNT, 100), np.linspace(20, 900, COUNT).astype(int)], 1)
    _, extent, _ = boxes(drawn(replace(STILL, area=(0.01, 0.02)), sides=sides)["region"])
    pixels = extent * sides
    assert np.abs(pixels - np.round(pixels)).max() < 1e-3
    assert np.abs(np.log(pixels[:, 1] / pixels[:, 0])).max() < np.log(2)


def test_crops_by_sides_are_uniform_in_extent_and_place() -> None:
    begin, extent, _ = boxes(drawn(replace(STILL, crop=0.3))["region"])
    uniform(extent, 0.3, 1.0)
    uniform(begin / (1 - extent), 0.0, 1.0)
    assert abs(np.corrcoef(extent.T)[0, 1]) < 0.06


def test_a_crop_of_one_is_exactly_the_whole_image() -> None:
    assert (drawn(STILL)["region"] == [0, 0, 1, 1]).all()


@pytest.mark.parametrize(("flip", "vertical"), product([True, False], repeat=2))
def test_flips_are_independent_coins(flip: bool, vertical: bool) -> None:
    *_, flipped = boxes(drawn(replace(STILL, flip=flip, vertical=vertical))["region"])
    for column, asked in zip(flipped.T, (flip and vertical, flip), strict=True):
        if asked:
            chance(column, 0.5)
        else:
            assert not column.any()
    if flip and vertical:
        chance(flipped.all(1), 0.25)


def test_colours_are_uniform_where_they_change_and_neutral_elsewhere() -> None:
    colour = drawn(replace(ALL, gray=0.0))["colour0"]
    happens = (colour != [1, 1, 1, 0]).any(1)
    chance(happens, 0.8)
    for column, (low, high) in zip(colour[happens].T, [(0.6, 1.4), (0.6, 1.4), (0.7, 1.3), (-30, 30)], strict=True):
        uniform(column, low, high)
    assert np.abs(np.corrcoef(colour[happens].T) - np.eye(4)).max() < 0.08


def test_saturation_follows_jitter_unless_given() -> None:
    uniform(drawn(Augment(jitter=0.25))["colour0"][:, 2], 0.75, 1.25)
    assert (drawn(Augment(jitter=0.25, saturation=0.0))["colour0"][:, 2] == 1).all()


def test_gray_removes_all_saturation_with_and_without_jitter() -> None:
    colour = drawn(replace(ALL, jitter_chance=0.5, gray=0.3))["colour0"]
    lost = colour[:, 2] == 0
    chance(lost, 0.3)
    chance(colour[lost][:, 0] == 1, 0.5)


def test_blur_and_solarisation_happen_with_their_chances() -> None:
    for size in (224, 96):
        found = drawn(ALL, size)
        sigma = found["sigma"][:, 0]
        blurred = sigma > 2e-3
        chance(blurred, 0.5)
        uniform(sigma[blurred], 0.1 * size / 224, 2.0 * size / 224)
        assert (sigma[~blurred] == np.float32(1e-3)).all()
        chance(found["solarize"][:, 0] == 255, 0.1)
        assert np.isin(found["solarize"], (0, 255)).all()


def test_changes_are_independent() -> None:
    found = drawn(ALL)
    happens = np.stack([
        found["colour0"][:, 0] != 1, found["colour0"][:, 2] == 0, found["sigma"][:, 0] > 2e-3, found["solarize"][:, 0] > 0,
        found["region"][:, 0] > found["region"][:, 2], found["region"][:, 1] > found["region"][:, 3],
    ])  # fmt: skip
    assert np.abs(np.corrcoef(happens) - np.eye(6)).max() < 0.07


def shown(matrices: np.ndarray, size: int) -> np.ndarray:
    """Return where the maps take the corners, (N, 4, 2), as shares of the side, by OpenCV."""
    return np.array([cv2.perspectiveTransform(UNIT[None] * size, one.reshape(3, 3))[0] / size for one in matrices])


def test_a_stage_either_jitters_or_warps() -> None:
    found = drawn(Augment(jitter=0.4, warp=True, gray=0.2))
    for stage in range(2):
        still = (found[f"matrix{stage}"] == np.eye(3).ravel()).all(1)
        coloured = found[f"colour{stage}"][:, 0] != 1
        assert (still == coloured).all()
        chance(still, 0.5)
    chance((found["colour0"][:, 0] != 1) & (found["colour1"][:, 0] != 1), 0.25)
    assert (found["colour0"][:, 2] > 0).all()
    chance(found["colour1"][:, 2] == 0, 0.2)


@pytest.mark.parametrize("size", [96, 224])
def test_perspectives_move_corners_inwards_by_up_to_a_quarter(size: int) -> None:
    matrices = drawn(Augment(warp=True), size)["matrix0"]
    matrices = matrices[(matrices != np.eye(3).ravel()).any(1)]
    inwards = (shown(matrices, size) - UNIT) * (1 - 2 * UNIT)
    uniform(inwards, 0.0, 0.25)
    assert np.abs(np.corrcoef(inwards.reshape(-1, 8).T) - np.eye(8)).max() < 0.1


@pytest.mark.parametrize("size", [96, 224])
def test_affine_maps_turn_scale_and_shift_within_their_ranges(size: int) -> None:
    matrices = drawn(Augment(warp=True), size)["matrix1"].reshape(-1, 3, 3)
    matrices = matrices[(matrices != np.eye(3)).any((1, 2))]
    assert (matrices[:, 2] == [0, 0, 1]).all()
    linear = matrices[:, :2, :2]
    scale = np.sqrt(np.linalg.det(linear))
    turn = linear / scale[:, None, None]
    np.testing.assert_allclose(turn @ turn.transpose(0, 2, 1), np.tile(np.eye(2), (len(turn), 1, 1)), atol=1e-5)
    uniform(scale, 0.9, 1.1)
    uniform(np.degrees(np.arctan2(turn[:, 1, 0], turn[:, 0, 0])), -15, 15)
    uniform(shown(matrices, size).mean(1) - 0.5, -0.1, 0.1)


def test_16_bit_views_have_brightness_and_contrast_alone() -> None:
    everything = replace(ALL, warp=True)
    names = {"region", "colour0", "matrix0", "colour1", "matrix1", "sigma"}
    assert set(augment.columns(View(32, everything), 16)) == names
    found = drawn(replace(everything, warp=False), depth=16)
    happens = (found["colour0"] != 1).any(1)
    assert found["colour0"].shape[1] == 2
    uniform(found["colour0"][happens], 0.6, 1.4)
    assert "colour0" not in augment.columns(View(32, replace(ALL, jitter=0)), 16)


def test_columns_follow_one_another() -> None:
    for chosen, depth in product([STILL, ALL, replace(ALL, warp=True), Augment()], [8, 16]):
        slices = list(augment.columns(View(8, chosen), depth).values())
        assert [found.start for found in slices] == [0, *(found.stop for found in slices[:-1])]
    assert augment.columns(View(8), 8) == {}


def test_an_images_numbers_do_not_depend_on_the_images_beside_it() -> None:
    numbers = order.uniform(0, 0, 0, (12, UNIFORM))
    sides = np.random.default_rng(0).integers(10, 500, (12, 2))
    for chosen in (replace(ALL, area=(0.1, 1.0)), replace(ALL, warp=True)):
        view = View(32, chosen)
        whole = augment.parameters(view, 8, numbers, sides)
        for some in (slice(0, 5), slice(5, 6), slice(6, 12)):
            assert (augment.parameters(view, 8, numbers[some], sides[some]) == whole[some]).all()


def test_one_change_does_not_shift_the_numbers_of_another() -> None:
    before, after = drawn(Augment()), drawn(Augment(blur=0.5, gray=0.3, solarize=0.5, hue=90.0))
    assert (before["region"] == after["region"]).all()
    assert (before["colour0"][:, :2] == after["colour0"][:, :2]).all()
