"""The NumPy specification against OpenCV, numpy and formulas typed out from the papers."""

from fractions import Fraction

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from medsass.labels import threshold as spec
from tests.support.effort import examples

Image = NDArray[np.uint8]

seeds = st.integers(0, 2**32 - 1)


def _draw(kind: str, rng: np.random.Generator) -> Image:
    h, w = rng.integers(1, 40, 2)
    bimodal = np.where(rng.random((h, w)) < rng.random(), rng.normal(60, 20, (h, w)), rng.normal(180, 25, (h, w)))
    two = rng.choice(256, 2, replace=False)
    images = {
        "uniform": rng.integers(0, 256, (h, w)),
        "bimodal": bimodal.clip(0, 255),
        "two levels": rng.choice(two, (h, w)),
        "few levels": rng.choice(rng.integers(0, 256, 4), (h, w)),
        "one row": rng.integers(0, 256, (1, w)),
        "one pixel": rng.integers(0, 256, (1, 1)),
        "mostly black": np.where(rng.random((h, w)) < 0.03, rng.integers(0, 256, (h, w)), 0),
    }
    return images[kind].astype(np.uint8)


KINDS = ("uniform", "bimodal", "two levels", "few levels", "one row", "one pixel", "mostly black")


def test_gray_equals_opencv() -> None:
    levels = np.array([0, 1, 127, 128, 254, 255], np.uint8)
    corners = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(6, 36, 3)
    noise, batch = (
        np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8) for shape in ((500, 400, 3), (3, 5, 7, 3))
    )
    for pixels in (noise, corners):
        assert np.array_equal(spec.gray(pixels), cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))
    assert np.array_equal(spec.gray(batch), np.stack([cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in batch]))


@pytest.mark.parametrize("kind", KINDS)
def test_histogram_equals_opencv(kind: str) -> None:
    image = _draw(kind, np.random.default_rng(3))
    expected = cv2.calcHist([image], [0], None, [256], [0, 256]).ravel()
    counts = spec.histogram(image)
    assert counts.dtype == np.int64
    assert np.array_equal(counts, expected)


@examples(400)
@given(st.sampled_from(KINDS), seeds)
def test_otsu_equals_opencv(kind: str, seed: int) -> None:
    image = _draw(kind, np.random.default_rng(seed))
    expected = 0.0
    if image.min() != image.max():
        expected = cv2.threshold(image, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[0]
    found = spec.otsu(spec.histogram(image))
    # Of two thresholds that are exactly as good the statement takes the first, OpenCV what its rounding makes of them.
    assert found == expected or _variance(image, found) == _variance(image, expected) > 0
    assert found <= expected


def _variance(image: np.ndarray, level: float) -> Fraction:
    """Between-class variance times the squared number of pixels, exactly."""
    low, high = (image[side].astype(int).tolist() for side in (image <= level, image > level))
    if not low or not high:
        return Fraction(0)
    return len(low) * len(high) * (Fraction(sum(low), len(low)) - Fraction(sum(high), len(high))) ** 2


def test_otsu_of_one_level_is_0_and_of_ties_the_first() -> None:
    for level in (0, 17, 255):
        assert spec.otsu(spec.histogram(np.full((4, 5), level, np.uint8))) == 0
    counts = np.zeros(256, np.int64)
    counts[[10, 200]] = 5  # every level from 10 to 199 separates the two equally well
    assert spec.otsu(counts) == 10


@pytest.mark.parametrize("offset", [-7.0, -2.5, -0.3, 0.0, 0.5, 2.0, 3.7, 12.0])
@pytest.mark.parametrize("block_size", [3, 5, 11, 51])
def test_adaptive_mean_equals_opencv(block_size: int, offset: float) -> None:
    rng = np.random.default_rng(block_size)
    smooth = cv2.GaussianBlur(rng.integers(0, 256, (61, 83)).astype(np.uint8), (0, 0), 2)
    for image in (rng.integers(0, 256, (37, 20)).astype(np.uint8), smooth):
        expected = cv2.adaptiveThreshold(image, 1, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY, block_size, offset)
        assert np.array_equal(spec.adaptive_mean(image, block_size, offset), expected)


@examples(150)
@given(st.sampled_from(KINDS), seeds, st.integers(1, 30), st.floats(-40, 40))
def test_adaptive_mean_equals_opencv_on_any_image(kind: str, seed: int, half: int, offset: float) -> None:
    image = _draw(kind, np.random.default_rng(seed))
    block = 2 * half + 1
    expected = cv2.adaptiveThreshold(image, 1, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY, block, offset)
    assert np.array_equal(spec.adaptive_mean(image, block, offset), expected)


@examples(200)
@given(st.sampled_from(KINDS), seeds, st.integers(0, 255))
def test_separability_is_between_class_over_total_variance(kind: str, seed: int, level: int) -> None:
    image = _draw(kind, np.random.default_rng(seed)).astype(np.float64)
    above = image > level
    expected = 0.0
    if above.any() and not above.all():
        means = np.where(above, image[above].mean(), image[~above].mean())
        expected = float(np.var(means) / np.var(image))
    assert spec.separability(spec.histogram(image.astype(np.uint8)), level) == pytest.approx(expected, rel=1e-9)


def test_separability_of_two_levels_is_1() -> None:
    counts = np.zeros(256, np.int64)
    counts[[0, 255]] = [3, 11]
    assert spec.separability(counts, 0) == 1.0


@pytest.mark.parametrize("shape", [(5, 6), (1, 1), (1, 9), (9, 1), (2, 2), (2, 7)])
def test_polarity_auto_looks_at_each_pixel_of_the_outermost_ring_once(shape: tuple[int, int]) -> None:
    rng, (bottom, right) = np.random.default_rng(0), (shape[0] - 1, shape[1] - 1)
    for _ in range(50):
        mask = rng.random(shape) < 0.5
        ring = [mask[y, x] for y, x in np.ndindex(shape) if y in (0, bottom) or x in (0, right)]
        wanted = mask if 2 * sum(ring) <= len(ring) else ~mask
        assert np.array_equal(spec.foreground(mask, "auto"), wanted)


def test_polarity_auto_takes_an_object_in_the_middle_or_what_is_above_where_the_border_is_shared_equally() -> None:
    middle, shared = np.zeros((9, 9), bool), np.zeros((4, 4), bool)
    middle[3:6, 3:6] = shared[:2] = True
    shared[1, 1] = False
    for above, expected in ((middle, middle), (~middle, middle), (shared, shared)):
        assert np.array_equal(spec.foreground(above, "auto"), expected.astype(np.uint8))


def test_polarity_dark_is_the_complement_of_bright() -> None:
    above = np.random.default_rng(2).random((6, 7)) < 0.4
    assert np.array_equal(spec.foreground(above, "bright"), above)
    assert np.array_equal(spec.foreground(above, "dark"), ~above)


@pytest.mark.parametrize("block_size", [3, 5, 7, 9, 11, 51])
def test_adaptive_gaussian_is_opencvs_but_where_its_float32_mean_rounds_the_other_way(block_size: int) -> None:
    rng = np.random.default_rng(block_size)
    for _ in range(20):
        image = rng.integers(0, 256, (64, 80), dtype=np.uint8)
        opencv = cv2.adaptiveThreshold(image, 1, cv2.ADAPTIVE_THRESH_GAUSSIAN_C, cv2.THRESH_BINARY, block_size, 0)
        kernel = cv2.getGaussianKernel(block_size, 0)
        mean = cv2.sepFilter2D(image.astype(np.float64), -1, kernel, kernel, borderType=cv2.BORDER_REPLICATE)
        differ = spec.adaptive_gaussian(image, block_size, 0) != opencv
        assert np.all(np.abs(mean[differ] % 1 - 0.5) < 5e-4)
        assert differ.mean() < 1e-3


@pytest.mark.parametrize("block_size", range(11, 256, 2))
def test_gaussian_weights_follow_opencvs_rule_for_sigma(block_size: int) -> None:
    sigma = 0.3 * ((block_size - 1) * 0.5 - 1) + 0.8
    density = np.exp(-((np.arange(block_size) - block_size // 2) ** 2) / (2 * sigma**2))
    weights = spec.gaussian_weights(block_size)
    assert weights.sum() == 2**24
    np.testing.assert_allclose(weights / 2**24, density / density.sum(), rtol=0, atol=2e-6)
    assert np.array_equal(spec.gaussian_weights(3) * 4, np.array([1, 2, 1]) * 2**24)  # small ones are binomial
    assert np.array_equal(spec.gaussian_weights(5) * 16, np.array([1, 4, 6, 4, 1]) * 2**24)
