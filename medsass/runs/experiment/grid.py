"""The grid of an experiment: a TOML file whose lists multiply out into cells, each of them one training.

`[datasets.NAME]` says where a dataset comes from, `[defaults]` and `[[runs]]` hold options of `medsass train`, `[evaluate]`
how a cell is scored. Unknown keys are refused, so that a misspelt one cannot pass silently.
"""

import itertools
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from medsass.config import PROTOCOLS, ShardConfig, TrainConfig, plain
from medsass.methods import method
from medsass.runs.experiment import published
from medsass.runs.experiment.published import Published

COORDINATES = ("model", "method", "labels", "loss", "epochs", "batch_size", "seed")  # of a cell, beside the dataset
SCORED = PROTOCOLS[1:]  # network, paper, linear: those that "auto" stands for are asked for by name

SET = {
    "shards",
    "run",
    "init",
    "device",
    "threads",
    "resume",
    "overwrite",
}  # an experiment sets them, or cannot vary them
_SHARD_SET = {"source", "out", "recipe", "workers", "strict", "dry_run", "resume", "overwrite"}
_TOP = ("title", "numbers", "datasets", "defaults", "runs", "evaluate")
_DATASET = ("shards", "source", "recipe", "split", "paper", "differs", "train")


@dataclass(frozen=True)
class Dataset:
    """Where a dataset comes from and what it stands for.

    Either `shards` is a shard folder, or `source` a folder that is sharded with `recipe` and `options`, those of `medsass
    shard`; both are below --data. split: the one that is scored. paper: its name among the published numbers, or "".
    differs: in what it is not the paper's, for a footnote. train: options of `medsass train` that it has in place of the
    grid's defaults.
    """

    name: str
    shards: str = ""
    source: str = ""
    recipe: str = ""
    split: str = "test"
    paper: str = ""
    differs: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """One training: a dataset's name, and the options, of which shards, run, device and threads are set when it runs."""

    dataset: str
    config: TrainConfig

    @property
    def name(self) -> str:
        """`dataset/...`: method, model, every option that is not `medsass train`'s default, seed. Equal configurations have
        equal names and others have others, whatever else the grid holds.
        """
        c = self.config
        extra = {item.name: (getattr(c, item.name), item.default) for item in fields(c) if item.name not in SET}
        parts = [
            f"{name.replace('_', '-')}-{value}"
            for name, (value, default) in extra.items()
            if name not in ("method", "model", "seed") and value != default
        ]
        return f"{self.dataset}/" + re.sub(r"[^\w.,-]", "_", "_".join([c.method, c.model, *parts, f"seed-{c.seed}"]))


@dataclass(frozen=True)
class Grid:
    """An experiment. `cells` in the order of the file, none twice; `protocols` and `probe` (names of datasets with class
    labels) say how they are scored; `defaults` are options of `medsass train`, of a list its first value.
    """

    path: Path
    title: str
    datasets: Mapping[str, Dataset]
    defaults: Mapping[str, Any]
    cells: tuple[Cell, ...]
    protocols: tuple[str, ...] = SCORED
    probe: tuple[str, ...] = ()
    published: Published = field(default_factory=Published)

    def off(self, dataset: str, options: Mapping[str, Any]) -> set[str]:
        """Names of the options in which a training (as `config.plain` gives it) is off the grid's defaults for that
        dataset; the tables compare methods, models and seeds where there are none, and vary one at a time.
        """
        standard = plain(TrainConfig(Path(), Path(), **{**self.defaults, **self.datasets[dataset].train}))
        return {
            name
            for name, value in standard.items()
            if name not in {*SET, "method", "model", "seed"} and options.get(name, value) != value
        }


def load(path: Path) -> Grid:
    """The grid in a TOML file. Raises `OSError`, or `ValueError` that names the file, the key, the rule and the remedy."""
    try:
        return _grid(path, tomllib.loads(path.read_text("utf-8")))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: not a TOML file: {error}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a TOML file: it is not UTF-8 text") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _grid(path: Path, table: dict[str, Any]) -> Grid:
    _known(table, _TOP, "the file")
    datasets = {
        name: _dataset(name, values, path.parent) for name, values in _table(table, "datasets", "the file").items()
    }
    if not datasets:
        raise ValueError("it names no dataset; add a table such as [datasets.isic2017]")
    defaults = {
        name: [_typed(TrainConfig, name, item, "[defaults]") for item in _list(value)]
        for name, value in _options(_table(table, "defaults", "the file"), "[defaults]").items()
    }
    evaluation = _table(table, "evaluate", "the file")
    _known(evaluation, ("protocols", "probe"), "[evaluate]")
    runs = table.get("runs", [])
    if not isinstance(runs, list) or not runs:
        raise ValueError("it holds no [[runs]] table, and so no cell; add one with dataset, model and method")
    cells = [
        cell for index, run in enumerate(runs) for cell in _cells(run, f"[[runs]] {index + 1}", defaults, datasets)
    ]
    return Grid(
        path,
        _text(table, "title", "the file") or path.stem,
        datasets,
        {name: values[0] for name, values in defaults.items()},
        tuple(dict.fromkeys(cells)),
        _names(evaluation.get("protocols", list(SCORED)), SCORED, "'protocols' in [evaluate]"),
        _names(evaluation.get("probe", []), tuple(datasets), "'probe' in [evaluate]"),
        published.load(path.parent / numbers) if (numbers := _text(table, "numbers", "the file")) else Published(),
    )


def _dataset(name: str, table: Any, folder: Path) -> Dataset:
    where = f"[datasets.{name}]"
    if not isinstance(table, dict):
        raise ValueError(f"{where} must be a table; got {table!r}")
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ValueError(
            f"{where}: the name becomes a folder's, so it takes letters, digits, '_', '-' and '.'; rename it"
        )
    shaping = [item.name for item in fields(ShardConfig) if item.name not in _SHARD_SET]
    _known(table, (*_DATASET, *shaping), where)
    text = {key: _text(table, key, where) for key in _DATASET[:-1] if key in table}
    if bool(text.get("shards")) == bool(text.get("source")):
        raise ValueError(f"{where} takes either 'shards', a shard folder, or 'source' and 'recipe', a folder to shard")
    options = {key: _typed(ShardConfig, key, value, where) for key, value in table.items() if key in shaping}
    if text.get("shards") and (options or "recipe" in text):
        raise ValueError(f"{where}: '{next(iter(options), 'recipe')}' goes with 'source'; shards are taken as they are")
    if text.get("recipe", "").endswith(".toml"):
        text["recipe"] = str(folder / text["recipe"])
    train = _options(_table(table, "train", where), f"{where[:-1]}.train]")
    typed = {key: _typed(TrainConfig, key, value, f"{where[:-1]}.train]") for key, value in train.items()}
    return Dataset(name, **text, options=options, train=typed)


def _cells(run: Any, where: str, defaults: Mapping[str, list[Any]], datasets: Mapping[str, Dataset]) -> list[Cell]:
    if not isinstance(run, dict) or "dataset" not in run:
        raise ValueError(f"{where} must be a table with 'dataset', a name or a list of names")
    own = _options({name: value for name, value in run.items() if name != "dataset"}, where)
    typed = {name: [_typed(TrainConfig, name, item, where) for item in _list(value)] for name, value in own.items()}
    cells = []
    for dataset in _names(_list(run["dataset"]), tuple(datasets), f"'dataset' in {where}"):
        axes = {**defaults, **{name: [value] for name, value in datasets[dataset].train.items()}, **typed}
        for values in itertools.product(*axes.values()):
            try:
                config = TrainConfig(Path(dataset), Path(), **dict(zip(axes, values, strict=True)))
                method.check(config)
            except ValueError as error:
                keys = re.sub(r"--([\w-]+)", lambda found: found[1].replace("-", "_"), str(error))
                raise ValueError(f"{where}: {keys}") from error
            cell = Cell(dataset, config)
            cells.append(replace(cell, config=replace(config, run=Path(cell.name))))
    return cells


def _options(table: dict[str, Any], where: str) -> dict[str, Any]:
    known = [item.name for item in fields(TrainConfig)]
    for name in table:
        if name in SET:
            raise ValueError(f"'{name}' in {where} is set by the experiment itself; drop it")
    _known(table, tuple(name for name in known if name not in SET), where)
    return table


def _typed(kind: type[Any], name: str, value: Any, where: str) -> Any:
    """`value`, whole numbers as float where the option is one. Raises `ValueError` where it is of another type."""
    hint = typing.get_type_hints(kind)[name]
    allowed = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    allowed = tuple(str if typing.get_origin(item) is typing.Literal else item for item in allowed)
    if type(value) is int and float in allowed:
        return float(value)
    if type(value) not in allowed:
        wanted = " or ".join(item.__name__ for item in allowed if item is not type(None))
        raise ValueError(f"'{name}' in {where} must be {wanted}; got {value!r}")
    return value


def _list(value: Any) -> list[Any]:
    values = value if isinstance(value, list) else [value]
    if not values:
        raise ValueError("an empty list leaves no cell; give it a value or drop the key")
    return values


def _names(values: Any, known: tuple[str, ...], where: str) -> tuple[str, ...]:
    if not isinstance(values, list):
        raise ValueError(f"{where} must be a list; got {values!r}")
    for value in values:
        if value not in known:
            raise ValueError(f"{where} must be of {', '.join(known)}; got {value!r}")
    return tuple(values)


def _known(table: dict[str, Any], known: tuple[str, ...], where: str) -> None:
    for name in table:
        if name not in known:
            raise ValueError(f"unknown key '{name}' in {where}; known: {', '.join(known)}")


def _table(table: dict[str, Any], name: str, where: str) -> dict[str, Any]:
    value = table.get(name, {})
    if not isinstance(value, dict):
        raise ValueError(f"'{name}' in {where} must be a table; got {value!r}")
    return value


def _text(table: dict[str, Any], name: str, where: str) -> str:
    value = table.get(name, "")
    if not isinstance(value, str):
        raise ValueError(f"'{name}' in {where} must be text; got {value!r}")
    return value
