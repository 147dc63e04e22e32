"""Supervised training's target is the ground truth."""

from pathlib import Path

import pytest
import torch

from medsass.config import TrainConfig
from medsass.data.loading.loader import Batch
from medsass.methods import losses, method
from medsass.methods.supervised import Supervised


def _build(loss: str = "focal-tversky") -> Supervised:
    config = TrainConfig(Path("shards"), Path("run"), method="supervised", loss=loss, model="unet-resnet18")
    chosen = method.make(config, "dark")
    assert isinstance(chosen, Supervised)
    return chosen


def test_the_target_is_the_ground_truth_whatever_the_polarity() -> None:
    truth = torch.randint(0, 2, (2, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(_build().prepare(Batch(torch.zeros(2, 8, 8, 3, dtype=torch.uint8), truth))[0], truth)


def test_the_loader_is_asked_for_masks() -> None:
    assert _build().needs_masks


@pytest.mark.parametrize("name", sorted(losses.LOSSES))
def test_the_loss_is_the_one_that_was_chosen(name: str) -> None:
    logits, target = torch.linspace(-2, 2, 64).reshape(1, 1, 8, 8), torch.eye(8, dtype=torch.uint8)[None]
    assert torch.equal(_build(name).loss(logits, target), losses.LOSSES[name](logits, target))
