"""The grid of an experiment: a TOML file whose lists multiply out into cells, each of them one training.

`[datasets.NAME]` says where a dataset comes from, `[defaults]` and `[[runs]]` hold options of `medsass train`, `[evaluate]`
how a cell is scored. Unknown keys are refused, so that a misspelt one cannot pass silently.
"""

import itertools
import math
import re
import types
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field, fields, make_dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_type_hints

import pydantic

from medsass.config import PROTOCOLS, ShardConfig, TrainConfig, plain, schema
from medsass.runs.experiment import published
from medsass.runs.experiment.published import Published

COORDINATES = ("model", "method", "labels", "loss", "epochs", "batch_size", "seed")  # of a cell, beside the dataset
SCORED = PROTOCOLS[1:]  # network, paper, linear: those that "auto" stands for are asked for by name
SET = {"shards", "run", "init", "device", "threads", "resume", "overwrite"}  # by the experiment, or cannot vary in one

_COMPARED = ("method", "model", "seed")  # what tables compare or average over
_MOST_CELLS = 20_000  # of one [[runs]] and one dataset
_DEFAULT = TrainConfig(Path(), Path())
# "split" is the one that is scored
_SHARD_SET = {"source", "out", "recipe", "split", "workers", "strict", "dry_run", "resume", "overwrite"}


def _with_options(command: type[Any], own: Set[str], several: bool = False) -> Callable[[type[Any]], type[Any]]:
    """Add a command's options to the keys that a table's class names; with `several` each may be a list of values too.

    Keys in `own` are left to the class. An option of the experiment itself is refused; one that is not given is None.
    """

    def extend(table: type[Any]) -> type[Any]:
        hints: dict[str, Any] = {}
        for name, hint in get_type_hints(command).items():
            hints[name] = hint | types.GenericAlias(tuple, (hint, ...)) if several else hint
            if command is TrainConfig and name in SET:
                hints[name] = schema.refused("is set by the experiment itself; drop it")
        keys = [(name, hint, field(default=None)) for name, hint in hints.items() if name not in own]
        made = make_dataclass(table.__name__, keys, bases=(dataclass(frozen=True)(table),), frozen=True)
        return pydantic.dataclasses.dataclass(frozen=True, config=schema.CLOSED)(made)

    return extend


@_with_options(TrainConfig, set())
class _Train:
    """`[datasets.NAME.train]`."""


@_with_options(TrainConfig, set(), several=True)
class _Defaults:
    """`[defaults]`."""


@_with_options(TrainConfig, set(), several=True)
class _Run:
    """`[[runs]]`."""

    dataset: str | tuple[str, ...]


@_with_options(ShardConfig, _SHARD_SET)
class Dataset:
    """A dataset and its place among the published ones: `[datasets.NAME]`.

    Either `shards` is a shard folder, or `source` a folder that is sharded with `recipe` and `options`; both are below
    --data. Its `split` is scored. `paper` is its name among the published numbers, or "", and `differs` a footnote on how it
    differs from the paper's. The options `train` of `medsass train` replace the grid's defaults.
    """

    shards: str = ""
    source: str = ""
    recipe: str = ""
    split: str = "test"
    paper: str = ""
    differs: str = ""
    train: _Train = field(default_factory=_Train)

    @property
    def options(self) -> dict[str, Any]:
        """The options of `medsass shard`."""
        return _given(self, ShardConfig, _SHARD_SET)


def _given(table: Any, command: type[Any], without: Set[str]) -> dict[str, Any]:
    """The options of a command that a table holds."""
    names = [item.name for item in fields(command) if item.name not in without]
    return {name: getattr(table, name) for name in names if getattr(table, name) is not None}


@dataclass(frozen=True)
class Cell:
    """One training: a dataset's name, and the options; shards, run, device and threads are set when it runs."""

    dataset: str
    config: TrainConfig

    @property
    def name(self) -> str:
        """`dataset/...`: method, model, every option that is not `medsass train`'s default, seed. Equal configurations have
        equal names and others have others, whatever else the grid holds.
        """
        c = self.config
        varied = [item.name for item in fields(c) if item.name not in {*SET, *_COMPARED}]
        values = {name: getattr(c, name) for name in varied if getattr(c, name) != getattr(_DEFAULT, name)}
        parts = [f"{name.replace('_', '-')}-{value}" for name, value in values.items()]
        return f"{self.dataset}/" + re.sub(r"[^\w.,-]", "_", "_".join([c.method, c.model, *parts, f"seed-{c.seed}"]))


@dataclass(frozen=True)
class Grid:
    """An experiment. `cells` in the order of the file, none twice; `protocols` and `probe` (names of datasets with class
    labels) say how they are scored; `defaults` are options of `medsass train`, the first value of a list.
    """

    path: Path
    title: str
    datasets: Mapping[str, Dataset]
    defaults: Mapping[str, Any]
    cells: tuple[Cell, ...]
    protocols: tuple[str, ...] = SCORED
    probe: tuple[str, ...] = ()
    published: Published = field(default_factory=Published)

    def standard(self, dataset: str) -> TrainConfig:
        """Return the grid's defaults for a dataset."""
        own = _given(self.datasets[dataset].train, TrainConfig, SET)
        return TrainConfig(Path(), Path(), **{**self.defaults, **own})

    def off(self, dataset: str, options: Mapping[str, Any]) -> set[str]:
        """Name the options in which a training (as `config.plain` gives it) differs from the grid's defaults for that
        dataset. The tables compare methods, models and seeds where there are none, and vary one option at a time.
        """
        skipped = {*SET, *_COMPARED}
        standard = plain(self.standard(dataset)).items()
        return {name for name, value in standard if name not in skipped and options.get(name, value) != value}


@pydantic.dataclasses.dataclass(frozen=True, config=schema.CLOSED)
class _Evaluate:
    protocols: tuple[Literal["network", "paper", "linear"], ...] = ("network", "paper", "linear")
    probe: tuple[str, ...] = ()


@pydantic.dataclasses.dataclass(frozen=True, config=schema.CLOSED)
class _File:
    title: str = ""
    numbers: str = ""
    datasets: Mapping[str, Dataset] = field(default_factory=dict)
    defaults: _Defaults = field(default_factory=_Defaults)
    runs: tuple[_Run, ...] = ()
    evaluate: _Evaluate = field(default_factory=_Evaluate)

    def __post_init__(self) -> None:
        if not self.datasets:
            raise ValueError("it names no dataset; add a table such as [datasets.isic2017]")
        if not self.runs:
            raise ValueError("it holds no [[runs]] table, and so no cell; add one with dataset, model and method")
        for name, item in self.datasets.items():
            where = f"[datasets.{name}]"
            if bool(item.shards) == bool(item.source):
                raise ValueError(
                    f"{where} takes either 'shards', a shard folder, or 'source' and 'recipe', a folder to shard"
                )
            if item.shards and (item.options or item.recipe):
                key = next(iter(item.options), "recipe")
                raise ValueError(f"{where}: '{key}' goes with 'source'; shards are taken as they are")
            if not re.fullmatch(r"\w[\w.-]*", name):
                raise ValueError(
                    f"{where}: the name becomes a folder's, so it takes letters, digits, '_', '-' and '.'; rename it"
                )
        named: dict[str, tuple[str, ...]] = {}
        for index, run in enumerate(self.runs):
            named[f"'dataset' in [[runs]] {index + 1}"] = (
                run.dataset if isinstance(run.dataset, tuple) else (run.dataset,)
            )
        for where, names in {**named, "'probe' in [evaluate]": self.evaluate.probe}.items():
            if unknown := [name for name in names if name not in self.datasets]:
                raise ValueError(f"{where} must be of {', '.join(self.datasets)}; got {unknown[0]!r}")


def load(path: Path) -> Grid:
    """Read the grid in a TOML file. Raises `OSError`, or `ValueError` that names the file, the key, the rule and the remedy."""
    try:
        table = schema.read_toml(path)
        file = schema.check(_File, table)
        defaults = _axes(file.defaults, table.get("defaults", {}), "[defaults]")
        cells = [
            cell
            for index, run in enumerate(file.runs)
            for cell in _cells(run, table["runs"][index], f"[[runs]] {index + 1}", defaults, file.datasets)
        ]
        return Grid(
            path,
            file.title or path.stem,
            file.datasets,
            {name: values[0] for name, values in defaults.items()},
            tuple(dict.fromkeys(cells)),
            file.evaluate.protocols,
            file.evaluate.probe,
            published.load(path.parent / file.numbers) if file.numbers else Published(),
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _cells(
    run: Any, given: Mapping[str, Any], where: str, defaults: Mapping[str, Any], datasets: Mapping[str, Dataset]
) -> list[Cell]:
    own = _axes(run, given, where)
    cells = []
    for dataset in own.pop("dataset"):
        replaced = _given(datasets[dataset].train, TrainConfig, SET)
        axes = {**defaults, **{name: (value,) for name, value in replaced.items()}, **own}
        if (count := math.prod(map(len, axes.values()))) > _MOST_CELLS:
            raise ValueError(f"{where}: its lists make {count} cells, more than {_MOST_CELLS}; shorten them")
        for values in itertools.product(*axes.values()):
            try:
                config = TrainConfig(Path(dataset), Path(), **dict(zip(axes, values, strict=True)))
            except ValueError as error:
                keys = re.sub(r"--([\w-]+)", lambda found: found[1].replace("-", "_"), str(error))
                raise ValueError(f"{where}: {keys}") from error
            cells.append(Cell(dataset, replace(config, run=Path(Cell(dataset, config).name))))
    return cells


def _axes(table: Any, given: Mapping[str, Any], where: str) -> dict[str, tuple[Any, ...]]:
    """The values of each option, in the order of the file."""
    held = {name: getattr(table, name) for name in given}
    axes = {name: value if isinstance(value, tuple) else (value,) for name, value in held.items()}
    if empty := [name for name, values in axes.items() if not values]:
        raise ValueError(f"'{empty[0]}' in {where} is an empty list, which leaves no cell; give it a value or drop it")
    return axes
