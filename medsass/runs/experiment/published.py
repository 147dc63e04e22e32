"""Published numbers to show beside one's own: a TOML file in the coordinates of a grid.

`[standard]` holds what a number has unless its table says otherwise: labels, loss, epochs, batch_size, size, seeds. Each
`[[numbers]]` table has the `table` that they are from, `method`, `model`, `protocol` ("network", "paper", "linear" or "probe") and
`values`, a mean and its standard deviation (or a mean alone) by dataset.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pydantic

from medsass.config import schema
from medsass.config.options import Method, Model

_AXES = ("labels", "loss", "epochs", "batch_size")


@dataclass(frozen=True)
class Number:
    """A published mean, its standard deviation or None, and its coordinates. `options` are those of a training; `off` names
    those in which it differs from the standard.
    """

    table: str
    dataset: str
    method: str
    model: str
    protocol: str
    score: str
    options: Mapping[str, Any]
    off: frozenset[str]
    mean: float
    deviation: float | None


@dataclass(frozen=True)
class Published:
    """All numbers of a publication, and the training options that they have in common unless they say otherwise."""

    standard: Mapping[str, Any] = field(default_factory=dict)
    numbers: tuple[Number, ...] = ()


@pydantic.dataclasses.dataclass(frozen=True, config=schema.CLOSED)
class _Numbers:
    table: str
    method: Method
    model: Model
    protocol: Literal["network", "paper", "linear", "probe"]
    values: Mapping[str, float | tuple[float, ...]]
    score: Literal["iou", "accuracy", "recall"] = "iou"
    labels: str | None = None
    loss: str | None = None
    epochs: int | None = None
    batch_size: int | None = None


@pydantic.dataclasses.dataclass(frozen=True, config=schema.CLOSED)
class _File:
    standard: Mapping[str, Any]
    numbers: tuple[_Numbers, ...]


def load(path: Path) -> Published:
    """Read the numbers in a TOML file. Raises `OSError`, or `ValueError` that names the file and the rule it breaks."""
    try:
        file = schema.check(_File, schema.read_toml(path))
        numbers: list[Number] = []
        for index, group in enumerate(file.numbers):
            own = {name: getattr(group, name) for name in _AXES}
            options = {name: file.standard.get(name) if value is None else value for name, value in own.items()}
            off = frozenset(name for name, value in options.items() if file.standard.get(name) != value)
            for dataset, value in group.values.items():
                pair = value if isinstance(value, tuple) else (value,)
                if len(pair) not in (1, 2):
                    raise ValueError(
                        f"'{dataset}' in [values] of [[numbers]] {index + 1} must be [mean, standard deviation] or a mean; "
                        f"got {list(pair)}"
                    )
                place = (group.table, dataset, group.method, group.model, group.protocol, group.score)
                numbers.append(Number(*place, options, off, pair[0], pair[1] if len(pair) == 2 else None))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return Published(file.standard, tuple(numbers))
