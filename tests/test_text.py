"""Words of strangers where they are shown."""

import csv
import io

import pytest

from medsass import text


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("lung 07.png", "lung 07.png"),
        ("Präparat – 日本語 – клетка 🔬\u3000\xa0", "Präparat – 日本語 – клетка 🔬\u3000\xa0"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("\x1b[2J\x07\x00\x7f\x9b", r"\x1b[2J\x07\x00\x7f\x9b"),
        ("a\r\n\tb", r"a\r\n\tb"),
        ("a\u2028b\u2029c\u202ed\u2066e\u200ef", r"a\u2028b\u2029c\u202ed\u2066e\u200ef"),
        ("\udcff\ufeff", r"\udcff\ufeff"),
        ("[red]x[/red]", "[red]x[/red]"),
    ],
)
def test_what_a_terminal_obeys_is_escaped_and_all_else_stays(given: str, shown: str) -> None:
    assert text.printable(given) == shown


@pytest.mark.parametrize("formula", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "\t=1", "\r=1", "＝1"])
def test_a_spreadsheet_computes_nothing(formula: str) -> None:
    held = io.StringIO()
    csv.writer(held).writerow([text.cell(value) for value in (formula, "a=b", "x.png", -1.5, "-0.25", "", None)])
    assert list(csv.reader(io.StringIO(held.getvalue(), newline=""))) == [
        [f"'{formula}", "a=b", "x.png", "-1.5", "-0.25", "", ""]
    ]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("bit_depth 16, p < 0.5", r"bit_depth 16, p \< 0.5"),
        ("<img src=x onerror=alert(1)>", r"\<img src=x onerror=alert(1)>"),
        ("a | b\n\n# c", r"a \| b # c"),
        ("[here](https://x.org) ![p](q) [a][b]", r"[here\](https://x.org) ![p\](q) [a\][b]"),
        ("*a* _b_ `c` ~~d~~ $e$", r"\*a\* \_b\_ \`c\` \~\~d\~\~ \$e\$"),
        ("&lt;script> &#x202e; R&D", r"\&lt;script> \&#x202e; R&D"),
        ([0.5, 1], "[0.5, 1]"),
    ],
)
def test_markdown_shows_words_as_they_are(given: object, shown: str) -> None:
    assert text.markdown(given) == shown
