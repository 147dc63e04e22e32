r"""Regular expressions and globs that users and recipes give, searched in linear time whatever they and the names are.

RE2 searches regular expressions. It lacks lookaround and references, and its classes such as \w know ASCII alone, so Python's `re`
says here which letters they hold. Python's own `re` takes a tenth of RE2's time for a name: it searches globs with few wildcards, which cannot be slow.
"""

import re
import sys
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import re2
from braceexpand import braceexpand
from fsspec.utils import glob_translate

_MOST, _DEEP = 20_000, 30  # globs that braces stand for, and braces within braces
_LONG = 1 << 14  # letters of a glob, whose translation takes their square
_STARS = 3  # wildcards of any length that `re` searches: time grows with the length of a name to their number
_STAR = re.compile(r"\*+|\{(?:stem|key)\}")
_CLASS = re.compile(r"\\(?:[wWdDsS]|u\w{4}|U\w{8}|N\{[^}]*\})|\[\^?\]?(?:\\.|[^\\\]])*\]", re.DOTALL)
_TOKEN = re.compile(rf"{_CLASS.pattern}|\\.|\{{,(?=\d*\}})|[^\\\[{{]+|.", re.DOTALL)
_SPELLED = {r"\Z": r"\z", "{,": "{0,"}  # what RE2 writes otherwise
_OWN = re.compile(r"\\[wWdDsSuUN]|.\[", re.DOTALL)  # in a class of letters that RE2 takes for another
_RANGE = re.compile(r"\{(?:(-?\d+)\.\.(-?\d+)|(\w)\.\.(\w))(?:\.\.-?\d+)?\}")
_NO_LIST = re.compile(r"\{\w*\}")

Pattern = Any  # of re or re2: both have fullmatch, search and groupindex


class _Ascii:
    """A pattern with a boundary of words, which RE2 sees between ASCII letters alone."""

    def __init__(self, pattern: Pattern, text: str) -> None:
        self._pattern, self._text, self.groupindex = pattern, text, pattern.groupindex

    def search(self, name: str) -> Any:
        """Search a name. Raises `ValueError` for letters or digits beside ASCII."""
        if other := next((each for each in name if each.isalnum() and not each.isascii()), ""):
            raise ValueError(
                f"pattern {self._text!r}: \\b knows ASCII letters alone, and '{name}' has '{other}'; write (?:^|\\W) before "
                "a word and (?:\\W|$) behind it"
            )
        return self._pattern.search(name)


@lru_cache(64)  # asked for each image
def regex(text: str) -> Pattern:
    """Compile a regular expression in Python's words.

    Raises:
        ValueError: where it is none, or needs what RE2 lacks.
    """
    options = re2.Options()
    options.log_errors = False
    try:
        re.compile(text)
        found = re2.compile("".join(map(_spelled, tokens := _TOKEN.findall(text))), options)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"is not a regular expression: {error}") from error
    except re2.error as error:
        reason = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else error
        raise ValueError(
            f"is not searched, for RE2, which always ends, lacks something of it ({reason}): write it without lookaround, references, "
            "repetitions of more than 1,000, ++, (?>), (?#) and flags but i, m and s"
        ) from error
    return _Ascii(found, text) if {r"\b", r"\B"} & set(tokens) else found


def _spelled(token: str) -> str:
    return _ranges(token) if _CLASS.fullmatch(token) and _OWN.search(token) else _SPELLED.get(token, token)


@lru_cache(64)
def _ranges(letters: str) -> str:
    r"""Return a class of letters, such as [^\W_], as the ranges of letters that Python takes it for."""
    runs = [run[0] for run in re.finditer(f"{letters}+", _every())]
    return "[" + "".join(rf"\x{{{ord(run[0]):x}}}-\x{{{ord(run[-1]):x}}}" for run in runs) + "]"


@cache
def _every() -> str:
    return "".join(map(chr, range(sys.maxunicode + 1)))


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
    if len(pattern) > _LONG:
        raise ValueError(f"it has more than {_LONG:,} letters; use a wildcard")
    if "{" not in pattern:
        return [pattern]
    if _count(pattern) > _MOST:
        raise ValueError(f"its braces stand for more than {_MOST:,} globs, or lie {_DEEP} deep; use a wildcard")
    return list(braceexpand(pattern))


def _count(pattern: str) -> int:
    """Return how many globs braces stand for at most, without making them."""
    count = 1
    for first, last, *letters in _RANGE.findall(pattern):
        if max(len(first), len(last)) > 18:
            return _MOST + 1
        low, high = (int(first), int(last)) if first else map(ord, letters)
        count = min(count * (abs(high - low) + 1), _MOST + 1)
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
