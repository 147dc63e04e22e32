"""The log of a training: metrics.jsonl, TensorBoard, Weights & Biases."""

import json
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from medsass.runs import preflight
from medsass.runs.training.writer import Log
from tests.conftest import tiny

LINES = [{"epoch": number, "train_loss": 1 / number, "val_loss": 0.5} for number in (1, 2, 3)]


@pytest.fixture(autouse=True)
def run(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def _picture(path: Path) -> Path:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(path)
    return path


def test_lines_and_pictures_reach_tensorboard_and_metrics(tmp_path: Path, run: Path) -> None:
    with closing(Log(tiny(tmp_path, run), 0)) as kept:
        kept.epoch(LINES[:1])
        kept.samples(_picture(run / "samples.png"), 1)
        kept.samples(run / "missing.png", 1)
        kept.epoch(LINES[:2])
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("train_loss")] == [(1, 1.0), (2, 0.5)]
    (picture,) = events.Images("samples")
    assert (picture.step, picture.height, picture.width) == (1, 20, 30)
    assert [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] == LINES[:2]


def test_a_resumed_run_replaces_what_came_after_its_checkpoint(tmp_path: Path, run: Path) -> None:
    for done, lines in [(0, LINES), (1, LINES[:2])]:
        with closing(Log(tiny(tmp_path, run), done)) as kept:
            for number in range(done, len(lines)):
                kept.epoch(lines[: number + 1])
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("val_loss")] == [1, 2]


def test_weights_and_biases_gets_the_same(tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    calls: list[Any] = []

    class Run:
        def log(self, line: dict[str, Any], step: int) -> None:
            calls.append((sorted(line), step))

        def finish(self) -> None:
            calls.append("finish")

    monkeypatch.setattr(wandb, "init", lambda **options: calls.append(options) or Run())
    with closing(Log(tiny(tmp_path, run, wandb="project"), 0)) as kept:
        kept.epoch(LINES[:1])
        kept.samples(_picture(run / "samples.png"), 1)
    options, *rest = calls
    assert (options["project"], options["name"], options["resume"], options["config"]["size"]) == (
        "project",
        "run",
        "allow",
        32,
    )
    assert rest == [(["epoch", "train_loss", "val_loss"], 1), (["samples"], 1), "finish"]


def test_weights_and_biases_runs_without_a_network(tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with closing(Log(tiny(tmp_path, run, wandb="project"), 0)) as kept:
        kept.epoch(LINES[:1])
        kept.samples(_picture(run / "samples.png"), 1)
    (found,) = (run / "wandb").glob("offline-run-*")
    assert list(found.glob("*.wandb"))


class _Failing:
    """A run of Weights & Biases whose server is away."""

    def log(self, *_: object, **__: object) -> None:
        raise ConnectionError("no route\nto \x1b[31mhost")

    finish = log


def test_a_server_that_is_away_ends_no_training(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stub = SimpleNamespace(init=lambda **_: _Failing(), Image=str)
    monkeypatch.setitem(sys.modules, "wandb", stub)
    with closing(Log(tiny(tmp_path, run, wandb="project"), 0)) as kept:
        kept.epoch(LINES[:1])
        kept.samples(_picture(run / "samples.png"), 1)
        kept.epoch(LINES[:2])
    said = r"warning: --wandb: nothing more is sent (no route to \x1b[31mhost); the training goes on"
    assert capsys.readouterr().err.splitlines() == [said]
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2


def test_what_weights_and_biases_refuses_is_one_line(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise RuntimeError("api_key not configured")  # theirs are RuntimeErrors of many names

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=refuse))
    with pytest.raises(ValueError, match=r"^--wandb project: .*\(api_key not configured\); log in with: wandb login"):
        Log(tiny(tmp_path, run, wandb="project"), 0)


def test_a_missing_package_is_named_with_its_extra(shards: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"--wandb needs the wandb package: pip install 'medsass\[wandb\]'"):
        preflight.train(tiny(shards, run, wandb="project"))
    preflight.train(tiny(shards, run))
