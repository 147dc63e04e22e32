"""The files below a source folder, local or remote, in a SQLite table: any number of them in little memory.

A source is listed once. Patterns are then matched against the table, so that object storage is not queried for each
file, and a file that changes later is noticed.
"""

import os
import re
import sqlite3
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fsspec.utils import glob_translate

from medsass import files
from medsass.data.formats import kinds

MAGIC = re.compile(r"[*?\[]")
UNREADABLE = -1  # size of a file that is listed but cannot be read; its stamp says why
_TABLE = "(path TEXT PRIMARY KEY, folder TEXT, name TEXT, size INTEGER, stamp TEXT) WITHOUT ROWID"
_LITERAL = re.compile(r"(?:\[[*?\[]\]|[^*?\[])*")  # the beginning of a pattern that holds no wildcard
_AT_ONCE = 500  # values in a query
_LAST = chr(0x10FFFF)


class Listing:
    """The files of a source: path below it in POSIX form, size in bytes, and a stamp that changes with the content (the
    time of the last change, or the object store's tag of the version).

    Skipped are hidden files and folders, what systems leave behind, and the local folders `excluded`, into which the dataset
    is written. A Zarr folder counts as one file. A file that cannot be read has the size `UNREADABLE`.
    """

    def __init__(self, database: sqlite3.Connection, excluded: Iterable[Path] = ()) -> None:
        self._database, self._excluded = database, tuple(excluded)

    def fill(self, source: Path) -> None:
        """List `source`. Raises `FileNotFoundError` where it is no folder."""
        self._list("files", source)
        self._database.execute("CREATE INDEX folders ON files (folder, name)")
        self._database.execute("CREATE INDEX names ON files (name)")

    def changed(self, source: Path) -> list[str]:
        """Return files that are new, gone or changed in `source` since it was listed; at most three."""
        self._list("temp.now", source)
        differ = "SELECT path FROM (SELECT * FROM {} EXCEPT SELECT * FROM {}) LIMIT 3"
        rows = [
            *self._database.execute(differ.format("files", "now")),
            *self._database.execute(differ.format("now", "files")),
        ]
        self._database.execute("DROP TABLE now")
        return list(dict.fromkeys(path for (path,) in rows))[:3]

    def _list(self, table: str, source: Path) -> None:
        self._database.execute(f"CREATE TABLE {table} {_TABLE}")
        with files.reaching(source):
            there = source.is_dir()
        if not there:
            raise FileNotFoundError(f"{source}: no such folder; SOURCE is the folder that holds the dataset")
        if files.is_local(source):
            statuses = [path.stat() for path in self._excluded if path.is_dir()]
            found = _walk_local(str(source), "", {(status.st_dev, status.st_ino) for status in statuses})
        else:
            found = _walk_remote(source)
        rows = ((path, *path.rpartition("/")[::2], size, stamp) for path, size, stamp in found)
        self._database.executemany(f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?, ?, ?)", rows)

    def stats(self, paths: Sequence[str]) -> tuple[tuple[int, str], ...]:
        """Return the size in bytes and the stamp that each of these files had when it was listed."""
        found: dict[str, tuple[int, str]] = {}
        for start in range(0, len(paths), _AT_ONCE):
            some = paths[start : start + _AT_ONCE]
            marks = ",".join("?" * len(some))
            rows = self._database.execute(f"SELECT path, size, stamp FROM files WHERE path IN ({marks})", some)
            found |= {path: (size, stamp) for path, size, stamp in rows}
        return tuple(found[path] for path in paths)

    def match(self, pattern: str) -> Iterator[str]:
        """Yield the paths that match a glob pattern, sorted; `**` stands for any number of folders."""
        folder, _, name = pattern.rpartition("/")
        (above, fixed), (begin, named) = _literal(folder), _literal(name)
        where, values = "path >= ? AND path < ?", [above, above + _LAST]
        if fixed and named:  # one of a million names: without a regular expression
            rows = self._database.execute("SELECT path FROM files WHERE path = ?", [_literal(pattern)[0]])
            yield from (path for (path,) in rows)
            return
        if fixed:
            where, values = "folder = ? AND name >= ? AND name < ?", [above, begin, begin + _LAST]
        elif begin:
            where, values = "name >= ? AND name < ?", [begin, begin + _LAST]
        matches = re.compile(glob_translate(pattern), re.DOTALL).fullmatch
        rows = self._database.execute(f"SELECT path FROM files WHERE {where} ORDER BY path", values)
        yield from (path for (path,) in rows if matches(path))


def _literal(pattern: str) -> tuple[str, bool]:
    """Return what every match begins with, unescaped from `glob.escape`, and whether that is the whole pattern."""
    match = _LITERAL.match(pattern)
    begin = match[0] if match else ""
    return re.sub(r"\[([*?\[])\]", r"\1", begin), begin == pattern


def _walk_local(folder: str, below: str, seen: set[tuple[int, int]]) -> Iterator[tuple[str, int, str]]:
    status = os.stat(folder)  # noqa: PTH116
    if (status.st_dev, status.st_ino) in seen:
        return  # a link back up, or a folder that is written
    seen = seen | {(status.st_dev, status.st_ino)}
    with os.scandir(folder) as entries:
        for entry in entries:
            if kinds.is_junk(entry.name):
                continue
            try:
                own = entry.stat()
            except OSError:
                continue  # a broken link, or one to itself
            path = f"{below}{entry.name}"
            if stat.S_ISDIR(own.st_mode) and kinds.is_zarr(Path(entry.path)):
                yield path, own.st_size, str(own.st_mtime_ns)
            elif stat.S_ISDIR(own.st_mode):
                yield from _walk_local(entry.path, f"{path}/", seen)
            elif stat.S_ISREG(own.st_mode):
                text = path.encode("utf-8", "backslashreplace").decode()  # bytes that are not UTF-8 cannot be text
                readable = (own.st_size, str(own.st_mtime_ns))
                yield text, *(readable if text == path else (UNREADABLE, "its name is not UTF-8; rename it"))


def _walk_remote(source: Any) -> Iterator[tuple[str, int, str]]:
    root = source.path.rstrip("/")
    with files.reaching(source):
        found = source.fs.find(root, detail=True)
    for path, info in found.items():
        below = path.removeprefix(root).lstrip("/")
        if any(map(kinds.is_junk, below.split("/"))):
            continue  # also what leads up with ..
        stamps = (info.get(name) for name in ("ETag", "etag", "LastModified", "mtime", "md5Hash"))
        yield below, int(info.get("size") or 0), next((str(stamp) for stamp in stamps if stamp), "")
