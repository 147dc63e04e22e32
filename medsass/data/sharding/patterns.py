r"""Regular expressions and globs that users and recipes give, searched in linear time whatever they and the names are.

RE2 searches regular expressions. It lacks lookaround and references, and its \w and \d know ASCII alone, so they are spelled out
here. Python's own `re` takes a tenth of RE2's time for a name: it searches globs with few wildcards, which cannot be slow.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import re2
from braceexpand import braceexpand
from fsspec.utils import glob_translate

_MOST, _DEEP = 100_000, 30  # globs that braces stand for, and braces within braces
_STARS = 3  # wildcards of any length that `re` searches: time grows with the length of a name to their number
_STAR = re.compile(r"\*+|\{(?:stem|key)\}")
_TOKEN = re.compile(r"\\.|\[\^?\]?|\]|[^\\\[\]]+", re.DOTALL)
_UNICODE = {r"\w": r"\pL\pN_", r"\d": r"\p{Nd}"}
_RANGE = re.compile(r"\{(-?\d{1,18})\.\.(-?\d{1,18})(?:\.\.-?\d+)?\}")
_NO_LIST = re.compile(r"\{\w*\}")

Pattern = Any  # of re or re2: both have fullmatch, search and groupindex


@lru_cache(64)  # asked for each image
def regex(text: str) -> Pattern:
    """Compile a regular expression in Python's words.

    Raises:
        ValueError: where it is none, or needs what cannot be searched in linear time.
    """
    options = re2.Options()
    options.log_errors = False
    try:
        re.compile(text)
        return re2.compile(_spelled(text), options)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"is not a regular expression: {error}") from error
    except re2.error as error:
        reason = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else error
        raise ValueError(
            f"is not searched, because it may never end ({reason}): lookaround, references and repetitions of more than 1,000 are refused"
        ) from error


def _spelled(text: str) -> str:
    r"""Return a regular expression of Python's as RE2 takes it: letters and digits of all scripts, \Z as \z."""
    parts, inside = [], False
    for part in _TOKEN.findall(text):
        if part in _UNICODE:
            part = _UNICODE[part] if inside else f"[{_UNICODE[part]}]"
        elif part == r"\Z":
            part = r"\z"
        elif part[0] in "[]":
            inside = part[0] == "[" or (inside and part == "[")
        parts.append(part)
    return "".join(parts)


def translated(pattern: str) -> str:
    """Return a glob as a regular expression of the whole path, in Python's words."""
    return str(glob_translate(pattern))


def compiled(glob: str, text: str) -> Pattern:
    """Compile the regular expression `text` of a glob. Raises `ValueError` as `regex`."""
    if len(_STAR.findall(glob)) > _STARS:
        return regex(f"(?s:{text})")
    try:
        return re.compile(text, re.DOTALL)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(str(error)) from error


def fits(glob: str) -> Callable[[str], Any]:
    """Return what tells whether a path matches a glob. Raises `ValueError` as `regex`."""
    found: Callable[[str], Any] = compiled(glob, translated(glob)).fullmatch
    return found


def braces(pattern: str) -> list[str]:
    """Return the globs that a pattern with braces stands for. Raises `ValueError` where it is malformed, or they are too many."""
    if "{" not in pattern:
        return [pattern]
    if _count(pattern) > _MOST:
        raise ValueError(f"its braces stand for more than {_MOST:,} globs, or lie {_DEEP} deep; use a wildcard")
    return list(braceexpand(pattern))


def _count(pattern: str) -> int:
    """Return how many globs braces stand for at most, without making them."""
    count = 1
    for first, last in _RANGE.findall(pattern):
        count *= abs(int(last) - int(first)) + 1
    sums, products = [0], [count]
    for letter in _NO_LIST.sub("", _RANGE.sub("", pattern)):
        if letter == "{":
            sums.append(0)
            products.append(1)
            if len(sums) > _DEEP:
                return _MOST + 1
        elif letter == "," and len(sums) > 1:
            sums[-1] += products[-1]
            products[-1] = 1
        elif letter == "}" and len(sums) > 1:
            inner = sums.pop() + products.pop()
            products[-1] = min(products[-1] * inner, _MOST + 1)
    while len(sums) > 1:  # braces that are not closed
        inner = sums.pop() + products.pop()
        products[-1] = min(products[-1] * inner, _MOST + 1)
    return products[0]
