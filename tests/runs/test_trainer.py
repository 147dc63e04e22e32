"""One training in memory: schedule, losses and state."""

import math
from pathlib import Path

import pytest
import torch

from medsass.methods import method
from medsass.models import unet
from medsass.runs.trainer import Trainer, warmup_cosine
from tests.conftest import tiny


@pytest.fixture(scope="module")
def trainer(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    torch.manual_seed(0)
    config = tiny(shards, tmp_path_factory.mktemp("none"), crop=1.0, flip=False, jitter=0.0, hue=0.0)
    return Trainer(config, method.build(config, "bright"), "cpu")


@pytest.mark.parametrize(("steps", "warmup"), [(100, 0.05), (40, 0.5), (7, 0.3), (100, 0.0)])
def test_the_learning_rate_rises_linearly_and_falls_by_half_a_cosine(steps: int, warmup: float) -> None:
    factor, rise = warmup_cosine(steps, warmup), round(steps * warmup)
    expected = [(s + 1) / (rise + 1) for s in range(rise)]
    expected += [(1 + math.cos(math.pi * (s - rise) / (steps - rise))) / 2 for s in range(rise, steps + 1)]
    assert [factor(step) for step in range(steps + 1)] == pytest.approx(expected, abs=1e-12)


def test_the_learning_rate_peaks_at_1_and_ends_at_0() -> None:
    factor = warmup_cosine(200, 0.1)
    values = [factor(step) for step in range(201)]
    assert max(values) == values[20] == 1
    assert values[200] == pytest.approx(0, abs=1e-12)
    assert values[:21] == sorted(values[:21])
    assert values[20:] == sorted(values[20:], reverse=True)


def test_a_warmup_of_all_steps_only_rises() -> None:
    factor = warmup_cosine(10, 1.0)
    assert [factor(step) for step in range(10)] == pytest.approx([(s + 1) / 11 for s in range(10)])
    assert math.isfinite(factor(10))


def test_validation_is_the_mean_over_images_of_the_split(trainer: Trainer) -> None:
    line = trainer.validate()
    losses, ious = [], []
    with torch.no_grad():
        for batch in trainer.val_loader:
            target = trainer.method.target(batch)
            logits = trainer.model(unet.normalise(batch.images))
            losses += [float(trainer.method.loss(logits, target))] * len(target)
            for guess, fact in zip(logits[:, 0] > 0, target.bool(), strict=True):
                ious.append(float((guess & fact).sum() / (guess | fact).sum()))
    assert line["val_loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-6)
    assert line["val_iou_target"] == pytest.approx(sum(ious) / len(ious), rel=1e-6)


def test_validation_changes_nothing(trainer: Trainer) -> None:
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    assert trainer.validate() == trainer.validate()
    torch.testing.assert_close(dict(trainer.model.state_dict()), before, rtol=0, atol=0)


def test_an_epoch_reports_each_image_once(trainer: Trainer) -> None:
    seen: list[int] = []
    trainer.train_epoch(lambda images, _: seen.append(images))
    assert sum(seen) == trainer.train_loader.samples
    assert seen[:-1] == [16] * (len(seen) - 1)


def test_a_loss_that_is_not_finite_ends_the_training_with_a_hint(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "_loss", lambda _: (torch.tensor(float("nan"), requires_grad=True), None, None))
    with pytest.raises(FloatingPointError, match="loss is nan; try a lower --lr"):
        trainer.train_epoch(lambda *_: None)
