"""`medsass experiment`: train and score every cell of a grid, resumable, and write the paper's tables and figures.

OUT holds `shards/<dataset>`, `cells/<cell>` (run directories), `scores/<cell>.json` (a cell with one is finished),
`logs/<cell>.log` (what its training printed), `tables/`, `tables.md` and `figures/`.
"""

import gc
import json
import traceback
from collections.abc import Iterable, Sequence
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
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
from medsass.runs.experiment.grid import COORDINATES, Cell, Grid
from medsass.runs.scoring.evaluate import evaluate
from medsass.runs.scoring.probe import probe
from medsass.runs.training.train import train

SHARDS, CELLS, LOGS = "shards", "cells", "logs"
_FULL = "out of memory: "  # begins the reason of a cell that may fit once it has a GPU to itself


@dataclass(frozen=True)
class Task:
    """A cell as it is run, in any process: its training, the split that is scored, and the files of scores and log.

    Protocols and "probe" are `wanted`. The training split has `images`, the manifest has `sha256`: 0 and "" on a dry run whose
    shards are not made yet.
    """

    cell: Cell
    config: TrainConfig
    split: str
    wanted: tuple[str, ...]
    scores: Path
    log: Path
    images: int
    sha256: str

    @property
    def work(self) -> int:
        """An amount that the time of the training is proportional to."""
        return self.config.epochs * max(self.images, 1)

    def held(self) -> dict[str, Any]:
        """Return the scores of an earlier start; empty where there are none, or those of other data or of another split."""
        try:
            held: dict[str, Any] = json.loads(self.scores.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return held if self.sha256 in ("", held.get("shards_sha256")) and held.get("split") == self.split else {}

    def lacking(self, held: dict[str, Any]) -> list[str]:
        """Return what is wanted and not among the scores `held`, but for the network's where the run kept none."""
        done = {*held["protocols"], *({"probe"} & held.keys()), *(["network"] if held["keeps"] == "encoder" else [])}
        return [name for name in self.wanted if name not in done]


class CellsError(ValueError):
    """Cells of an experiment failed. `scores` are those of the others, as `experiment` returns them."""

    def __init__(self, message: str, scores: list[dict[str, Any]]) -> None:
        super().__init__(message)
        self.scores = scores


def experiment(config: ExperimentConfig) -> dict[str, Any]:
    """Run the cells of the grid `config.grid` that are not finished in `config.out`, then write tables and figures.

    Returns the number of `cells`, of those `finished` and of those `absent` because their datasets are, and the `scores`.
    Raises `OSError` or `ValueError` with the remedy; `CellsError` where cells failed, when all others are done.
    """
    run_directory.check_local(config.out, "OUT")
    device.resolve(config.device)
    chosen = grid.load(config.grid)
    data = config.data or config.grid.parent
    names = dict.fromkeys(cell.dataset for cell in chosen.cells)
    shards = {name: _shards(name, chosen, data, config) for name in names}
    tasks = [_task(chosen, cell, *found, config) for cell in chosen.cells if (found := shards[cell.dataset])]
    if not tasks:
        raise ValueError(f"no dataset of {config.grid} is in {data}; --data names the folder that holds their sources")
    todo = [task for task in tasks if not (held := task.held()) or task.lacking(held)]
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
            f"{len(failed)} of {len(todo)} cells failed, the first of them {failed[0].cell.name}; the reasons are in "
            f"{config.out / LOGS}; the same command tries them again",
            scores,
        )
    return {**counts, "finished": len(tasks), "scores": scores}


def _shards(name: str, chosen: Grid, data: Path, config: ExperimentConfig) -> tuple[Path, Manifest | None] | None:
    """The shard folder of a dataset, made or completed where it is not finished, and its manifest (None on a dry run where
    there is none). None where the data is not there, or its split has no masks; this is printed.
    """
    dataset = chosen.datasets[name]
    text = dataset.source or dataset.shards
    source = files.location(text) if "://" in text else data / text
    folder = config.out / SHARDS / name if dataset.source else source
    shardable = bool(dataset.source) and source.is_dir()
    if not (folder / manifest.NAME).is_file() and not shardable:
        remedy = "--data says where the sources are" if dataset.source else "make it with medsass shard"
        console.err.print(f"{name}: left out, {source} is not there; {remedy}")
        return None
    if shardable and not config.dry_run:
        recipe = str(chosen.path.parent / dataset.recipe) if dataset.recipe.endswith(".toml") else dataset.recipe
        try:
            wanted = ShardConfig(source, folder, recipe or "folder", resume=True, **dataset.options)
            folder.parent.mkdir(parents=True, exist_ok=True)
            with console.progress(f"shard {name}") as bar:
                shard.write(wanted, bar.reach)
        except ValueError as error:
            advice = f" (here: delete {folder} and {folder}.part)" if isinstance(error, MismatchError) else ""
            raise ValueError(f"dataset {name}: {error}{advice}") from error
    if not (folder / manifest.NAME).is_file():
        return folder, None
    found = remote.load(folder)
    masked = [split for split, item in found.splits.items() if item.masks]
    if dataset.split not in masked:
        console.err.print(
            f"{name}: left out, its split '{dataset.split}' has no masks; {', '.join(masked) or 'no split'} has; "
            f"change 'split' in {config.grid}"
        )
        return None
    return folder, found


def _task(chosen: Grid, cell: Cell, shards: Path, dataset: Manifest | None, config: ExperimentConfig) -> Task:
    probed = cell.dataset in chosen.probe and not chosen.off(cell.dataset, plain(cell.config))
    return Task(
        cell,
        replace(cell.config, shards=shards, run=config.out / CELLS / cell.name, device=config.device),
        chosen.datasets[cell.dataset].split,
        (*chosen.protocols, *(["probe"] if probed else [])),
        config.out / tables.SCORES / f"{cell.name}.json",
        config.out / LOGS / f"{cell.name}.log",
        dataset.splits["train"].samples if dataset and "train" in dataset.splits else 0,
        dataset.sha256 if dataset else "",
    )


def _scores(tasks: Iterable[Task]) -> list[dict[str, Any]]:
    return [held for task in tasks if (held := task.held())]


def _run(tasks: Sequence[Task], todo: Sequence[Task], config: ExperimentConfig) -> list[Task]:
    """Run the cells `todo` and return those that failed. On GPUs, where no cell of the grid has recorded its memory, the
    first runs alone; so does once more a cell that ran out of memory, as it may be larger than those measured.
    """
    crew, where = _Crew(todo), device.resolve(config.device)
    alone = workers.plan(1, config.threads, where, None)
    measured = where == "cuda" and not config.jobs and len(todo) > 1
    first = 1 if measured and not any(held["peak_memory"] for held in _scores(tasks)) else 0
    failed = crew.take(todo[:first], alone, apart=True) if first else {}
    peaks = [held["peak_memory"] or 0 for held in _scores(tasks)] if measured else []  # bytes of a GPU
    plan = workers.plan(config.jobs, config.threads, where, max(peaks, default=0) or None)
    failed |= crew.take(todo[first:], plan)
    if not (again := [task for task, reason in failed.items() if reason.startswith(_FULL)]):
        return list(failed)
    gc.collect()
    torch.cuda.empty_cache()
    return [*(task for task in failed if task not in again), *_Crew(again).take(again, alone, apart=True)]


@dataclass
class _Crew:
    """Runs `tasks`, and prints how each ended and how long the others may take."""

    tasks: Sequence[Task]
    ended: list[Task] = field(default_factory=list)
    start: float = field(default_factory=monotonic)

    def take(self, tasks: Sequence[Task], shared: workers.Workers, *, apart: bool = False) -> dict[Task, str]:
        """Run tasks and return those that failed, with the reason. Where a process was killed, all unfinished ones failed."""
        failed: dict[Task, str] = {}
        ready = [replace(task, config=replace(task.config, threads=shared.threads)) for task in tasks]
        try:
            with closing(workers.run(run_cell, ready, shared, apart=apart)) as results:
                for task, reason in results:
                    ready.remove(task)
                    self.ended.append(task)
                    work, worked = (sum(item.work for item in items) for items in (self.tasks, self.ended))
                    left = (monotonic() - self.start) / worked * (work - worked) / 60
                    if reason:
                        failed[task], told = reason, [f"failed: {reason}"]
                    else:
                        held = task.held()
                        told = [f"{name} {values['iou']:.4f}" for name, values in held["protocols"].items()]
                        told += [f"probe {held['probe']['recall']:.4f}"] if "probe" in held else []
                        told += [f"{held['seconds']:.0f} s"]
                    console.out.print(
                        f"[{len(self.ended)}/{len(self.tasks)}] {task.cell.name}  {'  '.join(told)}, about {left:.0f} min left"
                    )
        except Stopped as stop:
            raise Stopped("stopped; the same command continues from here") from stop
        except ChildProcessError as error:
            console.err.print(str(error))
            failed |= dict.fromkeys(ready, str(error))
        return failed


def run_cell(task: Task) -> str:
    """Do what is left of a cell's training and scoring, and write its scores. What it prints goes into its log.

    Returns "", or the reason in one line where it failed.
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
    scores = (task.held() if (c.run / run_directory.WEIGHTS).is_file() else {}) or _trained(task)
    for name in task.lacking(scores):
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
    """Train the cell, resuming an interrupted run where that is possible, and return its description without scores."""
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
        "keeps": run_directory.stored(c.run)[1].keeps,
        "shards_sha256": task.sha256,
        "epochs_run": len(history),
        "epoch_kept": kept["epoch"],
        "feature_std": history[-1].get("train_feature_std"),
        "images_per_second": median(line["images_per_second"] for line in history),
        "train_seconds": sum(line["seconds"] for line in history),
        "seconds": 0.0,
        "peak_memory": None,
        "protocols": {},
    }
