"""The kernels' own source, emulated on the CPU, against the NumPy statements in threshold.py."""

from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.kernels.labelled import GHT, KINDS, LAYOUTS, POLARITIES, batches, draw, image_of, label_and_check
from tests.support import emulation as em
from tests.support.effort import examples

pytestmark = pytest.mark.skipif(em.COMPILER is None, reason="needs g++ or clang++ to emulate the kernels")


@pytest.mark.parametrize("form", ["rgb", "gray", "gray16"])
@pytest.mark.parametrize("ght", [None, *GHT.values()], ids=["otsu", *GHT])
def test_random_batches_are_as_stated(form: str, ght: tuple[float, ...] | None) -> None:
    @examples(40 if ght else 120)
    @given(batches(form, 2 if ght else 3), st.sampled_from(POLARITIES), st.sampled_from(LAYOUTS))
    def holds(images: NDArray[Any], polarity: str, layout: tuple[int, bool]) -> None:
        label_and_check(images, polarity, ght, layout)

    holds()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", ["rgb", "gray", "gray16"])
def test_every_layout_of_blocks_is_as_stated(form: str, layout: tuple[int, bool]) -> None:
    rng = np.random.default_rng(4)
    images = np.stack([image_of(kind, (37, 53), rng, form) for kind in ("bimodal", "mostly black")])
    label_and_check(images, "auto", layout=layout)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["rgb", "gray", "gray16"])
def test_every_kind_of_image_is_as_stated(form: str, kind: str) -> None:
    label_and_check(image_of(kind, (19, 34), np.random.default_rng(5), form)[None], "auto")


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (1, 59), (59, 1), (2, 2), (3, 5), (16, 16), (31, 17)])
@pytest.mark.parametrize("form", ["rgb", "gray", "gray16"])
def test_thin_and_odd_images_are_as_stated(form: str, shape: tuple[int, int]) -> None:
    label_and_check(image_of("bimodal", shape, np.random.default_rng(6), form)[None], "auto")


@pytest.mark.parametrize("form", ["rgb", "gray", "gray16"])
def test_images_that_take_a_warp_several_turns_are_as_stated(form: str) -> None:
    label_and_check(image_of("bimodal", (131, 200), np.random.default_rng(12), form)[None], "auto")


@pytest.mark.parametrize("level", [0, 1, 254, 255])
@pytest.mark.parametrize("polarity", POLARITIES)
@pytest.mark.parametrize("ght", [None, GHT["minimum error"]])
def test_constant_image_has_empty_mask(level: int, polarity: str, ght: tuple[float, ...] | None) -> None:
    result = em.label(np.full((1, 9, 11), level, np.uint8), polarity, ght)
    assert not result.mask.any()
    assert (result.threshold[0], result.separability[0]) == (0, 0)


def test_16_bit_images_without_a_range_and_with_the_full_range_are_as_stated() -> None:
    image = np.random.default_rng(8).integers(0, 65_536, (1, 40, 41)).astype(np.uint16)
    image[0, 0, :2] = 0, 65_535
    for layout in ((1, True), (3, True), (2, False), (3, False)):
        label_and_check(image, "bright", layout=layout)
        result = em.label(np.full((1, 9, 11), 40_000, np.uint16), "dark", None, 0, layout[0], once=layout[1])
        assert not result.mask.any()
        assert (result.threshold[0], result.separability[0]) == (0, 0)


@pytest.mark.parametrize("form", ["rgb", "gray", "gray16"])
def test_batch_mates_do_not_matter(form: str) -> None:
    rng = np.random.default_rng(7)
    kinds = ("uniform", "black", "bimodal", "white", "mostly black")
    images = np.stack([image_of(kind, (21, 27), rng, form) for kind in kinds])
    together = em.label(images, "auto", None, 0, 2)
    for i, image in enumerate(images):
        alone = em.label(image[None], "auto", None, 0, 2)
        assert np.array_equal(alone.mask[0], together.mask[i])
        assert alone.threshold[0] == together.threshold[i]
        assert alone.separability[0] == together.separability[i]


@examples(120)
@given(st.integers(1, 127), st.integers(1, 40), st.integers(1, 40))
def test_first_of_two_exact_maximisers_wins(distance: int, outer: int, inner: int) -> None:
    # levels 127 - d, 127, 127 + d, as many below as above: both cuts separate equally well
    levels = np.repeat([127 - distance, 127, 127 + distance], [outer, inner, outer]).astype(np.uint8)
    shuffled = np.random.default_rng(outer).permutation(levels)
    assert em.label(shuffled[None, None], "bright").threshold[0] == 127 - distance


@pytest.mark.parametrize("inner", [90_000 - 2 * 29_999, 90_000 - 2 * 44_999, 90_000 - 2 * 7])
def test_first_of_two_exact_maximisers_wins_with_large_counts(inner: int) -> None:
    outer = (90_000 - inner) // 2
    image = np.repeat(np.array([3, 128, 253], np.uint8), [outer, inner, outer]).reshape(1, 300, 300)
    result = em.label(image, "bright")
    assert result.threshold[0] == 3
    assert result.mask.sum() == inner + outer


@pytest.mark.parametrize("seed", range(6))
def test_first_maximiser_of_a_symmetric_histogram_wins(seed: int) -> None:
    rng = np.random.default_rng(seed)
    half = rng.integers(0, 30, 128) * (rng.random(128) < 0.1)
    half[0] += 1
    counts = np.concatenate([half, half[::-1]])
    image = np.repeat(np.arange(256), counts).astype(np.uint8)

    def between(t: int) -> Fraction:
        low, high = image[image <= t].astype(int), image[image > t].astype(int)
        if not low.size or not high.size:
            return Fraction(0)
        means = Fraction(int(low.sum()), low.size) - Fraction(int(high.sum()), high.size)
        return low.size * high.size * means**2

    values = [between(t) for t in range(256)]
    assert em.label(image[None, None], "bright").threshold[0] == values.index(max(values))


def test_ght_takes_the_mean_of_tied_maximisers() -> None:
    levels = np.repeat([99, 100, 101, 149, 150, 151], [10, 20, 10, 10, 20, 10]).astype(np.uint8)
    result = label_and_check(levels.reshape(1, 8, 10), "bright", (100.0, 5.0, 0.0, 0.5))
    assert result.threshold[0] == (101 + 148) / 2


@pytest.mark.parametrize("span", [2, 4, 64, 128, 256])
def test_16_bit_otsu_equals_opencv_where_bins_are_levels(span: int) -> None:
    # 256 is a multiple of the span: bins are the levels, stretched evenly
    rng = np.random.default_rng(span)
    image = (900 + draw("bimodal", (48, 57), rng, span - 1)).astype(np.uint16)
    image[0, :2] = 900, 900 + span - 1
    level, above = cv2.threshold(image, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    result = em.label(image[None], "bright", None, 0, 2)
    assert result.threshold[0] == level
    assert np.array_equal(result.mask[0], above)
