"""Means and deviations as text."""

import pytest

from medsass.runs.experiment import export
from medsass.runs.experiment.export import Sheet, Value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Value(0.43215, 0.01234, 5), "0.4321 ± 0.0123"),
        (Value(0.43215, None, 1), "0.4321"),
        (Value(0.181, 0.0068, 0, exact=True), "0.181 ± 0.0068"),
        (Value(0.1726, 0.000133, 0, exact=True), "0.1726 ± 0.000133"),
        (Value(0.0, None, 0, exact=True), "0"),
    ],
)
def test_a_value_is_shown_with_its_digits(value: Value, text: str) -> None:
    assert value.text == text


SHEET = Sheet("1", "A & B_c.", ["who"], ["x†", "y"], [(["me"], [Value(0.5, 0.1, 2, best=True), None])], ["† 5 % off"])


def test_markdown_is_what_github_reads() -> None:
    assert export.markdown(SHEET).splitlines() == [
        "**Table 1.** A & B_c.", "", "| who | x† | y |", "| --- | ---: | ---: |", "| me | **0.5000 ± 0.1000** | – |", "",
        "† 5 % off",
    ]  # fmt: skip


def test_latex_escapes_what_means_something_to_it() -> None:
    text = export.latex(SHEET)
    assert r"\caption{A \& B\_c.}" in text
    assert r"me & \textbf{0.5000 $\pm$ 0.1000} & -- \\" in text
    assert r"who & x\dag{} & y \\" in text
    assert r"\dag{} 5 \% off" in text
    assert [text.count(name) for name in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]


def test_csv_has_a_line_a_number() -> None:
    assert export.csv(SHEET).splitlines() == ["who,column,mean,standard deviation,seeds", "me,x,0.5,0.1,2"]


def test_names_of_a_grid_are_text_in_every_form() -> None:
    name, note = "=cmd|<b>x\x1b", "† \\input{/etc/passwd} [a](b)"
    sheet = Sheet("1", note, ["dataset"], [name], [([name], [Value(0.5, None, 1)])], [note])
    assert r"| =cmd\|\<b>x\x1b | 0.5000 |" in export.markdown(sheet).replace(r"\\x1b", r"\x1b")
    assert r"\\input{/etc/passwd} [a\](b)" in export.markdown(sheet)
    assert export.csv(sheet).splitlines()[1].startswith("'=cmd|<b>x\x1b,'=cmd|<b>x\x1b,0.5,")
    text = export.latex(sheet)
    assert r"\input" not in text
    assert r"\textbackslash{}input\{/etc/passwd\}" in text
