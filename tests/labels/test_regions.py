"""Operations on whole components against scikit-image and SciPy, with both kinds of keys."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from scipy import ndimage
from skimage import measure, morphology, segmentation

from medsass.labels import regions
from tests.support.effort import examples
from tests.support.masks import Mask, batches, blobs, make, masks

Step = Callable[[torch.Tensor], torch.Tensor]
STEPS: dict[str, Step] = {
    "border": lambda mask: regions.clear_border(mask, torch.zeros_like(mask)),
    "holes": regions.fill_holes,
    "small": lambda mask: regions.remove_small(mask, 0.02),
    "largest": lambda mask: regions.keep_largest(mask, 1),
    "largest two": lambda mask: regions.keep_largest(mask, 2),
}

on_steps = pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())


def one(mask: Mask, step: Step) -> Mask:
    result: Mask = step(torch.from_numpy(mask)[None])[0].numpy()
    return result


@examples(100)
@given(masks())
def test_border_is_cleared_as_in_scikit_image_or_the_mask_stays(mask: Mask) -> None:
    labels = measure.label(mask, connectivity=2)
    expected = (segmentation.clear_border(labels) > 0).astype(np.uint8)
    if expected.sum() * 16 < mask.sum():
        expected = mask
    assert np.array_equal(one(mask, STEPS["border"]), expected)


def test_border_leaves_a_mask_alone_of_which_less_than_a_sixteenth_would_stay() -> None:
    mask = np.zeros((20, 40), np.uint8)
    mask[:, :16] = 1
    mask[5:9, 20:25] = 1  # 20 of 340 pixels: less than 1/16
    assert np.array_equal(one(mask, STEPS["border"]), mask)
    mask[9, 20:22] = 1  # 22 of 342
    cleared = mask.copy()
    cleared[:, :16] = 0
    assert np.array_equal(one(mask, STEPS["border"]), cleared)


def test_border_is_that_of_the_field_of_view() -> None:
    mask, outside = torch.zeros(2, 1, 12, 12, dtype=torch.uint8)
    outside[0, :, :4] = 1
    mask[0, 2:4, 4:6] = mask[0, 6:9, 6:9] = 1
    cleared = regions.clear_border(mask, outside)
    assert cleared.nonzero().amin(0).tolist() == [0, 6, 6]
    assert torch.equal(regions.clear_border(mask, torch.zeros_like(mask)), mask)


@examples(100)
@given(masks())
def test_holes_are_filled_as_in_scipy(mask: Mask) -> None:
    assert np.array_equal(one(mask, STEPS["holes"]), ndimage.binary_fill_holes(mask))


@examples(100)
@given(masks())
def test_small_components_go_as_in_scikit_image_but_the_largest_stays(mask: Mask) -> None:
    labels, least = measure.label(mask, connectivity=2), int(np.ceil(0.02 * mask.size))
    expected = morphology.remove_small_objects(mask > 0, max_size=least - 1, connectivity=2)
    areas = np.bincount(labels.ravel())[1:]
    if areas.size and not expected.any():
        expected = labels == 1 + areas.argmax()
    assert np.array_equal(one(mask, STEPS["small"]), expected)


@examples(100)
@given(masks())
def test_the_largest_components_stay_and_of_equals_the_first(mask: Mask) -> None:
    labels = measure.label(mask, connectivity=2)  # numbered in scan order
    order = 1 + np.argsort(-np.bincount(labels.ravel())[1:], kind="stable")
    assert np.array_equal(one(mask, STEPS["largest"]), np.isin(labels, order[:1]))
    assert np.array_equal(one(mask, STEPS["largest two"]), np.isin(labels, order[:2]))


@on_steps
@examples(50)
@given(masks())
def test_a_second_time_changes_nothing_and_no_mask_becomes_empty(step: Step, mask: Mask) -> None:
    once = one(mask, step)
    assert once.any() == mask.any()
    assert np.array_equal(one(once, step), once)


@on_steps
@examples(30)
@given(batches())
def test_a_batch_is_its_images_one_by_one(step: Step, masks: Mask) -> None:
    assert np.array_equal(step(torch.from_numpy(masks)).numpy(), np.stack([one(mask, step) for mask in masks]))


@on_steps
@examples(30)
@given(batches())
def test_counting_by_index_as_on_a_gpu_gives_the_same(step: Step, masks: Mask) -> None:
    batch = torch.from_numpy(masks)
    by_number = step(batch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(regions, "regions", regions.by_index)
        assert torch.equal(step(batch), by_number)


@pytest.mark.gpu
@on_steps
def test_gpu_masks_equal_those_of_the_cpu(step: Step) -> None:
    for shape in ((1, 1), (37, 53), (224, 224), (500, 301)):
        made = [
            blobs(shape, 1),
            blobs(shape, 2),
            *(make(kind, shape, 3) for kind in ("half", "dense", "full", "empty")),
        ]
        batch = torch.from_numpy(np.stack(made))
        assert torch.equal(step(batch.cuda()).cpu(), step(batch))
