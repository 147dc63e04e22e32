"""Opening and closing against scikit-image and OpenCV."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage import morphology as peer

from medsass.labels import morphology
from tests.support.effort import examples
from tests.support.masks import Mask, batches, blobs, make, masks

radii = st.integers(0, 7)


@pytest.mark.parametrize("radius", range(9))
def test_the_disk_is_scikit_images(radius: int) -> None:
    assert np.array_equal(morphology.disk(radius), peer.disk(radius))


@examples(100)
@given(batches(), radii)
def test_dilation_by_rows_as_on_a_gpu_equals_opencvs(masks: Mask, radius: int) -> None:
    expected = np.stack([cv2.dilate(mask, peer.disk(radius)) for mask in masks])
    assert np.array_equal(morphology.by_rows(torch.from_numpy(masks), radius).numpy(), expected)
    assert np.array_equal(morphology.dilated(torch.from_numpy(masks), radius).numpy(), expected)


@examples(100)
@given(masks(), radii)
def test_opening_and_closing_equal_opencvs(mask: Mask, radius: int) -> None:
    batch, element = torch.from_numpy(mask)[None], peer.disk(radius)
    opened = cv2.morphologyEx(mask, cv2.MORPH_OPEN, element)
    assert np.array_equal(morphology.closed(batch, radius)[0], cv2.morphologyEx(mask, cv2.MORPH_CLOSE, element))
    assert np.array_equal(morphology.opened(batch, radius)[0], opened if opened.any() else mask)


@examples(50)
@given(masks(), st.integers(0, 4))
def test_inside_of_an_image_opening_and_closing_equal_scikit_images(mask: Mask, radius: int) -> None:
    mask = np.pad(mask, 3 * radius + 1)
    batch = torch.from_numpy(mask)[None]
    opened = peer.opening(mask, peer.disk(radius))
    assert np.array_equal(morphology.closed(batch, radius)[0], peer.closing(mask, peer.disk(radius)))
    assert np.array_equal(morphology.opened(batch, radius)[0], opened if opened.any() else mask)


@examples(50)
@given(batches(), radii)
def test_a_second_time_changes_nothing_and_no_mask_becomes_empty(masks: Mask, radius: int) -> None:
    batch = torch.from_numpy(masks)
    opened, closed = morphology.opened(batch, radius), morphology.closed(batch, radius)
    assert torch.equal(morphology.opened(opened, radius), opened)
    assert torch.equal(morphology.closed(closed, radius), closed)
    assert (opened <= batch).all()
    assert (closed >= batch).all()
    assert torch.equal(opened.flatten(1).any(1), batch.flatten(1).any(1))


@pytest.mark.gpu
@pytest.mark.parametrize("radius", [0, 1, 2, 5, 40])
def test_gpu_opening_and_closing_equal_those_of_the_cpu(radius: int) -> None:
    for shape in ((1, 1), (37, 53), (224, 224)):
        batch = torch.from_numpy(
            np.stack([blobs(shape, 1), blobs(shape, 2), make("dense", shape), make("full", shape)])
        )
        for step in (morphology.opened, morphology.closed):
            assert torch.equal(step(batch.cuda(), radius).cpu(), step(batch, radius))
