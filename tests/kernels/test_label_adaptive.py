"""Adaptive thresholds of the emulated kernels, against the NumPy statements and OpenCV."""

from fractions import Fraction

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from medsass.labels import threshold as spec
from tests.kernels.labelled import POLARITIES, batches, image_of
from tests.support import emulation as em
from tests.support.effort import examples

pytestmark = pytest.mark.skipif(em.COMPILER is None, reason="needs g++ or clang++ to emulate the kernels")


def _share(gray: spec.Gray, above: NDArray[np.bool_]) -> float:
    """Between-class over total variance of the gray levels of two classes, in fractions."""
    levels = gray.astype(object)
    if above.all() or not above.any() or gray.min() == gray.max():
        return 0.0
    count, total = gray.size, int(levels.sum())
    variance = Fraction(int((levels**2).sum()), count) - Fraction(total, count) ** 2
    between = (
        sum(
            Fraction(int(side.sum()), count) ** 2 * Fraction(count, side.size)
            for side in (levels[above], levels[~above])
        )
        - Fraction(total, count) ** 2
    )
    return float(between / variance)


def _check_adaptive(images: NDArray[np.uint8], polarity: str, gaussian: bool, block: int, offset: float) -> None:
    result = em.adaptive(images, polarity, gaussian, block, offset)
    for i, image in enumerate(images):
        gray = spec.gray(image) if image.ndim == 3 else image
        above = (spec.adaptive_gaussian if gaussian else spec.adaptive_mean)(gray, block, offset).astype(bool)
        constant = gray.min() == gray.max()
        wanted = np.zeros(gray.shape, np.uint8) if constant else spec.foreground(above, polarity)
        assert np.array_equal(result.mask[i], wanted)
        share = _share(gray, above)
        assert abs(float(result.separability[i]) - share) <= 2 * np.spacing(np.float32(share))
        assert np.isnan(result.threshold[i])


@pytest.mark.parametrize("gaussian", [False, True], ids=["mean", "gaussian"])
@pytest.mark.parametrize("form", ["rgb", "gray"])
def test_adaptive_is_as_stated(form: str, gaussian: bool) -> None:
    @examples(80)
    @given(batches(form), st.sampled_from(POLARITIES), st.integers(1, 25), st.floats(-40, 40))
    def holds(images: NDArray[np.uint8], polarity: str, half: int, offset: float) -> None:
        _check_adaptive(images, polarity, gaussian, 2 * half + 1, offset)

    holds()


@pytest.mark.parametrize("gaussian", [False, True], ids=["mean", "gaussian"])
@pytest.mark.parametrize("block", [3, 51, 255])
def test_adaptive_of_any_block_size_is_as_stated(block: int, gaussian: bool) -> None:
    image = image_of("bimodal", (35, 33), np.random.default_rng(block), "gray")
    _check_adaptive(image[None], "auto", gaussian, block, 2.0)


@pytest.mark.parametrize("offset", [-7.0, -0.3, 0.0, 0.5, 3.7])
@pytest.mark.parametrize("block", [3, 11, 51])
def test_adaptive_mean_equals_opencv(block: int, offset: float) -> None:
    image = image_of("bimodal", (45, 70), np.random.default_rng(block), "gray")
    above = cv2.adaptiveThreshold(image, 1, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY, block, offset)
    assert np.array_equal(em.adaptive(image[None], "bright", False, block, offset).mask[0], above)
