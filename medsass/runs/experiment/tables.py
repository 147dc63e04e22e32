"""The paper's tables 1 to 5 and 7 to 9 from finished cells: our number beside the paper's, in Markdown, CSV and LaTeX.

The tables are data; `aggregate.build` fills any of them from the scores.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medsass import files
from medsass.runs.experiment import aggregate, export
from medsass.runs.experiment.aggregate import CNN, VIT, Line, Table
from medsass.runs.experiment.export import Sheet
from medsass.runs.experiment.grid import Grid
from medsass.text import markdown

SCORES, TABLES, ALL = "scores", "tables", "tables.md"


def _line(name: str, method: str, protocol: str, score: str = "iou") -> Line:
    return Line(name, method, ("protocols", protocol, score) if protocol != "probe" else ("probe", score))


BARE = Line("bare Otsu (ours)", "", ("bare", "iou"))
BARE_LABELS = Line("bare labels (ours)", "", ("bare", "iou"))
EVERYTHING = Line("everything foreground (ours)", "", ("everything", "iou"))
END_TO_END = _line("MedSASS (E+D)", "medsass", "network")
SUPERVISED = _line("Supervised", "supervised", "network")
# With three classes the recall is 1/3, whatever their sizes; the paper's numbers for ISIC 2017 are near the accuracy.
COMMONEST = (
    Line("commonest class always: recall (ours)", "", ("probe", "majority", "recall")),
    Line("commonest class always: accuracy (ours)", "", ("probe", "majority", "accuracy")),
)
BASELINES = {"dino": "DINO", "byol": "BYOL", "simsiam": "SimSiam", "mae": "MAE", "simmim": "SimMIM"}


def encoders(protocol: str, methods: Sequence[str], score: str = "iou") -> tuple[Line, ...]:
    """Return the lines of the baselines `methods` and of MedSASS (E), by one protocol."""
    lines = [_line(BASELINES[name], name, protocol, score) for name in methods]
    return (*lines, _line("MedSASS (E)", "medsass", protocol, score))


_CNN, _VIT = ("dino", "byol", "simsiam"), ("dino", "mae", "simmim")
_REST = (END_TO_END, SUPERVISED, BARE, EVERYTHING)
_UNTRAINED = (
    "IoU of an encoder under an untrained decoder (E), whose masks are near a trivial answer, and of whole networks"
)
_HEAD = "IoU of a 1 × 1 head trained on the labels upon a frozen encoder (E), and of whole networks"
_ENCODER = (
    _line("MedSASS (E)", "medsass", "paper"),
    _line("MedSASS (E), linear head", "medsass", "linear"),
    END_TO_END,
)
_BY_DATASET: tuple[str, ...] = ("dataset", "line", "model", "source")

TABLES_OF_THE_PAPER = (
    Table("1", f"{_UNTRAINED}, CNN", CNN, (*encoders("paper", _CNN), *_REST)),
    Table("1b", f"{_HEAD}, CNN; not in the paper", CNN, (*encoders("linear", _CNN), *_REST)),
    Table("2", f"{_UNTRAINED}, ViT", VIT, (*encoders("paper", _VIT), *_REST)),
    Table("2b", f"{_HEAD}, ViT; not in the paper", VIT, (*encoders("linear", _VIT), *_REST)),
    Table("3", "IoU of MedSASS (E+D) by the threshold that makes its labels", CNN, (END_TO_END, BARE_LABELS, EVERYTHING), _BY_DATASET,
          "axis", "labels"),
    Table("4", "IoU of MedSASS (E+D) by loss", CNN, (END_TO_END, BARE, EVERYTHING), _BY_DATASET, "axis", "loss"),
    Table("B.1", "MedSASS (E+D) with cross-entropy: accuracy without overlap is background everywhere", CNN,
          (_line("IoU", "medsass", "network"), _line("accuracy", "medsass", "network", "accuracy")),
          ("dataset", "model", "source"), "line", fixed={"loss": "cross-entropy"}),
    Table("5", "IoU of MedSASS by epochs", (*CNN, *VIT), _ENCODER, _BY_DATASET, "axis", "epochs"),
    Table("7", "IoU of MedSASS by batch size, CNN", CNN, _ENCODER, _BY_DATASET, "axis", "batch_size"),
    Table("8", "IoU of MedSASS by batch size, ViT", VIT, _ENCODER, _BY_DATASET, "axis", "batch_size"),
    Table("9", "Recall, mean over classes, of linear probing upon a frozen encoder", (*CNN, *VIT),
          (*encoders("probe", tuple(BASELINES), "recall"), *COMMONEST), ("model", "line", "source")),
)  # fmt: skip


def write(chosen: Grid, scores: Sequence[Mapping[str, Any]], folder: Path) -> list[Sheet]:
    """Write `folder`/tables/table-N.md, .csv and .tex for each table that has a number of ours, and `folder`/tables.md
    with all of them and the figures in `folder`/figures. Returns the tables.
    """
    sheets = [sheet for table in TABLES_OF_THE_PAPER if (sheet := aggregate.build(table, chosen, scores))]
    (folder / TABLES).mkdir(parents=True, exist_ok=True)
    for sheet in sheets:
        for suffix, text in (("md", export.markdown), ("csv", export.csv), ("tex", export.latex)):
            files.write(folder / TABLES / f"table-{sheet.number}.{suffix}", text(sheet))
    figures = sorted(folder.glob("figures/figure-*.png"), key=lambda path: int(path.stem.removeprefix("figure-")))
    pictures = [f"![{path.stem}](figures/{path.name})\n" for path in figures]
    files.write(folder / ALL, "\n".join([f"# {markdown(chosen.title)}\n", *map(export.markdown, sheets), *pictures]))
    return sheets
