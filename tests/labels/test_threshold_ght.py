"""Generalised histogram thresholding against formulas typed out from the papers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from medsass.labels import threshold as spec
from tests.support.effort import examples

seeds = st.integers(0, 2**32 - 1)


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


@examples(200)
@given(seeds)
def test_ght_with_huge_nu_and_tiny_tau_is_otsu(seed: int) -> None:
    counts = _counts(seed)
    level = math.floor(spec.ght(counts, 1e60, 1e-15, 0, 0))
    best = max(_between(counts, t) for t in range(255))
    assert _between(counts, level) == pytest.approx(best, rel=1e-9)


@examples(100)
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


@examples(100)
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
