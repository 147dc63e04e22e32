"""Each criterion against scikit-image or its formula, on shapes whose answer is known, and on real images with their truth."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage, stats
from skimage import measure
from sklearn.metrics import jaccard_score

from medsass.labels import Labeler, criteria
from medsass.labels.criteria import CRITERIA
from tests.support.effort import examples

RNG = np.random.default_rng(0)


def _disk(side: int = 64, radius: int = 20, centre: tuple[int, int] = (32, 32)) -> np.ndarray:
    y, x = np.mgrid[:side, :side]
    return ((y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2).astype(np.uint8)


def _scene() -> tuple[torch.Tensor, torch.Tensor]:
    """A bright disk on a dark ground with noise, and its mask."""
    mask = _disk()
    gray = 60 + 120.0 * mask + RNG.normal(0, 8, mask.shape)
    return torch.tensor(gray[None], dtype=torch.float32), torch.from_numpy(mask[None])


masks = st.integers(0, 10_000).map(
    lambda seed: torch.from_numpy((np.random.default_rng(seed).random((2, 9, 11)) < 0.4).astype(np.uint8))
)


@examples(100)
@given(masks, masks)
def test_overlap_is_the_jaccard_index(a: torch.Tensor, b: torch.Tensor) -> None:
    found = criteria.overlap(a, b)
    for i in range(2):
        assert float(found[i]) == pytest.approx(jaccard_score(a[i].flatten(), b[i].flatten(), zero_division=1.0))


def test_empty_masks_dust_and_what_runs_along_the_frame() -> None:
    empty, gray = torch.zeros(1, 64, 64, dtype=torch.uint8), torch.zeros(1, 64, 64)
    assert criteria.overlap(empty, empty).item() == 1
    assert criteria.overlap(empty, 1 - empty).item() == 0
    disk = _disk()
    dust = disk | (np.random.default_rng(1).random(disk.shape) < 0.3).astype(np.uint8)
    whole, dusty = (criteria.compactness(gray, torch.from_numpy(mask[None])).item() for mask in (disk, dust))
    assert whole > 0.9
    assert dusty < 0.3
    inside, corners = (
        criteria.frame(gray, torch.from_numpy(mask[None])).item() for mask in (disk, 1 - _disk(radius=36))
    )
    assert inside == 1
    assert corners < 0.75


@pytest.mark.parametrize("name", CRITERIA)
@examples(30)
@given(masks)
def test_criteria_are_shares_and_do_not_depend_on_the_batch(name: str, mask: torch.Tensor) -> None:
    gray = torch.from_numpy(RNG.random(mask.shape).astype(np.float32) * 255)
    found = CRITERIA[name](gray, mask)
    assert found.shape == (2,)
    assert ((found >= 0) & (found <= 1)).all()
    alone = torch.cat([CRITERIA[name](gray[i : i + 1], mask[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(found, alone)


@pytest.mark.parametrize("name", [name for name in CRITERIA if name != "frame"])
@pytest.mark.parametrize("fill", [0, 1])
def test_a_mask_that_says_nothing_scores_nothing(name: str, fill: int) -> None:
    gray, mask = _scene()
    assert CRITERIA[name](gray, torch.full_like(mask, fill)).item() == 0


def test_separation_is_otsus_criterion_and_highest_at_his_threshold() -> None:
    image = torch.from_numpy(RNG.integers(0, 256, (1, 40, 40)).astype(np.uint8))
    labels = Labeler(polarity="bright")(image)
    assert criteria.separation(image.float(), labels.mask).item() == pytest.approx(labels.separability.item(), abs=1e-5)


@pytest.mark.parametrize("name", ["separation", "contrast", "size", "frame"])
def test_the_truth_is_no_worse_than_the_truth_moved_away(name: str) -> None:
    gray, mask = _scene()
    moved = mask.roll((15, 22), (1, 2))
    assert CRITERIA[name](gray, mask) >= CRITERIA[name](gray, moved) - 1e-6


def test_contrast_is_half_of_a_random_outline_and_nearly_1_of_the_right_one() -> None:
    gray, mask = _scene()
    assert criteria.contrast(gray, mask).item() > 0.9
    noise = torch.from_numpy(RNG.normal(0, 1, (1, 64, 64)).astype(np.float32))
    assert criteria.contrast(noise, mask).item() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("row", [10, 50])
def test_contrast_does_not_depend_on_where_equal_pixels_stand(row: int) -> None:
    gray, mask = torch.zeros(1, 64, 64), torch.zeros(1, 64, 64, dtype=torch.uint8)
    gray[0, 30:34, 30:34] = 200
    mask[0, row : row + 4, 4:8] = 1
    slopes = (ndimage.sobel(gray[0].numpy(), axis, mode="nearest") for axis in (0, 1))
    lengths = stats.rankdata(np.hypot(*slopes).flatten()) - 1
    expected = lengths[criteria.outline(mask).flatten().numpy() > 0].mean() / (64 * 64 - 1)
    assert criteria.contrast(gray, mask).item() == pytest.approx(expected, abs=1e-6)


def test_compactness_is_about_that_of_scikit_image() -> None:
    for mask in (
        _disk(),
        np.pad(np.ones((20, 20), np.uint8), 22),
        np.pad(np.ones((4, 40), np.uint8), ((30, 30), (12, 12))),
    ):
        (shape,) = measure.regionprops(mask.astype(int))
        expected = min(1.0, 4 * math.pi * shape.area / (shape.perimeter_crofton**2))
        found = criteria.compactness(torch.zeros(1, 64, 64), torch.from_numpy(mask[None])).item()
        assert found == pytest.approx(expected, abs=0.2)


@pytest.mark.parametrize(("share", "expected"), [(0.001, 0), (0.02, 1), (0.3, 1), (0.5, 1), (0.65, 0.5), (0.9, 0)])
def test_size_is_plausible_between_a_fiftieth_and_a_half(share: float, expected: float) -> None:
    mask = torch.zeros(1, 100, 100, dtype=torch.uint8)
    mask.view(-1)[: round(share * 10_000)] = 1
    assert criteria.size(torch.zeros(1, 100, 100), mask).item() == pytest.approx(expected, abs=0.01)


def test_agreement_is_the_mean_of_pairs() -> None:
    three = torch.from_numpy((RNG.random((3, 2, 8, 8)) < 0.5).astype(np.uint8))
    found = criteria.agreement(three)
    for i in range(3):
        others = torch.stack([criteria.overlap(three[i], three[j]) for j in range(3) if j != i]).mean(0)
        torch.testing.assert_close(found[i], others)


def test_outline_is_where_neighbours_differ() -> None:
    mask = torch.zeros(1, 5, 6, dtype=torch.uint8)
    mask[0, :, 3:] = 1
    assert criteria.outline(mask)[0].int().tolist() == [[0, 0, 1, 1, 0, 0]] * 5
