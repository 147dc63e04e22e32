"""From scores to a filled table: a `Table` lists what is compared, `build` sorts the numbers into rows and columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import mean, stdev
from typing import Any, NamedTuple

from medsass.runs.experiment.export import MARKS, Sheet, Value
from medsass.runs.experiment.grid import Grid

CNN, VIT = ("unet-resnet50", "unet-resnet18"), ("unet-vit-small", "unet-vit-tiny")  # the paper's, then its stand-in

NAMES = {
    "unet-resnet50": "ResNet-50", "unet-resnet18": "ResNet-18", "unet-vit-small": "ViT-small", "unet-vit-tiny": "ViT-tiny",
    "otsu": "Otsu", "ght": "GHT", "adaptive-mean": "AMT", "adaptive-gaussian": "AGT",
    "focal-tversky": "focal Tversky", "tversky": "Tversky", "focal": "focal", "cross-entropy": "cross-entropy",
}  # fmt: skip
_HEADS = {"dataset": "dataset", "line": "approach", "model": "backbone", "source": "numbers"}
_UNITS = {"epochs": " epochs", "batch_size": " a batch"}
_ORDER = {"labels": ("adaptive-mean", "adaptive-gaussian", "ght", "otsu"),
          "loss": ("cross-entropy", "tversky", "focal", "focal-tversky")}  # fmt: skip
_SAID = {"size": "{0} × {0} pixels", "epochs": "epochs: {0}", "batch_size": "batches of {0}"}


@dataclass(frozen=True)
class Line:
    """A line of a comparison: a method's score by a protocol, at `path` in a cell's scores.

    method "": any, for the answers that need no training; they are never the best, and not in the paper.
    """

    name: str
    method: str
    path: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table as data. `rows` and `column` are coordinates of its numbers (fields of `Key`): those that make a row, and
    the one whose values stand side by side. `axis` is the option that is varied, if any. `fixed` are options that all its
    cells have beside the grid's defaults.
    """

    number: str
    caption: str
    models: tuple[str, ...]
    lines: tuple[Line, ...]
    rows: tuple[str, ...] = ("line", "model", "source")
    column: str = "dataset"
    axis: str = ""
    fixed: Mapping[str, str] = field(default_factory=dict)


class Key(NamedTuple):
    """The coordinates of a number. `model` is "" for a trivial line, `source` "ours" or "paper", `axis` a value of the table's."""

    dataset: str
    line: str
    model: str
    source: str
    axis: Any = ""


def numbers(table: Table, chosen: Grid, scores: Sequence[Mapping[str, Any]]) -> dict[Key, Value]:
    """Return all numbers of a table: ours and, for the same datasets, the paper's. Ours are of cells that differ from the
    grid's defaults only in what the table varies or fixes.
    """
    ours: dict[Key, dict[int, float]] = {}
    for record in scores:
        if (
            record["dataset"] not in chosen.datasets
            or record["model"] not in table.models
            or any(record[name] != value for name, value in table.fixed.items())
            or not chosen.off(record["dataset"], record["train"]) <= {table.axis, *table.fixed}
        ):
            continue
        for line in table.lines:
            value: Any = record
            for name in line.path:
                value = value.get(name) if value else None
            if line.method in ("", record["method"]) and value is not None:
                model, axis = record["model"] if line.method else "", record[table.axis] if table.axis else ""
                key = Key(record["dataset"], line.name, model, "ours", axis)
                ours.setdefault(key, {})[record["seed"]] = float(value)
    values = {}
    for key, seeds in ours.items():
        count = len(seeds) if key.model else 0
        values[key] = Value(mean(seeds.values()), stdev(seeds.values()) if count > 1 else None, count)
    return {**values, **_paper(table, chosen)}


def _paper(table: Table, chosen: Grid) -> dict[Key, Value]:
    """The paper's numbers; where it prints one twice, that of the table of the same number."""
    names = {dataset.paper: name for name, dataset in chosen.datasets.items() if dataset.paper}
    found: dict[Key, Value] = {}
    for number in sorted(chosen.published.numbers, key=lambda number: number.table == table.number):
        fits = (
            number.dataset in names
            and number.model in table.models
            and all(number.options[name] == value for name, value in table.fixed.items())
            and number.off <= {table.axis, *table.fixed}
        )
        for line in table.lines if fits else ():
            if (number.method, number.protocol, number.score) == (line.method, *line.path[-2:]):
                axis = number.options[table.axis] if table.axis else ""
                key = Key(names[number.dataset], line.name, number.model, "paper", axis)
                found[key] = Value(number.mean, number.deviation, 0, exact=True)
    return found


def build(table: Table, chosen: Grid, scores: Sequence[Mapping[str, Any]]) -> Sheet | None:
    """Fill a table with what there is; None where it would hold no trained cell of ours. With an axis, datasets are shown
    only where ours or the paper's have at least two of its values.
    """
    found = numbers(table, chosen, scores)
    if table.axis:
        groups: dict[tuple[str, str], set[Any]] = {}
        for key in found:
            groups.setdefault((key.dataset, key.source), set()).add(key.axis)
        varied = {dataset for (dataset, _), values in groups.items() if len(values) > 1}
        found = {key: value for key, value in found.items() if key.dataset in varied}
    if not any(key.source == "ours" and key.model for key in found):
        return None
    axis = {key.axis for key in found}
    order: dict[str, list[Any]] = {
        "dataset": list(chosen.datasets),
        "line": [line.name for line in table.lines],
        "model": [*table.models, ""],
        "source": ["ours", "paper"],
        "axis": [name for name in _ORDER[table.axis] if name in axis] if table.axis in _ORDER else sorted(axis),
    }

    def sort(names: Sequence[str]) -> list[tuple[Any, ...]]:
        seen = {tuple(getattr(key, name) for name in names) for key in found}
        return sorted(seen, key=lambda row: [order[name].index(value) for name, value in zip(names, row, strict=True)])

    rows, columns = sort(table.rows), [column for (column,) in sort([table.column])]
    ranked = table.column != "line"  # lines side by side are different scores
    best = _best(found, table) if ranked else set()
    cells: dict[tuple[Any, ...], dict[Any, Value]] = {row: {} for row in rows}
    for key, value in found.items():
        row = tuple(getattr(key, name) for name in table.rows)
        cells[row][getattr(key, table.column)] = replace(value, best=key in best)
    notes = _notes(found, chosen)
    marks = {name: MARKS[index % len(MARKS)] * (1 + index // len(MARKS)) for index, name in enumerate(notes)}

    def label(name: str, value: Any) -> str:
        text = (chosen.datasets[value].paper or value) if name == "dataset" else NAMES.get(value, str(value))
        return f"{text}{_UNITS.get(table.axis, '') if name == 'axis' else ''}{marks.get(value, '')}"

    return Sheet(
        table.number,
        f"{table.caption}. {_caption(table, found, chosen)}",
        [_HEADS[name] for name in table.rows],
        [label(table.column, column) for column in columns],
        [([label(*pair) for pair in zip(table.rows, row, strict=True)], [cells[row].get(c) for c in columns]) for row in rows],
        [f"{marks[name]} {text}" for name, text in notes.items()],
    )  # fmt: skip


def _best(found: Mapping[Key, Value], table: Table) -> set[Key]:
    """The keys of the highest means for each dataset, backbone, protocol and source, all of a tie, compared as printed."""
    protocol = {line.name: line.path[:-1] for line in table.lines if line.method}
    groups: dict[tuple[Any, ...], list[Key]] = {}
    for key in found:
        if key.line in protocol:
            groups.setdefault((key.dataset, key.model, protocol[key.line], key.source), []).append(key)
    tops = [(keys, max(round(found[key].mean, 4) for key in keys)) for keys in groups.values() if len(keys) > 1]
    return {key for keys, top in tops for key in keys if round(found[key].mean, 4) == top and top > 0}


def _notes(found: Mapping[Key, Value], chosen: Grid) -> dict[str, str]:
    """Footnotes by dataset or model: how ours differ from the paper's."""
    datasets, models = ({getattr(key, name) for key in found if key.source == "ours"} for name in ("dataset", "model"))
    notes = {
        name: f"ours: {item.differs}" for name, item in chosen.datasets.items() if name in datasets and item.differs
    }
    for paper, stand_in in (CNN, VIT):
        if stand_in in models:
            notes[stand_in] = (
                f"a smaller network in place of {NAMES[paper]}, for computers without a GPU; not the paper's"
            )
    return notes


def _caption(table: Table, found: Mapping[Key, Value], chosen: Grid) -> str:
    """The caption's account of the numbers: seeds, and the options of the trainings."""

    def said(options: Mapping[str, Any]) -> str:
        shown = {name: text for name, text in _SAID.items() if name in options and name != table.axis}
        return ", ".join(text.format(options[name]) for name, text in shown.items())

    counts = sorted({value.seeds for value in found.values() if value.seeds})
    seeds = "1 seed" if counts == [1] else f"{' to '.join(map(str, dict.fromkeys((counts[0], counts[-1]))))} seeds"
    seen = {key.dataset for key in found if key.source == "ours"}
    options = {
        name: {option: getattr(chosen.standard(name), option) for option in _SAID}
        for name in chosen.datasets
        if name in seen
    }
    usual = max(options.values(), key=list(options.values()).count)
    others = "".join(
        f"; {chosen.datasets[name].paper or name}: {said(dict(own.items() - usual.items()))}"
        for name, own in options.items()
        if own != usual
    )
    text = f"Ours: mean ± sample standard deviation (n − 1) of {seeds}; {said(usual)}{others}."
    if any(key.source == "paper" for key in found):
        standard = chosen.published.standard
        text += f" Paper: {standard.get('seeds')} seeds; {said(standard)}."
    return text + (" Best of a dataset, backbone and protocol in bold." if table.column != "line" else "")
