"""The NumPy specification against OpenCV, numpy and formulas typed out from the papers."""

import math
from fractions import Fraction

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from medsass.labels import threshold as spec

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


def _counts(seed: int) -> NDArray[np.int64]:
    """Histograms with several levels; most without empty bins, a few with gaps."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 200, 256)
    if rng.random() < 0.3:
        counts *= rng.random(256) < 0.2
        counts[[7, 90, 201]] = [5, 9, 4]
    return counts.astype(np.int64)


def _between(counts: NDArray[np.int64], level: int) -> float:
    """w0 w1 (mu0 - mu1)^2 (Otsu 1979, eq. 14), 0 where a class is empty."""
    x, n = np.arange(256.0), counts.astype(np.float64)
    low, high = n[: level + 1], n[level + 1 :]
    if not low.sum() or not high.sum():
        return 0.0
    means = (low @ x[: level + 1]) / low.sum(), (high @ x[level + 1 :]) / high.sum()
    return float(low.sum() * high.sum() / n.sum() ** 2 * (means[0] - means[1]) ** 2)


def test_gray_equals_opencv_on_random_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (500, 400, 3)).astype(np.uint8)
    assert np.array_equal(spec.gray(pixels), cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))


def test_gray_equals_opencv_at_the_corners_of_the_cube() -> None:
    levels = np.array([0, 1, 127, 128, 254, 255], np.uint8)
    pixels = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(6, 36, 3)
    assert np.array_equal(spec.gray(pixels), cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))


def test_gray_of_a_batch_is_gray_of_each_image() -> None:
    batch = np.random.default_rng(1).integers(0, 256, (3, 5, 7, 3)).astype(np.uint8)
    expected = np.stack([cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in batch])
    assert np.array_equal(spec.gray(batch), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_histogram_equals_opencv(kind: str) -> None:
    image = _draw(kind, np.random.default_rng(3))
    expected = cv2.calcHist([image], [0], None, [256], [0, 256]).ravel()
    counts = spec.histogram(image)
    assert counts.dtype == np.int64
    assert np.array_equal(counts, expected)


@settings(deadline=None, max_examples=400)
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


@pytest.mark.parametrize("level", [0, 17, 255])
def test_otsu_of_a_single_level_is_0(level: int) -> None:
    assert spec.otsu(spec.histogram(np.full((4, 5), level, np.uint8))) == 0


def test_otsu_is_the_first_of_tied_maximisers() -> None:
    counts = np.zeros(256, np.int64)
    counts[[10, 200]] = 5  # every level from 10 to 199 separates the two equally well
    assert spec.otsu(counts) == 10


@settings(deadline=None, max_examples=200)
@given(seeds)
def test_ght_with_huge_nu_and_tiny_tau_is_otsu(seed: int) -> None:
    counts = _counts(seed)
    level = math.floor(spec.ght(counts, 1e60, 1e-15, 0, 0))
    best = max(_between(counts, t) for t in range(255))
    assert _between(counts, level) == pytest.approx(best, rel=1e-9)


@settings(deadline=None, max_examples=100)
@given(seeds, st.integers(0, 254))
def test_ght_with_huge_kappa_is_the_omega_quantile(seed: int, level: int) -> None:
    counts = np.random.default_rng(seed).integers(1, 50, 256).astype(np.int64)
    omega = counts[: level + 1].sum() / counts.sum()
    assert spec.ght(counts, 0, 0, 1e60, omega) == level


def test_ght_with_huge_kappa_maximises_the_beta_prior() -> None:
    counts, omega = _counts(5), 0.37
    share = np.cumsum(counts)[:-1] / counts.sum()
    prior = omega * np.log(share) + (1 - omega) * np.log(1 - share)
    assert spec.ght(counts, 0, 0, 1e60, omega) == np.argmax(prior)


@settings(deadline=None, max_examples=100)
@given(seeds, st.integers(2, 1000))
def test_minimum_error_threshold_does_not_change_when_counts_are_scaled(seed: int, factor: int) -> None:
    counts = np.random.default_rng(seed).integers(1, 200, 256).astype(np.int64)
    assert spec.ght(counts * factor, 0, 0, 0, 0.5) == spec.ght(counts, 0, 0, 0, 0.5)


def _kittler_illingworth(counts: NDArray[np.int64], level: int) -> float:
    """J(t) = 1 + 2 (P1 ln s1 + P2 ln s2) - 2 (P1 ln P1 + P2 ln P2) (Kittler and Illingworth 1986, eq. 15)."""
    criterion = 1.0
    for levels in (np.arange(level + 1), np.arange(level + 1, 256)):
        n = counts[levels].astype(np.float64)
        share = n.sum() / counts.sum()
        mean = (n @ levels) / n.sum()
        deviation = math.sqrt(n @ (levels - mean) ** 2 / n.sum())
        criterion += 2 * share * (math.log(deviation) - math.log(share))
    return criterion


def _mixture() -> NDArray[np.int64]:
    x = np.arange(256.0)
    densities = [w * np.exp(-((x - m) ** 2) / (2 * s**2)) / s for w, m, s in ((0.8, 70, 9), (0.2, 160, 30))]
    return np.rint(1e5 * sum(densities)).astype(np.int64) + 1


def test_minimum_error_scores_are_kittler_illingworths_criterion() -> None:
    counts = _mixture()
    total, scores = int(counts.sum()), spec.ght_scores(counts, 0, 0, 0, 0.5)
    expected = [2 * total * math.log(total) - total * _kittler_illingworth(counts, t) for t in range(1, 254)]
    assert scores[1:254] == pytest.approx(expected, rel=1e-9)


def test_minimum_error_threshold_minimises_kittler_illingworths_criterion() -> None:
    counts = _mixture()
    best = min(range(1, 254), key=lambda t: _kittler_illingworth(counts, t))
    assert spec.ght(counts, 0, 0, 0, 0.5) == best


def _barron(counts: NDArray[np.int64], nu: float, tau: float, kappa: float, omega: float) -> list[float]:
    """The scores as Barron 2020 (arXiv 2007.07350, section 3) defines them, sums by loops."""
    scores = []
    for t in range(255):
        classes = [[(x, float(counts[x])) for x in levels] for levels in (range(t + 1), range(t + 1, 256))]
        weights = [max(1e-30, sum(n for _, n in pixels)) for pixels in classes]
        score = 0.0
        for pixels, w, share in zip(classes, weights, (omega, 1 - omega), strict=True):
            p = w / sum(weights)
            mean = sum(n * x for x, n in pixels) / w
            d = sum(n * (x - mean) ** 2 for x, n in pixels)
            v = max(1e-30, (p * nu * tau**2 + d) / (p * nu + w))
            score += -d / v - w * math.log(v) + 2 * (w + kappa * share) * math.log(w)
        scores.append(score)
    return scores


@pytest.mark.parametrize(
    "parameters",
    [(0.0, 0.0, 0.0, 0.5), (50.0, 10.0, 20.0, 0.3), (2e4, 12.0, 1e3, 0.7), (1e6, 1.0, 0.0, 0.0), (1.0, 40.0, 1e5, 0.9)],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_scores_equal_barrons_definitions(parameters: tuple[float, float, float, float], seed: int) -> None:
    counts = np.random.default_rng(seed).integers(1, 300, 256).astype(np.int64)
    scores = spec.ght_scores(counts, *parameters)
    inner = slice(1, 254)  # at both ends a class is a single level: d is 0 but for rounding
    assert scores.shape == (255,)
    assert scores[inner] == pytest.approx(_barron(counts, *parameters)[inner], rel=1e-9)


def test_scores_of_a_sparse_histogram_equal_barrons_definitions() -> None:
    counts = np.zeros(256, np.int64)
    counts[[3, 50, 51, 52, 190, 200]] = [7, 20, 31, 18, 9, 12]
    parameters = (30.0, 8.0, 5.0, 0.4)
    assert spec.ght_scores(counts, *parameters) == pytest.approx(_barron(counts, *parameters), rel=1e-9)


def test_ght_takes_the_mean_of_tied_maximisers() -> None:
    counts = np.zeros(256, np.int64)
    counts[[99, 100, 101, 149, 150, 151]] = [10, 20, 10, 10, 20, 10]  # levels 101 to 148 separate equally
    assert spec.ght(counts, 100, 5, 0, 0.5) == (101 + 148) / 2


@pytest.mark.parametrize("offset", [-7.0, -2.5, -0.3, 0.0, 0.5, 2.0, 3.7, 12.0])
@pytest.mark.parametrize("block_size", [3, 5, 11, 51])
def test_adaptive_mean_equals_opencv(block_size: int, offset: float) -> None:
    rng = np.random.default_rng(block_size)
    smooth = cv2.GaussianBlur(rng.integers(0, 256, (61, 83)).astype(np.uint8), (0, 0), 2)
    for image in (rng.integers(0, 256, (37, 20)).astype(np.uint8), smooth):
        expected = cv2.adaptiveThreshold(image, 1, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY, block_size, offset)
        assert np.array_equal(spec.adaptive_mean(image, block_size, offset), expected)


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(KINDS), seeds, st.integers(1, 30), st.floats(-40, 40))
def test_adaptive_mean_equals_opencv_on_any_image(kind: str, seed: int, half: int, offset: float) -> None:
    image = _draw(kind, np.random.default_rng(seed))
    block = 2 * half + 1
    expected = cv2.adaptiveThreshold(image, 1, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY, block, offset)
    assert np.array_equal(spec.adaptive_mean(image, block, offset), expected)


@settings(deadline=None, max_examples=200)
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


def test_border_is_the_outermost_ring_each_pixel_once() -> None:
    mask = np.arange(30).reshape(5, 6) % 7 == 0
    ring = [mask[y, x] for y in range(5) for x in range(6) if y in (0, 4) or x in (0, 5)]
    assert spec.border(mask).tolist() == ring


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (2, 7)])
def test_border_of_a_thin_image_is_all_of_it(shape: tuple[int, int]) -> None:
    mask = np.random.default_rng(0).random(shape) < 0.5
    assert spec.border(mask).tolist() == mask.ravel().tolist()


def _object_in_the_middle() -> NDArray[np.bool_]:
    middle = np.zeros((9, 9), bool)
    middle[3:6, 3:6] = True
    return middle


def test_auto_polarity_takes_a_bright_object_in_the_middle() -> None:
    middle = _object_in_the_middle()
    assert np.array_equal(spec.foreground(middle, "auto"), middle.astype(np.uint8))


def test_auto_polarity_takes_a_dark_object_in_the_middle() -> None:
    middle = _object_in_the_middle()
    assert np.array_equal(spec.foreground(~middle, "auto"), middle.astype(np.uint8))


def test_auto_polarity_takes_what_is_above_where_the_border_is_shared_equally() -> None:
    above = np.zeros((4, 4), bool)
    above[:2] = True
    above[1, 1] = False
    assert np.array_equal(spec.foreground(above, "auto"), above.astype(np.uint8))


def test_dark_is_the_complement_of_bright() -> None:
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


def test_small_gaussian_weights_are_binomial() -> None:
    assert np.array_equal(spec.gaussian_weights(3) * 4, np.array([1, 2, 1]) * 2**24)
    assert np.array_equal(spec.gaussian_weights(5) * 16, np.array([1, 4, 6, 4, 1]) * 2**24)
