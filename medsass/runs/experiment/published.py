"""Published numbers to show beside one's own: a TOML file in the coordinates of a grid.

`[standard]` holds what a number has unless its table says otherwise: labels, loss, epochs, batch_size, size, seeds. Each
`[[numbers]]` table has the `table` that they are from, `method`, `model`, `protocol` ("network", "paper", "linear" or "probe") and
`values`, a mean and its standard deviation (or a mean alone) by dataset.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medsass.config import METHODS, MODELS, PROTOCOLS

_TEXT = ("table", "method", "model", "protocol")
_AXES = ("labels", "loss", "epochs", "batch_size")
_NAMES = {"method": METHODS, "model": MODELS, "protocol": (*PROTOCOLS[1:], "probe")}
_SCORES = ("iou", "accuracy", "recall")


@dataclass(frozen=True)
class Number:
    """A published mean, its standard deviation or None, and what it is of. `options` are those of a training."""

    table: str
    dataset: str
    method: str
    model: str
    protocol: str
    score: str
    options: Mapping[str, Any]
    mean: float
    deviation: float | None


@dataclass(frozen=True)
class Published:
    """All numbers of a publication, and the training options that they have in common unless they say otherwise."""

    standard: Mapping[str, Any] = field(default_factory=dict)
    numbers: tuple[Number, ...] = ()

    def off(self, number: Number) -> set[str]:
        """Names of the options in which a number's training is off the standard."""
        return {name for name, value in number.options.items() if self.standard.get(name) != value}


def load(path: Path) -> Published:
    """The numbers in a TOML file. Raises `OSError`, or `ValueError` that names the file and the rule it breaks."""
    try:
        table = tomllib.loads(path.read_text("utf-8"))
        standard, groups = table["standard"], table["numbers"]
        if not isinstance(standard, dict) or not isinstance(groups, list):
            raise ValueError("'standard' and 'numbers' must be tables: write [standard] once and [[numbers]] for each")
        numbers = tuple(
            number
            for index, group in enumerate(groups)
            for number in _group(group, standard, f"[[numbers]] {index + 1}")
        )
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: not a TOML file: {error}") from error
    except KeyError as error:
        raise ValueError(f"{path}: {error} is missing; it takes [standard] and [[numbers]] tables") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return Published(standard, numbers)


def _group(group: Any, standard: Mapping[str, Any], where: str) -> list[Number]:
    if not isinstance(group, dict):
        raise ValueError(f"{where} must be a table; got {group!r}")
    known = {*_TEXT, *_AXES, "score", "values"}
    for name in group:
        if name not in known:
            raise ValueError(f"unknown key '{name}' in {where}; known: {', '.join(sorted(known))}")
    missing = [name for name in (*_TEXT, "values") if name not in group]
    if missing:
        raise ValueError(f"{where} has no '{missing[0]}'; add it")
    score = group.get("score", "iou")
    for name, value, names in (("score", score, _SCORES), *((name, group[name], _NAMES[name]) for name in _NAMES)):
        if value not in names:
            raise ValueError(f"'{name}' in {where} must be one of {', '.join(names)}; got {value!r}")
    if not isinstance(group["values"], dict):
        raise ValueError(f"'values' in {where} must be a table of means by dataset; got {group['values']!r}")
    options = {name: group.get(name, standard.get(name)) for name in _AXES}
    texts = {name: str(group[name]) for name in _TEXT}
    numbers = []
    for dataset, pair in group["values"].items():
        mean, deviation = _pair(pair, dataset, where)
        numbers.append(Number(dataset=dataset, score=score, options=options, mean=mean, deviation=deviation, **texts))
    return numbers


def _pair(pair: Any, dataset: str, where: str) -> tuple[float, float | None]:
    values = pair if isinstance(pair, list) else [pair]
    if len(values) not in (1, 2) or not all(type(value) in (int, float) for value in values):
        raise ValueError(f"'{dataset}' in {where} must be [mean, standard deviation] or a mean; got {pair!r}")
    return float(values[0]), float(values[1]) if len(values) == 2 else None
