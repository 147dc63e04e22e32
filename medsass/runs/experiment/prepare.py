"""From a grid to the tasks of its cells: datasets are found, or sharded. Nothing here needs torch, which takes seconds to
import, and after which slides could not be sharded by cuCIM.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from medsass import files
from medsass.config import ExperimentConfig, ShardConfig, TrainConfig, plain, schema
from medsass.data.sharding import shard
from medsass.data.sharding.staging import MismatchError
from medsass.data.shards import manifest, remote
from medsass.data.shards.manifest import Manifest
from medsass.runs import console, run_directory
from medsass.runs.experiment import grid, tables
from medsass.runs.experiment.grid import Cell, Grid

SHARDS, CELLS, LOGS = "shards", "cells", "logs"


@with_config(ConfigDict(strict=True, extra="allow"))
class _Held(TypedDict):
    """What is read of the scores of an earlier start."""

    dataset: str
    model: str
    method: str
    seed: int
    split: str
    shards_sha256: str
    keeps: str
    train: dict[str, Any]
    protocols: dict[str, dict[str, Any]]


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
            held = cast(dict[str, Any], schema.check_json(_Held, files.read(self.scores)))
        except (OSError, ValueError):
            return {}
        return held if self.sha256 in ("", held.get("shards_sha256")) and held.get("split") == self.split else {}

    def lacking(self, held: dict[str, Any]) -> list[str]:
        """Return what is wanted and not among the scores `held`, but for the network's where the run kept none."""
        done = {*held["protocols"], *({"probe"} & held.keys()), *(["network"] if held["keeps"] == "encoder" else [])}
        return [name for name in self.wanted if name not in done]


def prepare(config: ExperimentConfig) -> tuple[Grid, list[Task]]:
    """Read the grid, make shards that are not made yet, and return the tasks of the datasets that are there.

    Raises `OSError` or `ValueError` with the remedy.
    """
    run_directory.check_local(config.out, "OUT")
    files.refuse_links(*(config.out.iterdir() if config.out.is_dir() else ()))
    chosen = grid.load(config.grid)
    if config.device == "cuda":
        from medsass.runs import device  # imports torch

        device.resolve(config.device)
    data = config.data or config.grid.parent
    names = dict.fromkeys(cell.dataset for cell in chosen.cells)
    shards = {name: _shards(name, chosen, data, config) for name in names}
    tasks = [_task(chosen, cell, *found, config) for cell in chosen.cells if (found := shards[cell.dataset])]
    if not tasks:
        raise ValueError(f"no dataset of {config.grid} is in {data}; --data names the folder that holds their sources")
    return chosen, tasks


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
            files.refuse_links(folder)
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
