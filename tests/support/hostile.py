"""Malformed runs, shard folders and tables: each a name and a function that changes a good one; and what an answer may be.

The changes are systematic: each value of a JSON or TOML file is replaced by values of every other type, each file by
everything that can stand in its place.
"""

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

Change = Callable[[Path], None]

ESCAPE = "\x1b[2J\u202e[red]=1\n"
DEEP = 100_000
# What stands in the place of each value: of every type, at the limits of numbers, and text that a terminal obeys.
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 10**5, 10**12, 2**63, 10**40, -0.5, 1e308, float("nan"), float("inf"), "", "x", ESCAPE, "../../x", "/x",
    "s3://b/x", "9" * 5000, [], [[]], {}, {"x": {}},
)  # fmt: skip


class Case(NamedTuple):
    """A change of a folder, and its name."""

    name: str
    change: Change


def verdict(code: int, err: str) -> str:
    """Return what is wrong with the answer of a command that got something hostile; "" if nothing is.

    It may succeed, or fail with lines of its own, which a terminal can show.
    """
    if code not in (0, 2):
        return f"exit code {code}"
    for mark in ("Traceback", "weights_only", "arg is an empty", "MemoryError", "RecursionError", "dictionary changed"):
        if mark in err:
            return f"says {mark}"
    if code == 2 and not err.strip():
        return "says nothing"
    if any(not letter.isprintable() and letter != "\n" for letter in err):
        return "prints control characters"
    return ""


def texts(name: str) -> Iterator[Case]:
    """Replace the file `name` by what is no text of its kind."""
    for label, data in {
        "empty": b"", "zeros": bytes(2000), "bytes": b"\xff\xfe\x00" * 9, "[" * 9: b"[" * DEEP, "{": b'{"a":' * DEEP,
        "[]": b"[" * DEEP + b"]" * DEEP, "null": b"null", "list": b"[]", "object": b"{}", "text": b'"x"', "number": b"9" * 9999,
        "dots": b"a" + b".a" * DEEP + b" = 1", "toml": b"a = " + b"[" * DEEP, "escape": ESCAPE.encode() * 99,
    }.items():  # fmt: skip
        yield Case(f"{name}: {label}", lambda folder, data=data: _write(folder / name, data))  # type: ignore[misc]
    yield Case(
        f"{name}: half", lambda folder: _write(folder / name, (folder / name).read_bytes()[: _size(folder / name) // 2])
    )
    yield Case(f"{name}: large", lambda folder: os.truncate(folder / name, 1 << 40))


def places(name: str) -> Iterator[Case]:
    """Put something in the place of the file `name` that is no file."""
    makers: dict[str, Change] = {
        "pipe": os.mkfifo,
        "folder": lambda path: (path / "x").mkdir(parents=True),
        "endless": lambda path: path.symlink_to("/dev/zero"),
        "broken link": lambda path: path.symlink_to("nowhere"),
        "circle": lambda path: path.symlink_to(path.name),
        "nothing": lambda _: None,
    }
    for label, make in makers.items():
        yield Case(f"{name}: {label}", lambda folder, make=make: (_gone(folder / name), make(folder / name))[-1])  # type: ignore[misc]


def values(name: str, skipped: frozenset[str] = frozenset()) -> Callable[[Path], Iterator[Case]]:
    """Replace each value of the JSON file `name` in turn by each of `VALUES`, drop it, and add one beside it."""

    def cases(good: Path) -> Iterator[Case]:
        table = json.loads((good / name).read_text())
        for keys in _paths(table):
            where = ".".join(map(str, keys))
            if keys[-1] not in skipped:
                for value in VALUES:
                    yield Case(f"{name}: {where} = {value!r:.20}", _changed(name, keys, value))
                yield Case(f"{name}: without {where}", _changed(name, keys, ...))

    return cases


def _paths(table: Any, above: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The keys that lead to each value; of a list to its first item."""
    items = table.items() if isinstance(table, dict) else enumerate(table[:1]) if isinstance(table, list) else ()
    for key, value in items:
        yield (*above, key)
        yield from _paths(value, (*above, key))


def _changed(name: str, keys: tuple[str | int, ...], value: Any) -> Change:
    def change(folder: Path) -> None:
        table = held = json.loads((folder / name).read_text())
        for key in keys[:-1]:
            held = held[key]
        if value is ...:
            del held[keys[-1]]
        else:
            held[keys[-1]] = value
        _write(folder / name, json.dumps(table).encode())

    return change


def index(name: str) -> Iterator[Case]:
    """Change the index `name`."""

    def lines(label: str, change: Callable[[list[str]], list[str]]) -> Case:
        def apply(folder: Path) -> None:
            first, *rows = (folder / name).read_text().splitlines()
            _write(folder / name, "".join(f"{row}\n" for row in change([first, *rows])).encode())

        return Case(f"{name}: {label}", apply)

    def word(number: int, value: str) -> Callable[[list[str]], list[str]]:
        def change(rows: list[str]) -> list[str]:
            words = rows[1].split(" ")
            return [rows[0], " ".join([*words[:number], value, *words[number + 1 :]]), *rows[2:]]

        return change

    for value in (
        "-1",
        "0",
        "511",
        str(1 << 40),
        str((1 << 63) - 1),
        str(1 << 63),
        "9" * 5000,
        "x",
        "1e3",
        "",
        "\x1b[2J",
    ):
        yield lines(f"offset {value:.9}", word(1, value))
        yield lines(f"size {value:.9}", word(2, value))
    for value in ("../../x.png", "/x/abs.png", "\x1b[2J.png", "", "a" * 5000 + ".png"):
        yield lines(f"name {value:.9}", word(3, value))
    yield lines("count", lambda rows: ["v1.2 7", *rows[1:]])
    yield lines("version", lambda rows: ["v9 7", *rows[1:]])
    yield lines("twice", lambda rows: [*rows, rows[-1]])
    yield lines("overlapping", lambda rows: [rows[0], *[rows[1]] * len(rows[1:])])


def tar(name: str) -> Iterator[Case]:
    """Replace the tar file `name` by one of as many bytes whose members are no files."""
    kinds = {"link": tarfile.SYMTYPE, "hard link": tarfile.LNKTYPE, "pipe": tarfile.FIFOTYPE, "folder": tarfile.DIRTYPE}
    for label, kind in kinds.items():

        def change(folder: Path, kind: bytes = kind) -> None:
            size, buffer = _size(folder / name), io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w") as opened:
                for member in ("a.png", "a.mask.png", "a.json"):
                    info = tarfile.TarInfo(member)
                    info.type, info.linkname = kind, "/etc/passwd"
                    opened.addfile(info)
            _write(folder / name, buffer.getvalue().ljust(size, b"\0")[:size])

        yield Case(f"{name}: {label}", change)


def tables(good: str) -> Iterator[tuple[str, bytes]]:
    """Yield TOML files, each with a line of `good` replaced or with what is no table, by name."""
    for case in (
        "",
        "a = " + "[" * DEEP,
        "a" + ".a" * DEEP + " = 1",
        "\x00\x01",
        "[[images]]\n" * 9,
        "[a]\n[a]",
        "x" * 100,
    ):
        yield f"{case:.12}", case.encode()
    yield "bytes", b"\xff" * 99
    rows = good.splitlines()
    for number, row in enumerate(rows):
        key, equals, _ = row.partition(" = ")
        for value in VALUES if equals else ():
            text = "{}" if value == {} else "{x = {}}" if isinstance(value, dict) else json.dumps(value).lower()
            text = {"null": "''", "infinity": "inf"}.get(text, json.dumps(value) if isinstance(value, str) else text)
            yield f"{key} = {text:.20}", "\n".join([*rows[:number], f"{key} = {text}", *rows[number + 1 :]]).encode()
        yield f"without {row:.20}", "\n".join([*rows[:number], *rows[number + 1 :]]).encode()


def _gone(path: Path) -> None:
    path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
