"""A table of means and deviations as Markdown, CSV and LaTeX."""

import csv as writer
import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

MARKS = "†‡§¶‖"  # of footnotes

_LATEX = {"†": r"\dag{}", "‡": r"\ddag{}", "§": r"\S{}", "¶": r"\P{}", "‖": r"$\Vert$", "±": r"$\pm$", "×": r"$\times$",
          "−": "$-$", "%": r"\%", "&": r"\&", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}",
          "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}  # fmt: skip


@dataclass(frozen=True)
class Value:
    """A mean in [0, 1], the standard deviation (None of one seed), over how many seeds (0: it has none, or not known);
    `exact`: shown as it was published; `best`: shown in bold.
    """

    mean: float
    deviation: float | None
    seeds: int
    exact: bool = False
    best: bool = False

    def marked(self, best: bool) -> "Value":
        """The same, in bold or not."""
        return replace(self, best=best)

    @property
    def text(self) -> str:
        """`0.4312 ± 0.0123`; published numbers with the digits that were given."""
        form = "g" if self.exact else ".4f"
        return f"{self.mean:{form}}" + ("" if self.deviation is None else f" ± {self.deviation:{form}}")


@dataclass(frozen=True)
class Sheet:
    """A filled table: `heads` above the labels of a row, `columns` above its values, which are None where there is none."""

    number: str
    caption: str
    heads: Sequence[str]
    columns: Sequence[str]
    rows: Sequence[tuple[Sequence[str], Sequence[Value | None]]]
    notes: Sequence[str] = field(default_factory=tuple)


def markdown(sheet: Sheet) -> str:
    """A GitHub table with its caption above and its footnotes below."""
    rule = ["---"] * len(sheet.heads) + ["---:"] * len(sheet.columns)
    rows = [[*labels, *(_bold(value, "**", "**") for value in values)] for labels, values in sheet.rows]
    table = ["| " + " | ".join(cells) + " |" for cells in ([*sheet.heads, *sheet.columns], rule, *rows)]
    return "\n".join(
        [f"**Table {sheet.number}.** {sheet.caption}", "", *table, "", *(f"{note}\n" for note in sheet.notes)]
    )


def csv(sheet: Sheet) -> str:
    """A line a number: the row's labels, the column, mean, standard deviation and seeds, empty where there is none. No footnotes."""
    file = io.StringIO()
    out = writer.writer(file, lineterminator="\n")
    out.writerow([*sheet.heads, "column", "mean", "standard deviation", "seeds"])
    for labels, values in sheet.rows:
        for column, value in zip(sheet.columns, values, strict=True):
            if value:
                deviation = "" if value.deviation is None else value.deviation
                texts = [text.rstrip(MARKS) for text in (*labels, column)]
                out.writerow([*texts, value.mean, deviation, value.seeds or ""])
    return file.getvalue()


def latex(sheet: Sheet) -> str:
    """A `table` for the package booktabs. LaTeX numbers it by itself, so the caption is without the number."""
    rows = [[*map(_escaped, labels), *(_escaped_bold(value) for value in values)] for labels, values in sheet.rows]
    body = [" & ".join(cells) + r" \\" for cells in rows]
    notes = [rf"\par\footnotesize {_escaped(note)}" for note in sheet.notes]
    heads = " & ".join(_escaped(head) for head in (*sheet.heads, *sheet.columns)) + r" \\"
    caption = rf"\caption{{{_escaped(sheet.caption)}}}"
    columns = "l" * len(sheet.heads) + "r" * len(sheet.columns)
    begin = [
        r"\begin{table}",
        r"\centering",
        caption,
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        heads,
        r"\midrule",
    ]
    return "\n".join([*begin, *body, r"\bottomrule", r"\end{tabular}", *notes, r"\end{table}", ""])


def _bold(value: Value | None, start: str, end: str) -> str:
    if value is None:
        return "–"
    return f"{start}{value.text}{end}" if value.best else value.text


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text).replace("–", "--")


def _escaped_bold(value: Value | None) -> str:
    text = _escaped(_bold(value, "", ""))
    return rf"\textbf{{{text}}}" if value and value.best else text
