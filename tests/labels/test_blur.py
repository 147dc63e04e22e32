"""Gaussian smoothing in integers against OpenCV's, and its two implementations against each other."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from medsass.labels import blur
from tests.support.effort import examples
from tests.support.masks import blobs

SIGMAS = (0.3, 0.8, 1.0, 2.0, 3.0, 5.5, 12.0, 25.0)


def _noise(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("sigma", [0.01, *SIGMAS, 100.0])
def test_weights_are_symmetric_and_sum_to_4096(sigma: float) -> None:
    weights = blur.weights(sigma)
    assert sum(weights) == 4096
    assert weights == weights[::-1]
    assert min(weights) >= 0
    assert len(weights) == 2 * max(1, round(3 * sigma)) + 1


@pytest.mark.parametrize("sigma", SIGMAS)
def test_no_part_of_the_weight_is_off_by_more_than_1_in_4096(sigma: float) -> None:
    weights = np.array(blur.weights(sigma))
    exact = cv2.getGaussianKernel(len(weights), sigma)[:, 0]
    assert np.abs(np.cumsum(weights) / 4096 - np.cumsum(exact)).max() <= 1 / 4096


@examples(60)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(SIGMAS), st.integers(0, 99))
def test_shifts_as_on_a_gpu_equal_opencvs_filter(height: int, width: int, sigma: float, seed: int) -> None:
    gray = torch.from_numpy(_noise((2, height, width), seed))
    assert torch.equal(blur.by_shifts(gray, sigma), blur.blur(gray, sigma))


@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.parametrize("sigma", SIGMAS)
def test_a_constant_image_stays_as_it_is(level: int, sigma: float) -> None:
    gray = torch.full((1, 50, 30), level, dtype=torch.uint8)
    assert torch.equal(blur.blur(gray, sigma), gray)
    assert torch.equal(blur.by_shifts(gray, sigma), gray)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_noise_and_shapes_are_smoothed_as_by_opencv_in_float64_within_a_level(sigma: float) -> None:
    for gray in (_noise((120, 97)), blobs((120, 97), 4) * np.uint8(200), cv2.blur(_noise((120, 97)), (9, 9))):
        weights = blur.weights(sigma)
        expected = cv2.GaussianBlur(gray.astype(np.float64), (len(weights),) * 2, sigma)
        found = blur.blur(torch.from_numpy(gray)[None], sigma)[0].numpy()
        assert np.abs(found - expected).max() <= 0.7
        assert np.abs(found - np.rint(expected)).mean() <= 0.05


@pytest.mark.gpu
@pytest.mark.parametrize("sigma", SIGMAS)
def test_gpu_images_equal_those_of_the_cpu(sigma: float) -> None:
    for shape in ((1, 1, 1), (3, 37, 53), (2, 224, 224)):
        gray = torch.from_numpy(_noise(shape))
        assert torch.equal(blur.blur(gray.cuda(), sigma).cpu(), blur.blur(gray, sigma))
