"""Training into a run directory that exists: resumed, refused, replaced; and stopped by a signal."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from medsass.errors import Stopped
from medsass.models import checkpoint
from medsass.runs.training.train import train
from medsass.runs.training.trainer import Trainer
from medsass.runs.training.writer import Writer
from tests.conftest import tiny, train_one_epoch
from tests.support import trainings
from tests.support.trainings import FILES

pytestmark = pytest.mark.usefixtures("light_file")


def test_a_run_that_failed_after_an_epoch_resumes_to_the_same_end(
    shards: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_one_epoch(tiny(shards, tmp_path / "run"), monkeypatch)
    assert [line["epoch"] for line in trainings.history(tmp_path / "run")] == [1]
    torch.rand(7)  # the resumed run must not depend on the random state it is started in
    train(tiny(shards, tmp_path / "run", resume=True))
    trainings.assert_same(trained, tmp_path / "run")


def test_two_signals_while_an_epoch_is_saved_lose_nothing_of_it(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, before = Writer.epoch, signal.getsignal(signal.SIGINT)

    def epoch(*values: Any) -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        original(*values)

    monkeypatch.setattr(Writer, "epoch", epoch)
    run = tmp_path / "run"
    said = f"^the last checkpoint is of epoch 1; go on with: medsass train {shards} {run} --resume$"
    with pytest.raises(KeyboardInterrupt, match=said):
        train(tiny(shards, run))
    assert len(trainings.history(run)) == 1
    saved = checkpoint.load(run / "last.pt")
    assert (saved["epoch"], saved["done"], len(saved["history"])) == (1, 0, 1)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_stops_a_training_that_is_saved(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Trainer.validate

    def validate(trainer: Trainer, *each: Callable[[int], None]) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        return original(trainer, *each)

    monkeypatch.setattr(Trainer, "validate", validate)
    with pytest.raises(
        Stopped, match=r"^stopped by SIGTERM and saved after epoch 1; go on with: medsass train .*--resume$"
    ):
        train(tiny(shards, tmp_path / "run"))
    assert len(trainings.history(tmp_path / "run")) == 1


def test_resuming_a_finished_run_trains_no_more(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = train(tiny(shards, tmp_path / "run", epochs=1))
    before = (tmp_path / "run" / "last.pt").read_bytes()
    monkeypatch.setattr(Trainer, "steps", lambda *_: pytest.fail("trained again"))
    assert train(tiny(shards, tmp_path / "run", epochs=1, resume=True)) == first
    assert (tmp_path / "run" / "last.pt").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch_size": 4}, r"batch_size \(16 in the run, 4 now\)"),
        ({"model": "unet-vit-tiny"}, r"model \(unet-resnet18 in the run, unet-vit-tiny now\)"),
        ({"method": "supervised"}, r"method \(medsass in the run, supervised now\)"),
    ],
)
def test_resuming_with_another_option_names_it(
    options: dict[str, object], said: str, shards: Path, trained: Path
) -> None:
    with pytest.raises(ValueError, match=said):
        train(tiny(shards, trained, resume=True, **options))


def test_resuming_a_folder_that_is_no_run_says_so(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not a run directory"):
        train(tiny(shards, tmp_path, resume=True))


def test_an_existing_run_is_refused(shards: Path, trained: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.iterdir()}
    with pytest.raises(FileExistsError, match="already holds a run"):
        train(tiny(shards, trained))
    assert {path: path.stat().st_mtime_ns for path in trained.iterdir()} == before


def test_overwrite_replaces_a_run(shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "tensorboard").mkdir(parents=True)
    for name in ("config.json", "last.pt", "tensorboard/events.old"):
        (run / name).write_text("old")
    train(tiny(shards, run, epochs=1, overwrite=True))
    assert {path.name for path in run.iterdir()} == FILES
    assert not (run / "tensorboard" / "events.old").exists()
    assert len(trainings.history(run)) == 1


def test_overwrite_keeps_the_run_where_the_shards_are_wrong(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("old")
    with pytest.raises(FileNotFoundError, match=r"manifest\.json is missing"):
        train(tiny(tmp_path / "no shards", tmp_path, overwrite=True))
    assert (tmp_path / "config.json").read_text() == "old"
