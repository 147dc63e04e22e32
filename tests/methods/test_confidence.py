"""Weights of pixels and images against the formula in NumPy."""

import cv2
import numpy as np
import pytest
import torch

from medsass.data.loading.loader import Batch
from medsass.labels import Labeler, Labels
from medsass.methods import confidence

RNG = np.random.default_rng(3)


def _labels(mask: torch.Tensor, threshold: float, separability: float) -> Labels:
    n = len(mask)
    return Labels(mask, torch.full((n,), threshold), torch.full((n,), separability))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_weights_grow_with_the_distance_from_the_threshold(dtype: type) -> None:
    image = RNG.integers(0, 200, (1, 9, 7)).astype(dtype)
    found = confidence.weights(Batch(torch.from_numpy(image)), _labels(torch.zeros(1, 9, 7), 90.0, 1.0))
    gray = image.astype(np.float64)
    expected = np.minimum(1, np.abs(gray - 90) / (0.5 * gray.std()))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


def test_colour_images_are_weighed_by_their_gray_level() -> None:
    image = RNG.integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    labels = Labeler()(torch.from_numpy(image))
    found = confidence.weights(Batch(torch.from_numpy(image)), labels)
    for i in range(2):
        gray = image[i] @ np.array([0.299, 0.587, 0.114])
        pixel = np.minimum(1, np.abs(gray - float(labels.threshold[i])) / (0.5 * gray.std()))
        share = np.clip((float(labels.separability[i]) - 0.5) / 0.3, 0, 1)
        np.testing.assert_allclose(found[i].numpy(), pixel * share, atol=1e-3)


@pytest.mark.parametrize("steps", ["darkest", "blur:3", "brightest,blur:2"])
def test_distances_are_of_what_was_thresholded(steps: str) -> None:
    image = cv2.GaussianBlur(RNG.integers(0, 256, (40, 40, 3)).astype(np.uint8), (0, 0), 3)
    images = torch.from_numpy(cv2.normalize(image, image, 0, 255, cv2.NORM_MINMAX))[None]
    labels = Labeler("otsu", "bright", refine=steps)(images)
    found = confidence.weights(Batch(images), labels)[0]
    assert labels.gray is not None
    inside = labels.gray[0] > labels.threshold[0]
    assert torch.equal(inside, labels.mask[0] > 0)
    distance = (labels.gray[0].float() - labels.threshold[0]).abs()
    order = distance.flatten().argsort()
    assert (found.flatten()[order].diff() >= -1e-6).all()


@pytest.mark.parametrize(("separability", "weight"), [(0.0, 0.0), (0.5, 0.0), (0.65, 0.5), (0.8, 1.0), (1.0, 1.0)])
def test_images_of_low_separability_count_less(separability: float, weight: float) -> None:
    image = torch.zeros(1, 4, 4, dtype=torch.uint8)
    image[0, :2] = 255
    found = confidence.weights(Batch(image), _labels(image, 100.0, separability))
    assert found.flatten().tolist() == pytest.approx([weight] * 16, abs=1e-6)


def test_noise_of_one_class_counts_by_half_and_two_classes_in_full() -> None:
    noise = RNG.normal(100, 10, (64, 64))
    disk = np.hypot(*(np.mgrid[:64, :64] - 32)) < 12
    images = torch.from_numpy(np.stack([noise, noise + 100 * disk]).round().astype(np.uint8))
    one, two = confidence.weights(Batch(images), Labeler("otsu", "bright")(images)).amax((1, 2)).tolist()
    assert one == pytest.approx((2 / np.pi - 0.5) / 0.3, abs=0.06)
    assert two == 1


def test_the_separability_of_other_thresholds_than_otsus_has_no_part() -> None:
    noise = RNG.normal(100, 10, (64, 64))
    noise[30:33, 30:33] = 250
    images = torch.from_numpy(noise.round().astype(np.uint8))[None]
    labels = Labeler("ght", "bright")(images)
    assert labels.mask[0].nonzero().amin(0).tolist() == [30, 30]
    assert int(labels.mask.sum()) == 9
    assert labels.separability.item() < 0.5
    found = confidence.weights(Batch(images), labels, otsu=False)[0]
    assert found[30:33, 30:33].eq(1).all()


def test_adaptive_labels_count_in_full() -> None:
    image = torch.from_numpy(RNG.integers(0, 256, (1, 9, 9)).astype(np.uint8))
    found = confidence.weights(Batch(image), _labels(image, float("nan"), 0.1))
    assert found.flatten().tolist() == pytest.approx([1.0] * 81)


def test_a_constant_image_weighs_nothing() -> None:
    image = torch.full((1, 6, 6), 9, dtype=torch.uint8)
    found = confidence.weights(Batch(image), Labeler()(image))
    assert found.eq(0).all()
