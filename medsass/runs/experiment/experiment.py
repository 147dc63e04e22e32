"""`medsass experiment`: every cell of a grid trained and scored, resumable, and the paper's tables and figures of them.

OUT holds `shards/<dataset>`, `cells/<cell>` (run directories), `scores/<cell>.json` (a cell with one is finished),
`logs/<cell>.log` (what its training printed), `tables/`, `tables.md` and `figures/`.
"""

import gc
import json
import traceback
from collections.abc import Sequence
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

import torch

from medsass import files
from medsass.config import EvaluateConfig, ExperimentConfig, ProbeConfig, ShardConfig, TrainConfig, plain
from medsass.data.sharding import shard
from medsass.data.sharding.staging import MismatchError
from medsass.data.shards import manifest, remote
from medsass.data.shards.manifest import Manifest
from medsass.errors import Stopped
from medsass.runs import console, device, run_directory
from medsass.runs.experiment import charts, grid, tables, workers
from medsass.runs.experiment.grid import COORDINATES, Cell, Dataset, Grid
from medsass.runs.scoring.evaluate import evaluate
from medsass.runs.scoring.probe import probe
from medsass.runs.training.train import train

SHARDS, CELLS, LOGS = "shards", "cells", "logs"
_FULL = "out of memory: "  # how the reason of a cell begins that may fit once it has a GPU to itself


@dataclass(frozen=True)
class Task:
    """A cell as it is run, in any process: its training, what is scored, and where the scores and the log go.

    wanted: protocols and "probe". images: of the training split, 0 where that is not known.
    """

    cell: Cell
    config: TrainConfig
    split: str
    wanted: tuple[str, ...]
    scores: Path
    log: Path
    images: int = 0


class CellsError(ValueError):
    """Cells of an experiment failed. `scores`: of those that did not, as `experiment` returns them."""

    def __init__(self, message: str, scores: list[dict[str, Any]]) -> None:
        super().__init__(message)
        self.scores = scores


def experiment(config: ExperimentConfig) -> dict[str, Any]:
    """Run what is not finished of the grid `config.grid` in `config.out`, then write tables and figures of what is there.

    Returns how many `cells` there are, are `finished`, and `absent` as their datasets are, and the `scores` of the grid's.
    Raises `OSError` or `ValueError` with what to do; where cells failed `CellsError`, when all others are done.
    """
    run_directory.check_local(config.out, "OUT")
    device.resolve(config.device)
    chosen = grid.load(config.grid)
    data = config.data or config.grid.parent
    names = dict.fromkeys(cell.dataset for cell in chosen.cells)
    shards = {name: _shards(chosen.datasets[name], data, config) for name in names}
    tasks = [_task(chosen, cell, found, config) for cell in chosen.cells if (found := shards[cell.dataset])]
    if not tasks:
        raise ValueError(f"no dataset of {config.grid} is in {data}; --data names the folder that holds their sources")
    todo = [task for task in tasks if not finished(task)]
    counts = {"cells": len(chosen.cells), "finished": len(tasks) - len(todo), "absent": len(chosen.cells) - len(tasks)}
    console.out.print(
        f"{chosen.title}: {counts['cells']} cells, {counts['finished']} finished, {len(todo)} to run, "
        f"{counts['absent']} of datasets that are not here"
    )
    if config.dry_run:
        for task in tasks:
            console.out.print(f"{'to run  ' if task in todo else 'finished'}  {task.cell.name}")
        return {**counts, "scores": _scores(tasks)}
    failed = _run(tasks, todo, config)
    scores = _scores(tasks)
    charts.write(chosen, scores, config.out)
    tables.write(chosen, scores, config.out)
    console.out.print(f"Tables and figures: {config.out / tables.ALL}")
    if failed:
        raise CellsError(
            f"{len(failed)} of {len(todo)} cells failed, the first of them {failed[0].cell.name}; the reasons stand in "
            f"{config.out / LOGS}; the same command tries them again",
            scores,
        )
    return {**counts, "finished": len(tasks), "scores": scores}


def _shards(dataset: Dataset, data: Path, config: ExperimentConfig) -> tuple[Path, Manifest | None] | None:
    """The shard folder and its manifest, made where it is missing (on a dry run None); None where the data is not here,
    or not as a training and its scoring need it, which is said.
    """
    out = config.out / SHARDS / dataset.name
    text = dataset.source or dataset.shards
    source = files.location(text) if "://" in text else data / text
    folder = out if dataset.source else source
    if not (folder / manifest.NAME).is_file() and not (dataset.source and source.is_dir()):
        remedy = "--data says where the sources are" if dataset.source else "make it with medsass shard"
        console.err.print(f"{dataset.name}: left out, {source} is not there; {remedy}")
        return None
    if dataset.source and source.is_dir() and not config.dry_run:
        _write_shards(dataset, source, out)
    if not (folder / manifest.NAME).is_file():
        return folder, None
    found = remote.load(folder)
    if dataset.split not in found.splits or not found.splits[dataset.split].masks:
        having = ", ".join(name for name, split in found.splits.items() if split.masks) or "no split"
        console.err.print(
            f"{dataset.name}: left out, its split '{dataset.split}' has no masks; {having} has; change 'split' in {config.grid}"
        )
        return None
    return folder, found


def _write_shards(dataset: Dataset, source: Path, out: Path) -> None:
    """Shard `source`; go on with what an interrupted start wrote, do nothing where it is finished."""
    try:
        wanted = ShardConfig(source, out, dataset.recipe or "folder", resume=True, **dataset.options)
        out.parent.mkdir(parents=True, exist_ok=True)
        with console.progress(f"shard {dataset.name}") as bar:
            shard.write(wanted, bar.reach)
    except ValueError as error:
        advice = f" (here: delete {out} and {out}.part)" if isinstance(error, MismatchError) else ""
        raise ValueError(f"dataset {dataset.name}: {error}{advice}") from error


def _task(chosen: Grid, cell: Cell, found: tuple[Path, Manifest | None], config: ExperimentConfig) -> Task:
    shards, dataset = found
    probed = cell.dataset in chosen.probe and not chosen.off(cell.dataset, plain(cell.config))
    return Task(
        cell,
        replace(cell.config, shards=shards, run=config.out / CELLS / cell.name, device=config.device),
        chosen.datasets[cell.dataset].split,
        (*chosen.protocols, *(["probe"] if probed else [])),
        config.out / tables.SCORES / f"{cell.name}.json",
        config.out / LOGS / f"{cell.name}.log",
        dataset.splits["train"].samples if dataset and "train" in dataset.splits else 0,
    )


def finished(task: Task) -> bool:
    """Whether the cell's scores hold all that is wanted and its run can give, of the data as they are now."""
    held = _held(task)
    return bool(held) and not _lacking(task, held)


def _held(task: Task) -> dict[str, Any]:
    """The scores of an earlier start; empty where there are none, or those of other data or of another split."""
    try:
        held: dict[str, Any] = json.loads(task.scores.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    shards = task.config.shards
    same = not (shards / manifest.NAME).is_file() or held.get("shards_sha256") == manifest.digest(shards)
    return held if same and held.get("split") == task.split else {}


def _scores(tasks: Sequence[Task]) -> list[dict[str, Any]]:
    return [held for task in tasks if (held := _held(task))]


def _lacking(task: Task, held: dict[str, Any]) -> list[str]:
    """What is wanted, and neither among the scores `held` nor a network's that the run has not kept."""
    done = {*held["protocols"], *({"probe"} & held.keys()), *(["network"] if held["keeps"] == "encoder" else [])}
    return [name for name in task.wanted if name not in done]


def _run(tasks: Sequence[Task], todo: Sequence[Task], config: ExperimentConfig) -> list[Task]:
    """Run the cells `todo`; those that failed. On GPUs, where no cell of the grid says how much memory it took, the first
    runs alone; so does once more what ran out of memory, as a cell may that is larger than those measured.
    """
    crew, where = _Crew(todo), device.resolve(config.device)
    alone = workers.plan(1, config.threads, where, None)
    measured = where == "cuda" and not config.jobs and len(todo) > 1
    first = 1 if measured and not _peak(tasks) else 0
    failed = crew.take(todo[:first], alone, apart=True) if first else {}
    peak = _peak(tasks) if measured else None
    failed |= crew.take(todo[first:], workers.plan(config.jobs, config.threads, where, peak))
    if not (again := [task for task, reason in failed.items() if reason.startswith(_FULL)]):
        return list(failed)
    gc.collect()
    torch.cuda.empty_cache()
    return [*(task for task in failed if task not in again), *_Crew(again).take(again, alone, apart=True)]


def _peak(tasks: Sequence[Task]) -> int | None:
    """Bytes of a GPU that the largest finished cell took."""
    return max((held["peak_memory"] or 0 for held in _scores(tasks)), default=0) or None


class _Crew:
    """Runs tasks and says of each how it ended, and how long the others may take."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._count, self._done, self._start = len(tasks), 0, monotonic()
        self._work, self._worked = sum(map(_work, tasks)), 0

    def take(self, tasks: Sequence[Task], shared: workers.Workers, *, apart: bool = False) -> dict[Task, str]:
        """Run tasks; those that failed, with the reason. Where a process was killed, all that have not ended have failed."""
        failed: dict[Task, str] = {}
        ready = [replace(task, config=replace(task.config, threads=shared.threads)) for task in tasks]
        try:
            with closing(workers.run(run_cell, ready, shared, apart=apart)) as ended:
                for task, reason in ended:
                    ready.remove(task)
                    failed |= {task: reason} if reason else {}
                    self._done, self._worked = self._done + 1, self._worked + _work(task)
                    left = (monotonic() - self._start) / self._worked * (self._work - self._worked)
                    console.out.print(
                        f"[{self._done}/{self._count}] {task.cell.name}  "
                        f"{f'failed: {reason}' if reason else _summary(task)}, about {left / 60:.0f} min left"
                    )
        except Stopped as stop:
            raise Stopped("stopped; the same command goes on where this one was") from stop
        except ChildProcessError as error:
            console.err.print(str(error))
            failed |= dict.fromkeys(ready, str(error))
        return failed


def _work(task: Task) -> int:
    return task.config.epochs * max(task.images, 1)  # what its time goes with


def _summary(task: Task) -> str:
    held = _held(task)
    parts = [f"{name} {values['iou']:.4f}" for name, values in held["protocols"].items()]
    parts += [f"probe {held['probe']['recall']:.4f}"] if "probe" in held else []
    return "  ".join([*parts, f"{held['seconds']:.0f} s"])


def run_cell(task: Task) -> str:
    """Train and score one cell as far as that is not done, and write its scores. What it prints goes into its log. Returns
    "", or where it failed the reason in one line.
    """
    task.log.parent.mkdir(parents=True, exist_ok=True)
    with task.log.open("a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
        try:
            scores = _score(task)
            task.scores.parent.mkdir(parents=True, exist_ok=True)
            files.write(task.scores, json.dumps(scores, indent=1) + "\n")
        except Stopped as stop:
            print(stop, file=log)
            raise
        except Exception as error:  # whatever it is, the other cells go on
            traceback.print_exc(file=log)
            reason = " ".join(str(error).split()) or type(error).__name__
            return f"{_FULL}{reason}" if isinstance(error, torch.OutOfMemoryError) else reason
    return ""


def _score(task: Task) -> dict[str, Any]:
    c, start, on_gpu = task.config, monotonic(), device.resolve(task.config.device) == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    scores = (_held(task) if (c.run / run_directory.WEIGHTS).is_file() else {}) or _trained(task)
    for name in _lacking(task, scores):
        if name == "probe":
            wanted = ProbeConfig(c.run, c.shards, task.split, seed=c.seed, device=c.device, threads=c.threads)
            scores["probe"] = probe(wanted)
        else:
            result = evaluate(EvaluateConfig(c.run, c.shards, task.split, name, device=c.device, threads=c.threads))
            scores |= {"bare": result.pop("labels"), "everything": result.pop("everything")}
            scores["protocols"][name] = result
    scores["seconds"] += monotonic() - start
    if on_gpu:
        scores["peak_memory"] = max(scores["peak_memory"] or 0, torch.cuda.max_memory_reserved())
        gc.collect()  # a compiled network is a reference cycle of torch's own
        torch.cuda.empty_cache()
    return scores


def _trained(task: Task) -> dict[str, Any]:
    """Train the cell, from where it was interrupted if that run can be gone on with, and say what it is."""
    c = task.config
    resume = (c.run / run_directory.CONFIG).is_file() and (c.run / run_directory.LAST).is_file()
    try:
        kept = train(replace(c, resume=resume, overwrite=not resume))
    except ValueError:  # damaged, or of other options, data or kind of device
        if not resume:
            raise
        kept = train(replace(c, overwrite=True))
    history = [json.loads(line) for line in (c.run / run_directory.METRICS).read_text("utf-8").splitlines()]
    return {
        "dataset": task.cell.dataset,
        **{name: getattr(c, name) for name in COORDINATES},
        "split": task.split,
        "train": {name: value for name, value in plain(c).items() if name not in grid.SET},
        "keeps": run_directory.stored(c.run)[1]["keeps"],
        "shards_sha256": manifest.digest(c.shards),
        "epochs_run": len(history),
        "epoch_kept": kept["epoch"],
        "feature_std": history[-1].get("train_feature_std"),
        "images_per_second": median(line["images_per_second"] for line in history),
        "train_seconds": sum(line["seconds"] for line in history),
        "seconds": 0.0,
        "peak_memory": None,
        "protocols": {},
    }
