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
from statistics import median
from time import monotonic
from typing import Any

import torch

from medsass import files
from medsass.config import EvaluateConfig, ExperimentConfig, ProbeConfig, plain
from medsass.errors import Stopped
from medsass.runs import console, device, run_directory
from medsass.runs.console import Bar
from medsass.runs.experiment import charts, grid, prepare, tables, workers
from medsass.runs.experiment.grid import COORDINATES, Grid
from medsass.runs.experiment.prepare import LOGS, Task
from medsass.runs.scoring.evaluate import evaluate
from medsass.runs.scoring.probe import probe
from medsass.runs.training.train import train

_FULL = "out of memory: "  # begins the reason of a cell that may fit once it has a GPU to itself


class CellsError(ValueError):
    """Cells of an experiment failed. `scores` are those of the others, as `experiment` returns them."""

    def __init__(self, message: str, scores: list[dict[str, Any]]) -> None:
        super().__init__(message)
        self.scores = scores


def experiment(config: ExperimentConfig, prepared: tuple[Grid, list[Task]] | None = None) -> dict[str, Any]:
    """Run the cells of the grid `config.grid` that are not finished in `config.out`, then write tables and figures.

    Returns the number of `cells`, of those `finished` and of those `absent` because their datasets are, and the `scores`.
    Raises `OSError` or `ValueError` with the remedy; `CellsError` where cells failed, when all others are done. `prepared` is
    what `prepare` returned, if the caller has called it.
    """
    chosen, tasks = prepared or prepare.prepare(config)
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
        bar = Bar("experiment", len(self.tasks), "cells")
        bar.reach(len(self.ended), None)
        try:
            with closing(workers.run(run_cell, ready, shared, apart=apart)) as results, console.told(bar):
                for task, reason in results:
                    bar.advance(1)
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
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt("the same command continues from here") from stop
        except ChildProcessError as error:
            console.err.print(str(error))
            failed |= dict.fromkeys(ready, str(error))
        return failed


def run_cell(task: Task) -> str:
    """Do what is left of a cell's training and scoring, and write its scores. What it prints goes into its log.

    Returns "", or the reason in one line where it failed.
    """
    files.refuse_links(task.config.run, task.log)
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
