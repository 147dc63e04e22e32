"""Tables of TOML and JSON files, checked by pydantic against dataclasses; an error is one line: rule, value, nearest name."""

import difflib
import re
import tomllib
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError, from_json, to_json
from typing_extensions import is_typeddict

from medsass import files

T = TypeVar("T")

CLOSED = ConfigDict(extra="forbid", strict=True)  # of a pydantic dataclass: no unknown keys, no conversions
_WORDS = {str: "text", bool: "true or false", int: "a whole number", float: "a number", Path: "a path"}
_LIMITS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
_REFUSED = "refused"  # type of the error, and mark of the annotation
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
_adapter = cache(TypeAdapter)
_OWN = ("value_error", "assertion_error")  # raised by a validator of ours, in its own words
_TOML = 8 << 20  # bytes; 200,000 names of files
# A key of a hundred parts and more, whose time tomllib takes squared: 40 KB would take 4 s.
_DEEP = re.compile(r"""(?<![\w."'-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){100}""")


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file, with or without a byte-order mark. Raises `OSError`, or `ValueError` that says where it is none."""
    try:
        text = files.read(path, _TOML).decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
        if _DEEP.search(text):
            raise ValueError("it holds a key of more than a hundred parts; write shorter ones")
        return tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise ValueError("not a TOML file: it is not UTF-8 text; save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"not a TOML file: {error}") from error
    except ValueError as error:
        if "set_int_max_str_digits" in str(error):  # it says how to take the limit away
            raise ValueError("it holds a number of thousands of digits; write a shorter one") from error
        raise
    except RecursionError as error:
        raise ValueError("its lists or tables stand in one another too deep; write fewer levels") from error


def parse_json(data: bytes) -> Any:
    """Return the content of a JSON text. Raises `ValueError` also for one that is nested too deep."""
    return from_json(data)


def check(kind: type[T], table: Any) -> T:
    """Make a `kind` (a pydantic dataclass with the configuration `CLOSED`) of a table. Arrays become tuples.

    Raises `ValueError` with one line for the first rule that is broken: "'epohcs' in [defaults] is unknown: did you mean
    epochs?".
    """
    return check_json(kind, to_json(table, inf_nan_mode="constants"))


def check_json(kind: type[T], data: bytes) -> T:
    """Make a `kind` of the text of a JSON file, as `check` does of a table; faster than that where the file is large."""
    try:
        made: T = _adapter(kind).validate_json(data)  # type: ignore[arg-type]
    except ValidationError as error:
        raise ValueError(explain(error, kind)) from error
    return made


def check_python(kind: type[T], values: Mapping[str, Any]) -> T:
    """Make a `kind` of values, as `check` does of a table."""
    try:
        made: T = _adapter(kind).validate_python(dict(values))  # type: ignore[arg-type]
    except ValidationError as error:
        raise ValueError(explain(error, kind)) from error
    return made


def explain(error: ValidationError, kind: Any, name: Callable[[str, str], str] | None = None) -> str:
    """Say in one line which rule was broken, and the value seen: an unknown key, else the first error.

    Args:
        error: what pydantic raised.
        kind: the dataclass that was validated against.
        name: names a key for the user, from the key and the table it stands in ("[masks]", "[[images]] 2", "the file").
    """
    errors = error.errors()
    first = next(
        (each for each in errors if each["type"] in _UNKNOWN), errors[0]
    )  # a misspelt key is also a missing one
    if first["type"] in _OWN:
        return str(first["ctx"]["error"])
    if first["type"] == "json_invalid":
        return f"not JSON: {first['ctx']['error']}"
    keys, expected, owner = _walk(first["loc"], kind)
    if keys and isinstance(keys[-1], int):
        shown = _place(keys)
    else:
        where, key = _place(keys[:-1]), str(keys[-1]) if keys else ""
        shown = (name(key, where) if name else f"'{key}' in {where}") if key else "it"
    if first["type"] in _UNKNOWN:
        hints = get_type_hints(owner, include_extras=True)
        allowed = [each.name for each in fields(owner) if each.init] if is_dataclass(owner) else list(hints)
        known = [key for key in allowed if _REFUSED not in getattr(hints[key], "__metadata__", ())]
        return f"{shown} is unknown: {nearest(str(keys[-1]), known)}known: {', '.join(known)}"
    if first["type"] in ("missing", "missing_argument"):
        return f"{shown} is missing; add it"
    if first["type"] == _REFUSED:
        return f"{shown} {first['msg']}"
    limits = [f"{word} {first['ctx'][rule]:g}" for rule, word in _LIMITS.items() if rule in first.get("ctx", {})]
    if first["type"] == "finite_number":
        limits = ["a finite number"]
    value = first["input"]
    return f"{shown} must be {limits[0] if limits else describe(expected)}; got {value!r:.80}"


def refused(reason: str) -> Any:
    """Return the type of a key that is known and not allowed; the message is its name and the `reason`."""

    def refuse(_: Any) -> None:
        raise PydanticCustomError(_REFUSED, "{reason}", {"reason": reason})

    return Annotated[None, BeforeValidator(refuse), _REFUSED]


def nearest(word: str, known: Sequence[str]) -> str:
    """Suggest the known word that resembles `word` most, as "did you mean X? "; "" where none does."""
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]}? " if near else ""


def describe(annotation: Any) -> str:
    """Put a type into the words of a user: `tuple[int, ...] | None` is "a list of whole numbers"."""
    origin, arguments = get_origin(annotation), [item for item in get_args(annotation) if item not in (type(None), ...)]
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if set(arguments) == {int, float}:
        return _WORDS[float]
    if origin in (Union, types.UnionType):
        return " or ".join(describe(item) for item in arguments)
    if origin in (tuple, list, Sequence):
        item = describe(arguments[0])
        return f"a list, each {item}" if " of " in item else f"a list of {item.removeprefix('a ').removesuffix('s')}s"
    return _WORDS.get(annotation, "a table")


def _walk(location: Sequence[str | int], kind: Any) -> tuple[list[str | int], Any, Any]:
    """Follow an error's location: the keys of the user's table alone, the type expected there, and the table's type."""
    keys: list[str | int] = []
    owner = kind
    for step in location:
        kinds = _alternatives(kind)
        table = next((item for item in kinds if is_dataclass(item) or is_typeddict(item)), None)
        rows = next((item for item in kinds if get_origin(item) in (tuple, list, Sequence)), None)
        values = next((item for item in kinds if get_origin(item) in (dict, Mapping)), None)
        if table and isinstance(step, str):
            owner, kind = table, get_type_hints(table).get(step, Any)
        elif rows and isinstance(step, int):
            if not is_dataclass(item := get_args(rows)[0]):
                break  # the array is named, and not its item
            kind = item
        elif values and isinstance(step, str):
            kind = get_args(values)[0 if location[len(keys) + 1 :] == ("[key]",) else 1]
        else:
            break  # pydantic goes on with the names of a union's members
        keys.append(step)
    return keys, kind, owner


def _alternatives(annotation: Any) -> list[Any]:
    """The members of a union; of any other type itself alone."""
    if get_origin(annotation) in (Union, types.UnionType):
        return [member for item in get_args(annotation) for member in _alternatives(item)]
    return [annotation]


def _place(keys: Sequence[str | int]) -> str:
    """The table that these keys lead to, as a TOML file writes it."""
    if not keys:
        return "the file"
    if isinstance(keys[-1], int):
        return f"[[{'.'.join(map(str, keys[:-1]))}]] {keys[-1] + 1}"
    if row := next((i for i in range(len(keys), 0, -1) if isinstance(keys[i - 1], int)), 0):
        return f"{_place(keys[row:])} of {_place(keys[:row])}"
    return f"[{'.'.join(map(str, keys))}]"
