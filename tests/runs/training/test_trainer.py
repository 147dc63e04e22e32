"""One training in memory: steps, losses and state."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from medsass.data.loading.loader import Batch
from medsass.methods import method
from medsass.methods.method import Outcome
from medsass.models import network
from medsass.runs.distributed import ALONE
from medsass.runs.training.trainer import Trainer
from tests.conftest import tiny

pytestmark = pytest.mark.usefixtures("light_file")


@pytest.fixture(scope="module")
def trainer(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    return _trainer(shards, tmp_path_factory.mktemp("none"), crop=1.0, flip=False, jitter=0.0, hue=0.0)


def test_validation_is_the_mean_over_images_of_the_split(trainer: Trainer) -> None:
    line = trainer.validate()
    losses, ious = [], []
    with torch.no_grad():
        for batch in trainer.val_loader.epoch(0):
            target, _ = trainer.method.prepare(batch)  # type: ignore[operator]
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


def test_an_epoch_has_each_image_once(trainer: Trainer) -> None:
    seen = [images for images, _ in trainer.steps()]
    assert sum(seen) == trainer.train_loader.samples
    assert seen[:-1] == [16] * (len(seen) - 1)
    assert trainer.done == trainer.steps_an_epoch == len(seen)
    line = trainer.finish_epoch()
    assert (trainer.epoch, trainer.done) == (1, 0)
    assert line.keys() == {"train_loss", "lr", "images_per_second", "waited"}
    assert 0 <= line["waited"] <= 1


def test_a_loss_that_is_not_finite_is_reported_with_the_images_of_its_step(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = _trainer(shards, tmp_path, batch_size=8)
    batches = [batch.keys for batch in trainer.train_loader.epoch(0)]
    original, calls = trainer.method.forward, []

    def forward(batch: Batch, progress: float) -> Outcome:
        calls.append(1)
        outcome = original(batch, progress)
        return Outcome(outcome.loss * (float("nan") if len(calls) == 2 else 1.0))

    monkeypatch.setattr(trainer.method, "forward", forward)
    with pytest.raises(FloatingPointError, match="loss of step 2 of epoch 1 is not finite; its 8 images: ") as error:
        list(trainer.steps())
    first, second = (", ".join(keys) for keys in batches[:2])
    assert str(error.value).endswith(f"{second}; the step before, which may have spoilt the weights, had {first}")
    with pytest.raises(FloatingPointError):
        trainer.state()  # nothing of it may be saved


@pytest.mark.parametrize("done", [1, 2])
def test_a_trainer_goes_on_in_mid_epoch_to_the_same_bits(shards: Path, tmp_path: Path, done: int) -> None:
    whole, begun = (_trainer(shards, tmp_path, batch_size=16) for _ in range(2))
    steps = begun.steps()
    for _ in range(done):
        next(steps)
    saved = copy.deepcopy(begun.state())
    torch.rand(3)
    resumed = _trainer(shards, tmp_path, saved, batch_size=16)
    assert (resumed.epoch, resumed.done) == (0, done)
    lines = []
    for trainer in (whole, resumed):
        list(trainer.steps())
        lines.append({**trainer.finish_epoch(), **trainer.validate(), "images_per_second": 0, "waited": 0})
    assert lines[0] == lines[1]
    a, b = whole.state(), resumed.state()
    torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_another_number_of_steps_is_refused_in_mid_epoch(shards: Path, tmp_path: Path) -> None:
    trainer = _trainer(shards, tmp_path)
    next(trainer.steps())
    with pytest.raises(ValueError, match="interrupted at step 1 of 3 of an epoch, which now has 5"):
        _trainer(shards, tmp_path, trainer.state(), batch_size=8)


def test_parts_give_the_mean_of_their_gradients(shards: Path, tmp_path: Path) -> None:
    trainer = _trainer(shards, tmp_path, accumulate=2, loss="focal")
    seen: list[tuple[dict[str, torch.Tensor], list[Batch]]] = []
    original = trainer.step.optimizer.step

    def spy(*_: object) -> None:
        seen.append(
            ({name: p.grad.clone() for name, p in trainer.method.named_parameters() if p.grad is not None}, parts)
        )
        original()

    trainer.step.optimizer.step = spy  # type: ignore[method-assign, assignment]
    parts = [batch for batch, _ in zip(trainer.train_loader.epoch(0), range(2), strict=False)]
    reference = _trainer(shards, tmp_path, accumulate=2, loss="focal")
    losses = [reference.method(part, 0.0).loss for part in parts]
    reference.method.train()
    grads = [
        torch.autograd.grad(reference.method(part, 0.0).loss, list(reference.method.parameters())) for part in parts
    ]
    trainer.method.train()
    outcomes = trainer.step(parts, 0.0)
    ((found, _),) = seen
    assert len(losses) == len(outcomes) == 2
    for (name, value), one, other in zip(found.items(), *grads, strict=True):
        torch.testing.assert_close(value, (one + other) / 2, rtol=1e-4, atol=1e-7, msg=name)


def test_what_an_older_version_kept_is_refused(shards: Path, tmp_path: Path) -> None:
    trainer = _trainer(shards, tmp_path)
    old = {name: value for name, value in trainer.state().items() if name not in ("means", "scaler")}
    with pytest.raises(ValueError, match="was trained by an older version, which kept less; start it anew"):
        trainer.load(old)


def test_outcomes_hold_no_way_back(shards: Path, tmp_path: Path) -> None:
    trainer = _trainer(shards, tmp_path)
    (outcome,) = trainer.step([next(iter(trainer.train_loader.epoch(0)))], 0.0)
    assert outcome.loss.grad_fn is None
    assert outcome.logits is not None
    assert outcome.logits.grad_fn is None


def test_batch_statistics_over_gpus_are_refused_on_a_cpu(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--sync-batchnorm is for GPUs"):
        _trainer(shards, tmp_path, sync_batchnorm=True)


def _trainer(shards: Path, run: Path, saved: dict[str, Any] | None = None, **options: object) -> Trainer:
    torch.manual_seed(0)
    config = tiny(shards, run, **options)
    trainer = Trainer(config, method.make(config, "bright"), "cpu", ALONE)
    if saved:
        trainer.load(saved)
    return trainer
