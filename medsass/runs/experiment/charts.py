"""The paper's figures 2, 3, 4 and 10 from finished cells: bars by dataset with error bars, as PNG and PDF.

The upper row is the paper's protocol, an untrained decoder upon the encoder; the lower one a trained head, which tells
encoders apart. Whole networks (E+D, supervised) are the same in both.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medsass import files
from medsass.runs.experiment import aggregate
from medsass.runs.experiment.aggregate import CNN, NAMES, VIT, Line, Table
from medsass.runs.experiment.export import Value
from medsass.runs.experiment.grid import Grid
from medsass.runs.experiment.tables import END_TO_END, EVERYTHING, SUPERVISED, encoders

FIGURES = "figures"

_COLOURS = {
    "Supervised": "#4d4d4d",
    "MedSASS (E+D)": "#d55e00",
    "MedSASS (E)": "#e69f00",
    "DINO": "#0072b2",
    "BYOL": "#56b4e9",
    "SimSiam": "#009e73",
    "MAE": "#cc79a7",
    "SimMIM": "#882255",
}  # of Okabe and Ito, told apart by the colour-blind too
_PROTOCOLS = {"paper": "untrained decoder upon encoders", "linear": "1 × 1 head trained upon frozen encoders"}
_CNN, _VIT = ("byol", "dino", "simsiam"), ("dino", "mae", "simmim")


@dataclass(frozen=True)
class Diagram:
    """A diagram of a figure: `models`, of which the first with scores is drawn, baselines, and whole networks."""

    models: tuple[str, str]
    methods: tuple[str, ...]
    whole: tuple[Line, ...] = ()
    medsass: bool = True

    def lines(self, protocol: str) -> list[Line]:
        """The lines that are drawn, from left to right."""
        *baselines, ours = encoders(protocol, self.methods)
        return [*self.whole, *([ours] if self.medsass else []), *baselines]


FIGURES_OF_THE_PAPER: dict[str, tuple[Diagram, ...]] = {
    "2": (Diagram(VIT, _VIT, medsass=False), Diagram(CNN, _CNN, medsass=False)),
    "3": (Diagram(CNN, _CNN, (END_TO_END,)),),
    "4": (Diagram(VIT, _VIT, (END_TO_END,)),),
    "10": (Diagram(CNN, _CNN, (SUPERVISED, END_TO_END)), Diagram(VIT, _VIT, (SUPERVISED, END_TO_END))),
}


@dataclass(frozen=True)
class Bars:
    """The numbers of a diagram: ours and the paper's by dataset and line, and the height of the dashed lines by dataset."""

    title: str
    lines: Sequence[str]
    datasets: Mapping[str, str]  # the label of each name
    ours: Mapping[tuple[str, str], Value]
    paper: Mapping[tuple[str, str], Value]
    everything: Mapping[str, float]


def write(chosen: Grid, scores: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Draw `folder`/figures/figure-N.png and .pdf for each figure that has scores. Returns the PNG files."""
    drawn = []
    for number, diagrams in FIGURES_OF_THE_PAPER.items():
        rows = [[bars(diagram, protocol, chosen, scores) for diagram in diagrams] for protocol in _PROTOCOLS]
        shown = [index for index in range(len(diagrams)) if any(row[index] for row in rows)]
        grid = [filled for row in rows if (filled := [row[index] for index in shown]) and any(filled)]
        if grid:
            path = folder / FIGURES / f"figure-{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            draw(number, grid, path)
            drawn.append(path)
    return drawn


def bars(diagram: Diagram, protocol: str, chosen: Grid, scores: Sequence[Mapping[str, Any]]) -> Bars | None:
    """Return the numbers of the first of a diagram's models that has any by that protocol; None where none has."""
    lines = diagram.lines(protocol)
    drawn = [line.name for line in lines if line.path[1] == protocol]
    for model in diagram.models:
        found = aggregate.numbers(Table("", "", (model,), (*lines, EVERYTHING)), chosen, scores)
        cells: dict[str, dict[tuple[str, str], Value]] = {"ours": {}, "paper": {}}
        for key, value in found.items():
            cells[key.source][key.dataset, key.line] = value
        ours = cells["ours"]
        if any(line in drawn for _, line in ours):
            names = [line.name for line in lines]
            shown = [name for name in chosen.datasets if any((name, line) in ours for line in names)]
            datasets = {name: chosen.datasets[name].paper or name for name in shown}
            everything = {name: bar.mean for name in shown if (bar := ours.get((name, EVERYTHING.name)))}
            return Bars(f"{NAMES[model]}: {_PROTOCOLS[protocol]}", names, datasets, ours, cells["paper"], everything)
    return None


def draw(number: str, rows: Sequence[Sequence[Bars | None]], path: Path) -> None:
    """Draw diagrams, one row per protocol, into a PNG file and a PDF file beside it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    groups = [max(3, *(len(item.datasets) for row in rows if (item := row[i]))) for i in range(len(rows[0]))]
    width = max(8.0, 1.5 + sum(1.0 + 1.2 * count for count in groups))
    figure = Figure(figsize=(width, 3.1 * len(rows) + 0.3), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), len(rows[0]), squeeze=False, sharey=True, width_ratios=[g + 0.6 for g in groups])
    for row, line in zip(axes, rows, strict=True):
        for place, item in zip(row, line, strict=True):
            _diagram(place, item) if item else place.set_axis_off()
    axes[0, 0].set_ylim(bottom=0)  # the axes share it; set before all are drawn, it would fix the top as well
    legends = [place.get_legend_handles_labels() for place in axes.flat]
    shown = {text: handle for handles, texts in legends for handle, text in zip(handles, texts, strict=True)}
    order = [name for name in (*_COLOURS, "paper's number", "everything foreground") if name in shown]
    figure.legend([shown[name] for name in order], order, loc="outside lower center", ncols=5, frameon=False)
    figure.suptitle(f"Figure {number} of the paper, from our cells", fontsize="medium")
    for suffix in (".png", ".pdf"):
        metadata = {"CreationDate": None} if suffix == ".pdf" else None
        with files.atomic(path.with_suffix(suffix)) as file:
            figure.savefig(file, format=suffix[1:], dpi=150, metadata=metadata)


def _diagram(axes: Any, item: Bars) -> None:
    width = 0.8 / len(item.lines)
    for index, name in enumerate(item.lines):
        at = {key: x - 0.4 + (index + 0.5) * width for x, key in enumerate(item.datasets)}
        found = [(at[key], item.ours[key, name]) for key in item.datasets if (key, name) in item.ours]
        error = [math.nan if value.deviation is None else value.deviation for _, value in found]
        heights = [value.mean for _, value in found]
        style: dict[str, Any] = {"ecolor": "black", "capsize": 2.5, "error_kw": {"elinewidth": 1}}
        if found:
            style |= {"color": _COLOURS[name], "label": name}
            axes.bar([x for x, _ in found], heights, width * 0.92, yerr=error, **style)
        paper = [(at[key], item.paper[key, name].mean) for key in item.datasets if (key, name) in item.paper]
        if paper:
            look = {"marker": "D", "s": 16, "facecolor": "white", "edgecolor": "black", "linewidth": 0.8, "zorder": 3}
            axes.scatter(*zip(*paper, strict=True), label="paper's number", **look)
    for x, key in enumerate(item.datasets):
        if (height := item.everything.get(key)) is not None:
            axes.hlines(height, x - 0.45, x + 0.45, "black", "dashed", linewidth=1, label="everything foreground")
    axes.set_xticks(range(len(item.datasets)), list(item.datasets.values()))
    axes.margins(x=0.02)
    axes.set_ylabel("IoU")
    axes.set_title(item.title, fontsize="medium")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="x", length=0)
