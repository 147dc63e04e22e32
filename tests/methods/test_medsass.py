"""MedSASS's target is the pseudo-label of the images at hand."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from medsass.config import TrainConfig
from medsass.data.loading.loader import Batch
from medsass.labels import Labeler
from medsass.methods import losses, medsass, method

IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8))


def _config(**options: object) -> TrainConfig:
    return TrainConfig(Path("shards"), Path("run"), **{"model": "unet-resnet18", **options})  # type: ignore[arg-type]


def _made(polarity: str = "bright", **options: object) -> medsass.MedSASS:
    chosen = method.make(_config(**options), polarity)
    assert isinstance(chosen, medsass.MedSASS)
    return chosen


def test_the_target_is_otsus_mask_of_the_batch() -> None:
    target = _made().prepare(Batch(IMAGES))[0]
    for image, mask in zip(IMAGES.numpy(), target, strict=True):
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        assert np.array_equal(mask, cv2.threshold(gray, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[1])


def test_the_target_takes_the_polarity_it_is_built_with() -> None:
    bright, dark = (_made(polarity).prepare(Batch(IMAGES))[0] for polarity in ("bright", "dark"))
    assert torch.equal(dark, 1 - bright)


def test_the_ground_truth_has_no_part_in_the_target() -> None:
    chosen = _made()
    truth = torch.ones(3, 32, 32, dtype=torch.uint8)
    assert not chosen.needs_masks
    assert torch.equal(chosen.prepare(Batch(IMAGES, truth))[0], chosen.prepare(Batch(IMAGES))[0])


def test_adaptive_labels_take_block_size_and_offset() -> None:
    target = _made(labels="adaptive-mean", block_size=7, offset=3.0).prepare(Batch(IMAGES))[0]
    gray = cv2.cvtColor(IMAGES[0].numpy(), cv2.COLOR_RGB2GRAY)
    expected = cv2.adaptiveThreshold(gray, 1, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY, 7, 3.0)
    assert np.array_equal(target[0], expected)


@pytest.mark.parametrize("name", sorted(losses.LOSSES))
def test_the_loss_is_the_one_that_was_chosen(name: str) -> None:
    assert _made(loss=name).loss is losses.LOSSES[name]


def test_a_share_of_the_labels_is_refused() -> None:
    with pytest.raises(ValueError, match="--label-fraction is for --method supervised; medsass reads no labels"):
        _made(label_fraction=0.5)


def test_the_target_is_refined_as_asked_for() -> None:
    target = _made(refine="blur:7,border").prepare(Batch(IMAGES))[0]
    assert torch.equal(target, Labeler("otsu", "bright", refine="blur:7,border")(IMAGES).mask)
    assert not torch.equal(target, _made().prepare(Batch(IMAGES))[0])


@pytest.mark.parametrize("name", ["medsass", "supervised"])
def test_steps_that_are_none_are_refused_before_anything_is_built(name: str) -> None:
    with pytest.raises(ValueError, match=r"^refine: a step must be one of .*; got 'sharpen'$"):
        _config(method=name, refine="border,sharpen")
