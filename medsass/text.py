"""Words of strangers (names of files, keys, texts of recipes, messages of other libraries) made harmless where they are
shown: on a terminal, in a CSV file that a spreadsheet opens, in Markdown.
"""

import re
import unicodedata

_JOINERS = "\u200c\u200d"  # invisible, and part of words in Persian, Hindi and others
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # what a spreadsheet takes for one
_MARKDOWN = re.compile(r"[\\`*<|~$]|\](?=[(\[:])|(?<!\w)_|_(?!\w)|&(?=#|\w+;)")


def printable(text: str) -> str:
    """Escape what moves a terminal's cursor, colours it, ends a line or turns the direction of writing."""
    if text.isprintable():
        return text
    return "".join(each if _harmless(each) else each.encode("unicode_escape").decode() for each in text)


def _harmless(letter: str) -> bool:
    return letter.isprintable() or letter in _JOINERS or unicodedata.category(letter) == "Zs"


def cell(value: object) -> object:
    """Return a value for a cell of a CSV file: an apostrophe stands before text that a spreadsheet would compute, such as
    "=1+1"; numbers stay.
    """
    if not isinstance(value, str) or not value.startswith(_FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def markdown(value: object) -> str:
    """Return a value as text within a line of Markdown: no markup, no HTML, no disguised links."""
    return _MARKDOWN.sub(r"\\\g<0>", printable(" ".join(str(value).split())))
