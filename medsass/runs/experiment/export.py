"""A table of means and deviations, exported as Markdown, CSV and LaTeX."""

import csv as writer
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

from medsass.text import cell, printable
from medsass.text import markdown as escaped

MARKS = "†‡§¶‖"  # of footnotes
_NONE = "–"  # a missing value

_LATEX = str.maketrans({"†": r"\dag{}", "‡": r"\ddag{}", "§": r"\S{}", "¶": r"\P{}", "‖": r"$\Vert$", "±": r"$\pm$",
          "×": r"$\times$",
          "−": "$-$", "%": r"\%", "&": r"\&", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}",
          "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--"})  # fmt: skip


@dataclass(frozen=True)
class Value:
    """A mean in [0, 1] and its standard deviation (None for one seed) over `seeds` seeds (0: none, or not known).
    With `exact` it is shown with the published digits, with `best` in bold.
    """

    mean: float
    deviation: float | None
    seeds: int
    exact: bool = False
    best: bool = False

    @property
    def text(self) -> str:
        """`0.4312 ± 0.0123`; published numbers with the digits that were given."""
        form = "g" if self.exact else ".4f"
        return f"{self.mean:{form}}" + ("" if self.deviation is None else f" ± {self.deviation:{form}}")


@dataclass(frozen=True)
class Sheet:
    """A filled table: `heads` above the labels of a row, `columns` above its values; a missing value is None."""

    number: str
    caption: str
    heads: Sequence[str]
    columns: Sequence[str]
    rows: Sequence[tuple[Sequence[str], Sequence[Value | None]]]
    notes: Sequence[str] = field(default_factory=tuple)


def markdown(sheet: Sheet) -> str:
    """Return a GitHub table with its caption above and its footnotes below."""
    rule = ["---"] * len(sheet.heads) + ["---:"] * len(sheet.columns)
    rows = []
    for labels, values in sheet.rows:
        texts = [value.text if value else _NONE for value in values]
        bold = [f"**{text}**" if value and value.best else text for text, value in zip(texts, values, strict=True)]
        rows.append([*map(escaped, labels), *bold])
    table = [
        "| " + " | ".join(cells) + " |" for cells in ([*map(escaped, (*sheet.heads, *sheet.columns))], rule, *rows)
    ]
    notes = [f"{escaped(note)}\n" for note in sheet.notes]
    return "\n".join([f"**Table {sheet.number}.** {escaped(sheet.caption)}", "", *table, "", *notes])


def csv(sheet: Sheet) -> str:
    """Return one line per number: the row's labels, the column, mean, standard deviation and seeds, empty where there is
    none. No footnotes.
    """
    file = io.StringIO()
    out = writer.writer(file, lineterminator="\n")
    out.writerow([*map(cell, sheet.heads), "column", "mean", "standard deviation", "seeds"])
    for labels, values in sheet.rows:
        for column, value in zip(sheet.columns, values, strict=True):
            if value:
                deviation = "" if value.deviation is None else value.deviation
                texts = [text.rstrip(MARKS) for text in (*labels, column)]
                out.writerow([*map(cell, texts), value.mean, deviation, value.seeds or ""])
    return file.getvalue()


def latex(sheet: Sheet) -> str:
    """Return a `table` for the package booktabs. LaTeX numbers it itself, so the caption is without the number."""
    rows = []
    for labels, values in sheet.rows:
        texts = [(value.text if value else _NONE).translate(_LATEX) for value in values]
        bold = [
            rf"\textbf{{{text}}}" if value and value.best else text for text, value in zip(texts, values, strict=True)
        ]
        rows.append([*(_tex(label) for label in labels), *bold])
    heads = [_tex(head) for head in (*sheet.heads, *sheet.columns)]
    columns = "l" * len(sheet.heads) + "r" * len(sheet.columns)
    body = [" & ".join(cells) + r" \\" for cells in (heads, *rows)]
    notes = [rf"\par\footnotesize {_tex(note)}" for note in sheet.notes]
    caption = rf"\caption{{{_tex(sheet.caption)}}}"
    begin = [r"\begin{table}", r"\centering", caption, rf"\begin{{tabular}}{{{columns}}}", r"\toprule", body[0]]
    return "\n".join([*begin, r"\midrule", *body[1:], r"\bottomrule", r"\end{tabular}", *notes, r"\end{table}", ""])


def _tex(text: str) -> str:
    """Return text for one line of LaTeX; no command in it is obeyed."""
    return printable(" ".join(text.split())).translate(_LATEX)
