"""One training in memory: schedule, losses and state."""

from pathlib import Path

import pytest
import torch

from medsass.methods import method
from medsass.methods.method import Outcome
from medsass.models import network
from medsass.runs.trainer import Trainer
from tests.conftest import tiny


@pytest.fixture(scope="module")
def trainer(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    torch.manual_seed(0)
    config = tiny(shards, tmp_path_factory.mktemp("none"), crop=1.0, flip=False, jitter=0.0, hue=0.0)
    return Trainer(config, method.make(config, "bright"), "cpu")


def test_validation_is_the_mean_over_images_of_the_split(trainer: Trainer) -> None:
    line = trainer.validate()
    losses, ious = [], []
    with torch.no_grad():
        for batch in trainer.val_loader:
            target = trainer.method.target(batch)  # type: ignore[operator]
            logits = trainer.method.network(network.normalise(batch.images))
            losses += [float(trainer.method.loss(logits, target))] * len(target)
            for guess, fact in zip(logits[:, 0] > 0, target.bool(), strict=True):
                ious.append(float((guess & fact).sum() / (guess | fact).sum()))
    assert line["val_loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-6)
    assert line["val_iou_target"] == pytest.approx(sum(ious) / len(ious), rel=1e-6)


def test_validation_changes_nothing(trainer: Trainer) -> None:
    before = {name: value.clone() for name, value in trainer.method.state_dict().items()}
    assert trainer.validate() == trainer.validate()
    torch.testing.assert_close(dict(trainer.method.state_dict()), before, rtol=0, atol=0)


def test_an_epoch_reports_each_image_once(trainer: Trainer) -> None:
    seen: list[int] = []
    trainer.train_epoch(lambda images, _: seen.append(images))
    assert sum(seen) == trainer.train_loader.samples
    assert seen[:-1] == [16] * (len(seen) - 1)


def test_a_loss_that_is_not_finite_ends_the_training_with_a_hint(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "_outcome", lambda _: Outcome(torch.tensor(float("nan"), requires_grad=True)))
    with pytest.raises(FloatingPointError, match="loss is nan; try a lower --lr"):
        trainer.train_epoch(lambda *_: None)
