"""An experiment: cells that run, scores that are kept, failures; once with real trainings, else with pretended ones."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from medsass.config import ExperimentConfig
from medsass.data.shards import manifest
from medsass.runs import run_directory
from medsass.runs.experiment import experiment as module
from medsass.runs.experiment.experiment import CellsError, experiment
from medsass.runs.experiment.workers import Workers
from tests.support.pretended import Pretended

GRID = """
title = "Tried"
[datasets.nuclei]
shards = "nuclei"
[datasets.absent]
source = "absent"
[defaults]
model = "unet-resnet18"
size = 32
epochs = 2
[[runs]]
dataset = ["nuclei", "absent"]
method = ["medsass", "byol"]
seed = [0, 1]
[evaluate]
probe = ["nuclei"]
"""


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Pretended:
    result = Pretended()
    for name in ("train", "evaluate", "probe"):
        monkeypatch.setattr(module, name, getattr(result, name))
    monkeypatch.setattr(module.charts, "write", lambda *_: None)  # takes seconds; see test_charts.py
    return result


@pytest.fixture
def wanted(tmp_path: Path, shards: Path) -> ExperimentConfig:
    """A grid of four cells on `shards`, which are beside it, and of four on data that is not here."""
    (tmp_path / "nuclei").symlink_to(shards)
    (tmp_path / "grid.toml").write_text(GRID)
    return ExperimentConfig(tmp_path / "grid.toml", tmp_path / "out", device="cpu", threads=1)


def _scores(wanted: ExperimentConfig, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((wanted.out / "scores" / "nuclei" / f"{name}.json").read_text())
    return found


MEDSASS = "medsass_unet-resnet18_size-32_epochs-2_seed-{}"
BYOL = "byol_unet-resnet18_size-32_epochs-2_seed-{}"


@pytest.mark.usefixtures("pretended")
def test_a_cell_ends_with_its_scores_and_a_log(wanted: ExperimentConfig, capsys: pytest.CaptureFixture[str]) -> None:
    result = experiment(wanted)
    found = _scores(wanted, MEDSASS.format(1))
    assert sorted(score["method"] for score in result["scores"]) == ["byol", "byol", "medsass", "medsass"]
    assert found in result.pop("scores")
    assert result == {"cells": 8, "finished": 4, "absent": 4}
    assert [found[name] for name in ("dataset", "model", "method", "labels", "loss", "epochs", "batch_size", "seed")] == [
        "nuclei", "unet-resnet18", "medsass", "otsu", "focal-tversky", 2, 16, 1
    ]  # fmt: skip
    assert found["protocols"] == {name: {"iou": 0.5, "split": "test"} for name in ("network", "paper", "linear")}
    assert (found["bare"], found["everything"], found["probe"]) == ({"iou": 0.3}, {"iou": 0.1}, {"recall": 0.6})
    assert (found["images_per_second"], found["train_seconds"], found["feature_std"]) == (15.0, 4.0, 0.7)
    assert (found["epochs_run"], found["epoch_kept"], found["peak_memory"]) == (2, 1, None)
    assert (wanted.out / "logs" / "nuclei" / f"{MEDSASS.format(1)}.log").read_text() == "trained with seed 1\n"
    shown = capsys.readouterr()
    assert "absent: left out" in shown.err
    assert sum(line.startswith("[") for line in shown.out.splitlines()) == 4
    assert "[4/4] nuclei/byol" in shown.out
    assert "trained with" not in shown.out


def test_finished_cells_are_not_run_again_and_a_grid_that_grew_runs_its_new_ones(
    pretended: Pretended, wanted: ExperimentConfig
) -> None:
    experiment(wanted)
    before = list(pretended.trained)
    assert experiment(wanted)["finished"] == 4
    assert pretended.trained == before
    pretended.trained.clear()
    wanted.grid.write_text(GRID.replace("seed = [0, 1]", "seed = [0, 1, 2]"))
    experiment(wanted)
    assert [(c.method, c.seed) for c in pretended.trained] == [("medsass", 2), ("byol", 2)]


@pytest.mark.usefixtures("pretended")
def test_cells_that_left_the_grid_are_not_in_its_tables(wanted: ExperimentConfig) -> None:
    assert [score["seed"] for score in experiment(wanted)["scores"]] == [0, 1, 0, 1]
    assert "of 2 seeds" in (wanted.out / "tables.md").read_text()
    wanted.grid.write_text(GRID.replace("seed = [0, 1]", "seed = 1"))
    assert [score["seed"] for score in experiment(wanted)["scores"]] == [1, 1]
    assert "of 1 seed;" in (wanted.out / "tables.md").read_text()


def test_a_protocol_that_is_new_is_all_that_is_scored(pretended: Pretended, wanted: ExperimentConfig) -> None:
    wanted.grid.write_text(GRID + 'protocols = ["network", "paper"]\n')
    experiment(wanted)
    pretended.trained.clear(), pretended.asked.clear()
    wanted.grid.write_text(GRID)
    experiment(wanted)
    assert pretended.trained == []
    assert {protocol for _, protocol in pretended.asked} == {"linear"}
    assert _scores(wanted, MEDSASS.format(0))["protocols"].keys() == {"network", "paper", "linear"}


def test_other_data_makes_a_cell_run_anew(pretended: Pretended, wanted: ExperimentConfig, shards: Path) -> None:
    experiment(wanted)
    pretended.trained.clear()
    (wanted.grid.parent / "nuclei").unlink()
    shutil.copytree(shards, wanted.grid.parent / "nuclei")
    path = wanted.grid.parent / "nuclei" / manifest.NAME
    path.write_text(path.read_text() + "\n")
    experiment(wanted)
    assert [c.overwrite for c in pretended.trained] == [True] * 4


def test_a_failing_cell_is_reported_and_the_others_go_on(
    pretended: Pretended, wanted: ExperimentConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = RuntimeError("the\nmoon")
    pretended.fails = lambda config: bad if (config.method, config.seed) == ("medsass", 0) else None
    with pytest.raises(CellsError, match=rf"1 of 4 cells failed.*nuclei/{MEDSASS.format(0)}.*logs") as error:
        experiment(wanted)
    found = [(score["method"], score["seed"]) for score in error.value.scores]
    assert found == [("medsass", 1), ("byol", 0), ("byol", 1)]
    assert f"[1/4] nuclei/{MEDSASS.format(0)}  failed: the moon" in capsys.readouterr().out
    assert "RuntimeError: the" in (wanted.out / "logs" / "nuclei" / f"{MEDSASS.format(0)}.log").read_text()
    assert "ResNet-18" in (wanted.out / "tables.md").read_text()
    pretended.fails = lambda _: None
    pretended.trained.clear()
    assert experiment(wanted)["finished"] == 4
    assert len(pretended.trained) == 1


def test_a_killed_process_fails_what_has_not_ended_and_tables_are_written(
    pretended: Pretended, wanted: ExperimentConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(function: Any, tasks: Any, _crew: Any, *, apart: bool) -> Any:
        assert not apart
        yield tasks[0], function(tasks[0])
        raise ChildProcessError("killed")

    monkeypatch.setattr(module.workers, "run", run)
    with pytest.raises(ValueError, match="3 of 4 cells failed"):
        experiment(wanted)
    assert len(pretended.trained) == 1
    assert "killed" in capsys.readouterr().err
    assert "ResNet-18" in (wanted.out / "tables.md").read_text()


@pytest.mark.parametrize(
    ("change", "resumes"),
    [({}, True), ({"train": {"lr": 0.5}}, False), ({"train": {"threads": 9}}, True), ({"keeps": "moon"}, False)],
)
def test_an_interrupted_cell_goes_on_where_its_run_is_the_same(
    pretended: Pretended, wanted: ExperimentConfig, change: dict[str, Any], resumes: bool
) -> None:
    pretended.fails = lambda _: KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        experiment(wanted)
    assert len(pretended.trained) == 1
    run = pretended.trained[0].run
    stored = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(
        json.dumps({**stored, **change, "train": {**stored["train"], **change.get("train", {})}})
    )
    pretended.fails = lambda _: None
    assert experiment(wanted)["finished"] == 4
    assert (pretended.trained[1].resume, pretended.trained[1].overwrite) == (resumes, not resumes)
    assert not any(config.resume for config in pretended.trained[2:])


def test_a_run_without_a_finished_epoch_starts_again(pretended: Pretended, wanted: ExperimentConfig) -> None:
    pretended.fails = lambda _: KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        experiment(wanted)
    (pretended.trained[0].run / run_directory.LAST).unlink()
    pretended.fails = lambda _: None
    experiment(wanted)
    assert pretended.trained[1].overwrite


def test_a_dry_run_lists_the_cells_and_changes_nothing(
    pretended: Pretended, wanted: ExperimentConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    assert experiment(replace(wanted, dry_run=True)) == {"cells": 8, "finished": 0, "absent": 4, "scores": []}
    shown = capsys.readouterr().out
    assert "8 cells, 0 finished, 4 to run, 4 of datasets that are not here" in shown
    assert f"to run    nuclei/{MEDSASS.format(0)}" in shown
    assert (pretended.trained, wanted.out.exists()) == ([], False)


def test_only_cells_at_the_defaults_are_probed_and_an_encoder_is_not_asked_for_its_network(
    pretended: Pretended, wanted: ExperimentConfig
) -> None:
    experiment(wanted)
    assert [protocol for run, protocol in pretended.asked if run == BYOL.format(0)] == ["paper", "linear", "probe"]
    assert _scores(wanted, BYOL.format(0))["protocols"].keys() == {"paper", "linear"}
    pretended.asked.clear()
    wanted.grid.write_text(GRID.replace('"byol"]', '"supervised"]\nlabels = ["otsu", "ght"]'))
    experiment(wanted)
    probed = [run for run, protocol in pretended.asked if protocol == "probe"]
    assert len(probed) == 2  # supervised; medsass was probed before
    assert not any("ght" in run for run in probed)


def test_a_split_without_masks_is_left_out_before_anything_is_trained(
    pretended: Pretended, wanted: ExperimentConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted.grid.write_text(GRID.replace('shards = "nuclei"', 'shards = "nuclei"\nsplit = "tset"'))
    with pytest.raises(ValueError, match=r"no dataset of .*grid.toml is in .*; --data names the folder"):
        experiment(wanted)
    assert "nuclei: left out, its split 'tset' has no masks; train, val, test has" in capsys.readouterr().err
    assert pretended.trained == []


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str, bool]]:
    """A pretended GPU; what `workers.run` was asked: the number of tasks, the peak of the plan, whether apart."""
    result = []

    def run(function: Any, tasks: Any, planned: Workers, *, apart: bool = False) -> Any:
        result.append((len(tasks), planned.places[0], apart))
        for task in tuple(tasks):
            yield task, function(replace(task, config=replace(task.config, device="cpu")))

    monkeypatch.setattr(module.device, "resolve", lambda _: "cuda")
    monkeypatch.setattr(module.workers, "run", run)
    monkeypatch.setattr(module.workers, "plan", lambda _jobs, _threads, _device, peak: Workers((str(peak),), 1))
    for name in ("reset_peak_memory_stats", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 123)
    return result


@pytest.mark.usefixtures("pretended")
def test_memory_on_a_gpu_is_measured_by_the_first_cell_alone(wanted: ExperimentConfig, taken: list[Any]) -> None:
    experiment(wanted)
    assert taken == [(1, "None", True), (3, "123", False)]


@pytest.mark.parametrize("failures", [1, 2])
def test_what_ran_out_of_memory_is_run_once_more_alone(
    pretended: Pretended, wanted: ExperimentConfig, taken: list[Any], failures: int
) -> None:
    left = [torch.OutOfMemoryError("CUDA out of memory")] * failures
    pretended.fails = lambda config: left.pop() if (config.method, config.seed) == ("byol", 0) and left else None
    if failures == 1:
        assert len(experiment(wanted)["scores"]) == 4
    else:
        with pytest.raises(CellsError, match=f"1 of 4 cells failed, the first of them nuclei/{BYOL.format(0)}"):
            experiment(wanted)
    assert taken == [(1, "None", True), (3, "123", False), (1, "None", True)]


@pytest.mark.usefixtures("light")
def test_a_real_grid_makes_shards_runs_scores_tables_and_figures(nuclei_folder: Path, tmp_path: Path) -> None:
    pair = '[[images]]\npath = "images/*.png"\nmasks = "masks/{stem}.png"\n'
    recipe = f"{pair}[splits]\ntrain = 0.7\nval = 0.1\ntest = 0.2"
    (tmp_path / "made.toml").write_text('name = "made"\npolarity = "bright"\n' + recipe)
    text = (
        f'[datasets.made]\nsource = "{nuclei_folder}"\nrecipe = "made.toml"\n[defaults]\nmodel = "unet-resnet18"\nsize = 32\n'
        'epochs = 2\nseed = [0, 1]\n[[runs]]\ndataset = "made"\n[evaluate]\nprotocols = ["network"]\n'
    )
    (tmp_path / "grid.toml").write_text(text)
    wanted = ExperimentConfig(tmp_path / "grid.toml", tmp_path / "out", device="cpu", threads=1)
    assert experiment(wanted)["finished"] == 2
    found = [json.loads(path.read_text()) for path in sorted((tmp_path / "out" / "scores" / "made").iterdir())]
    assert [score["seed"] for score in found] == [0, 1]
    assert all(0 < score["protocols"]["network"]["iou"] < 1 for score in found)
    assert found[0]["protocols"] != found[1]["protocols"]
    run = tmp_path / "out" / "cells" / "made" / MEDSASS.format(0)
    assert run_directory.stored(run)[0].seed == 0
    assert "± " in (tmp_path / "out" / "tables" / "table-1.md").read_text()
    assert (tmp_path / "out" / "shards" / "made" / manifest.NAME).is_file()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "cells").rglob("*.pt")}
    experiment(wanted)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "cells").rglob("*.pt")} == before
    for size, message in ((-1, "dataset made: .*size must.* got -1$"), (48, r"made: .*size.*\(here: delete")):
        wanted.grid.write_text(text.replace('made.toml"\n', f'made.toml"\nsize = {size}\n'))
        with pytest.raises(ValueError, match=message):
            experiment(wanted)
