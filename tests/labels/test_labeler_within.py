"""Labels of the part of an image that is not padding, against OpenCV and the specification on that part alone."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medsass.labels import Labeler, threshold
from tests.support.effort import examples

Y, X = np.mgrid[:96, :96]
FIELD = np.hypot(Y - 48, X - 48) < 44
DISC = np.hypot(Y - 40, X - 56) < 10
RNG = np.random.default_rng(0)


def scan() -> np.ndarray:
    """Tissue and a dense disc in a round field, around which is the darkest level."""
    levels = np.where(DISC, 160, 120) + RNG.integers(-8, 9, FIELD.shape)
    return np.asarray(np.where(FIELD, levels, 0).astype(np.uint8))


def within(labeler: Labeler, image: np.ndarray, outside: np.ndarray) -> tuple[np.ndarray, float]:
    labels = labeler.within(torch.from_numpy(image)[None], torch.from_numpy(outside.astype(np.uint8))[None])
    return labels.mask[0].numpy(), labels.threshold.item()


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12))), st.data())
@examples(100)
def test_otsu_is_that_of_the_pixels_inside(image: np.ndarray, data: st.DataObject) -> None:
    outside = data.draw(hnp.arrays(np.bool_, image.shape))
    inside = image[~outside]
    if inside.size == 0 or inside.min() == inside.max():
        assert not within(Labeler("otsu", "bright"), image, outside)[0].any()
        return
    level, _ = cv2.threshold(inside, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    for polarity, truth in (("bright", image > level), ("dark", image <= level)):
        mask, found = within(Labeler("otsu", polarity), image, outside)
        assert found == level
        np.testing.assert_array_equal(mask, truth & ~outside)


def test_ght_is_that_of_the_pixels_inside() -> None:
    image, ght = scan(), (200.0, 12.0, 40.0, 0.3)
    level = threshold.ght(threshold.histogram(image[FIELD]), *ght)
    mask, found = within(Labeler("ght", "bright", ght=ght), image, ~FIELD)
    assert found == np.float32(level)
    np.testing.assert_array_equal(mask, (image > level) & FIELD)


@pytest.mark.parametrize(("method", "refine"), [
    ("otsu", ""), ("otsu", "blur:1"), ("otsu", "holes,min:0.01"), ("otsu", "vignette,largest:1"),
])  # fmt: skip
@pytest.mark.parametrize("turned", [False, True])
def test_the_disc_is_found_and_not_the_field_of_view(method: str, refine: str, turned: bool) -> None:
    image = 255 - scan() if turned else scan()
    mask, _ = within(Labeler(method, "auto", refine=refine), image, ~FIELD)
    union = (mask > 0) | DISC
    assert ((mask > 0) & DISC).sum() / union.sum() > 0.9
    assert not mask[~FIELD].any()


def test_16_bit_levels_are_the_files_own() -> None:
    image = np.where(DISC, 30_000, np.where(FIELD, 20_000, 63_000)).astype(np.uint16)
    mask, level = within(Labeler(), image, ~FIELD)
    assert 20_000 <= level < 30_000
    np.testing.assert_array_equal(mask, DISC)


def test_without_padding_it_is_what_a_call_gives() -> None:
    image = RNG.integers(0, 256, (40, 30)).astype(np.uint8)
    for method, polarity in (("otsu", "auto"), ("ght", "dark"), ("adaptive-mean", "bright")):
        labeler = Labeler(method, polarity, refine="holes")
        mask, level = within(labeler, image, np.zeros_like(image, bool))
        whole = labeler(torch.from_numpy(image)[None])
        np.testing.assert_array_equal(mask, whole.mask[0])
        assert level == whole.threshold.item() or method == "adaptive-mean"
