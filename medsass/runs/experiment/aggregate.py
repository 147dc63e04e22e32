"""From scores to a filled table: a `Table` says what is compared, `build` sorts the numbers into rows and columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from medsass.config import TrainConfig
from medsass.runs.experiment.export import MARKS, Sheet, Value
from medsass.runs.experiment.grid import Grid
from medsass.runs.experiment.published import Number

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
    """What is compared with others: a method's score by a protocol, at `path` in a cell's scores.

    method "": any, for the answers that need no training; they are `trivial`, never the best, and not the paper's.
    """

    name: str
    method: str
    path: tuple[str, ...]

    @property
    def trivial(self) -> bool:
        """Whether the number depends on the images alone."""
        return not self.method


@dataclass(frozen=True)
class Table:
    """A table as data. Its numbers have coordinates: dataset, line, model, source ("ours" or "paper") and, where an
    `axis` is varied, its value. `rows` name those that make a row, `column` the one whose values stand side by side.
    `fixed` are options that all its cells have beside the grid's defaults.
    """

    number: str
    caption: str
    models: tuple[str, ...]
    lines: tuple[Line, ...]
    rows: tuple[str, ...] = ("line", "model", "source")
    column: str = "dataset"
    axis: str = ""
    fixed: Mapping[str, str] = field(default_factory=dict)


Key = tuple[tuple[str, Any], ...]


def numbers(table: Table, chosen: Grid, scores: Sequence[Mapping[str, Any]]) -> dict[Key, Value]:
    """All numbers of a table by their coordinates, ours and, of the same datasets, the paper's."""
    ours: dict[Key, dict[int, float]] = {}
    for record in scores:
        if record["dataset"] not in chosen.datasets or not _fits(table, record, chosen):
            continue
        for line in table.lines:
            value = _dig(record, line.path)
            matches = record["model"] in table.models and line.method in ("", record["method"])
            if matches and value is not None:
                model = "" if line.trivial else record["model"]
                axis = record[table.axis] if table.axis else ""
                key = _key(record["dataset"], line.name, model, "ours", axis)
                ours.setdefault(key, {})[record["seed"]] = value
    values = {
        key: Value(mean(seeds.values()), stdev(seeds.values()) if len(seeds) > 1 else None, len(seeds))
        for key, seeds in ours.items()
    }
    trivial = {line.name for line in table.lines if line.trivial}
    values = {
        key: Value(value.mean, None, 0) if dict(key)["line"] in trivial else value for key, value in values.items()
    }
    return {**values, **_paper(table, chosen)}


def _fits(table: Table, record: Mapping[str, Any], chosen: Grid) -> bool:
    """Whether a cell differs from the grid's defaults in nothing but what the table varies or fixes."""
    fixed = all(record[name] == value for name, value in table.fixed.items())
    return fixed and chosen.off(record["dataset"], record["train"]) <= {table.axis, *table.fixed}


def _paper(table: Table, chosen: Grid) -> dict[Key, Value]:
    """The paper's numbers; of one that it prints twice the one in the table of that number."""
    names = {dataset.paper: name for name, dataset in chosen.datasets.items() if dataset.paper}
    found: dict[Key, Value] = {}
    for number in sorted(chosen.published.numbers, key=lambda number: number.table == table.number):
        for line in table.lines:
            if number.dataset in names and _is_of(number, line, table, chosen):
                axis = number.options[table.axis] if table.axis else ""
                key = _key(names[number.dataset], line.name, number.model, "paper", axis)
                found[key] = Value(number.mean, number.deviation, 0, exact=True)
    return found


def _is_of(number: Number, line: Line, table: Table, chosen: Grid) -> bool:
    same = (number.method, number.protocol, number.score) == (line.method, line.path[-2], line.path[-1])
    fixed = all(number.options[name] == value for name, value in table.fixed.items())
    varied = chosen.published.off(number) <= {table.axis, *table.fixed}
    return same and fixed and varied and number.model in table.models


def _dig(record: Mapping[str, Any], path: Sequence[str]) -> float | None:
    value: Any = record
    for name in path:
        value = value.get(name) if value else None
    return None if value is None else float(value)


def _key(dataset: str, line: str, model: str, source: str, axis: Any) -> Key:
    return (("dataset", dataset), ("line", line), ("model", model), ("source", source), ("axis", axis))


def build(table: Table, chosen: Grid, scores: Sequence[Mapping[str, Any]]) -> Sheet | None:
    """A table filled with what there is; None where no cell of ours belongs into it. Of an axis only datasets are shown
    of which ours or the paper's have two values at least.
    """
    found = numbers(table, chosen, scores)
    if table.axis:
        varied = {name for name in chosen.datasets if _varied(found, name)}
        found = {key: value for key, value in found.items() if dict(key)["dataset"] in varied}
    trained = {line.name for line in table.lines if not line.trivial}
    if not any(dict(key)["source"] == "ours" and dict(key)["line"] in trained for key in found):
        return None
    order = _order(table, chosen)
    place = {name: {value: index for index, value in enumerate(values)} for name, values in order.items()}
    place["axis"] = {value: index for index, value in enumerate(_axis(table, found))}

    def sort(names: Sequence[str]) -> list[tuple[Any, ...]]:
        seen = {tuple(dict(key)[name] for name in names) for key in found}
        return sorted(seen, key=lambda row: [place[name][value] for name, value in zip(names, row, strict=True)])

    rows, columns = sort(table.rows), [column for (column,) in sort([table.column])]
    best = _best(found, table) if _has_best(table) else set()
    cells: dict[tuple[Any, ...], dict[Any, Value]] = {row: {} for row in rows}
    for key, value in found.items():
        at = dict(key)
        cells[tuple(at[name] for name in table.rows)][at[table.column]] = value.marked(key in best)
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


def _order(table: Table, chosen: Grid) -> dict[str, Sequence[str]]:
    return {
        "dataset": list(chosen.datasets),
        "line": [line.name for line in table.lines],
        "model": [*table.models, ""],
        "source": ("ours", "paper"),
    }


def _axis(table: Table, found: Mapping[Key, Value]) -> list[Any]:
    values = {dict(key)["axis"] for key in found}
    return [name for name in _ORDER[table.axis] if name in values] if table.axis in _ORDER else sorted(values)


def _varied(found: Mapping[Key, Value], dataset: str) -> bool:
    keys = [dict(key) for key in found if dict(key)["dataset"] == dataset]
    return any(len({at["axis"] for at in keys if at["source"] == source}) > 1 for source in ("ours", "paper"))


def _has_best(table: Table) -> bool:
    return table.column != "line"  # lines side by side are different scores


def _best(found: Mapping[Key, Value], table: Table) -> set[Key]:
    """The keys of the highest means of each dataset, backbone, protocol and source, all of a tie, as they are printed."""
    protocol = {line.name: line.path[:-1] for line in table.lines if not line.trivial}
    groups: dict[tuple[Any, ...], list[Key]] = {}
    for key in found:
        at = dict(key)
        if at["line"] in protocol:
            groups.setdefault((at["dataset"], at["model"], protocol[at["line"]], at["source"]), []).append(key)
    tops = [(keys, max(round(found[key].mean, 4) for key in keys)) for keys in groups.values() if len(keys) > 1]
    return {key for keys, top in tops for key in keys if round(found[key].mean, 4) == top and top > 0}


def _notes(found: Mapping[Key, Value], chosen: Grid) -> dict[str, str]:
    """Footnotes by the dataset or model that they are of: in what ours are not the paper's."""
    ours = [dict(key) for key in found if dict(key)["source"] == "ours"]
    seen = {name for name in chosen.datasets if any(at["dataset"] == name for at in ours)}
    notes = {name: f"ours: {item.differs}" for name, item in chosen.datasets.items() if name in seen and item.differs}
    for paper, stand_in in (CNN, VIT):
        if any(at["model"] == stand_in for at in ours):
            notes[stand_in] = (
                f"a smaller network in place of {NAMES[paper]}, for computers without a GPU; not the paper's"
            )
    return notes


def _caption(table: Table, found: Mapping[Key, Value], chosen: Grid) -> str:
    """How the numbers came about: seeds, and what of the training the paper's standard does not say."""
    counts = sorted({value.seeds for value in found.values() if value.seeds})
    seeds = "1 seed" if counts == [1] else f"{' to '.join(map(str, dict.fromkeys((counts[0], counts[-1]))))} seeds"
    seen = {dict(key)["dataset"] for key in found if dict(key)["source"] == "ours"}
    shown = [name for name in chosen.datasets if name in seen]
    options = [_options(name, chosen) for name in shown]
    usual = max(options, key=options.count)
    others = "".join(
        f"; {chosen.datasets[name].paper or name}: {_said(dict(own.items() - usual.items()), table.axis)}"
        for name, own in zip(shown, options, strict=True)
        if own != usual
    )
    text = f"Ours: mean ± sample standard deviation (n − 1) of {seeds}; {_said(usual, table.axis)}{others}."
    if any(dict(key)["source"] == "paper" for key in found):
        standard = chosen.published.standard
        text += f" Paper: {standard.get('seeds')} seeds; {_said(standard, table.axis)}."
    return text + (" Best of a dataset, backbone and protocol in bold." if _has_best(table) else "")


def _options(dataset: str, chosen: Grid) -> dict[str, Any]:
    standard = TrainConfig(Path(), Path(), **{**chosen.defaults, **chosen.datasets[dataset].train})
    return {name: getattr(standard, name) for name in _SAID}


def _said(options: Mapping[str, Any], varied: str) -> str:
    return ", ".join(text.format(options[name]) for name, text in _SAID.items() if name in options and name != varied)
