"""The files below a source folder, local or remote, in a SQLite table: any number of them in little memory.

A source is listed once. Patterns are then matched against the table, so that object storage is not queried for each
file, and a file that changes later is noticed.
"""

import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from medsass import files
from medsass.data.formats import folder, kinds
from medsass.data.sharding import patterns
from medsass.data.sharding.catalog import tars

MAGIC = re.compile(r"[*?\[]")
UNREADABLE = -1  # size of a file that is listed but cannot be read; its stamp says why
_TABLE = """(path TEXT PRIMARY KEY, folder TEXT, name TEXT, size INTEGER, stamp TEXT, tar TEXT, place INTEGER, label TEXT)
            WITHOUT ROWID"""
_INSERT = """INSERT INTO {} VALUES (?, ?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (path) DO UPDATE SET size = -1, stamp = 'there are two files of this name; rename one'"""
_LITERAL = re.compile(r"(?:\[[*?\[]\]|[^*?\[])*")  # the beginning of a pattern that holds no wildcard
_AT_ONCE = 500  # values in a query
_LAST = chr(0x10FFFF)


class Stat(NamedTuple):
    """A file when it was listed: its size in bytes, and a stamp that changes with the content. Of a member of a `tar` file, by its
    path below the source, the stamp is the tar file's, and `place` is where its bytes begin.
    """

    size: int
    stamp: str
    tar: str = ""
    place: int = 0


class Listing:
    """The files of a source: path below it in POSIX form, size in bytes, and a stamp that changes with the content (the
    time of the last change, or the object store's tag of the version).

    Skipped are hidden files and folders, what systems leave behind, and the local folders `excluded`, into which the dataset
    is written; links that lead out of the source have the size `UNREADABLE`, unless `follow` is set. A Zarr folder counts as one file. A file that cannot be read has the size `UNREADABLE`.

    Where the source is given with globs of tar files, their members are its files.

    Attributes:
        damaged: tar files that cannot be read to their end, and folders that are not entered, and why.
    """

    def __init__(self, database: sqlite3.Connection, excluded: Iterable[Path] = (), *, follow: bool = False) -> None:
        self._database, self._excluded, self._source = database, tuple(excluded), Path()
        self._follow = follow
        self.damaged: dict[str, str] = {}

    def fill(self, source: Path, globs: Sequence[str] = (), label: str = "") -> None:
        """List `source`.

        Args:
            source: the folder.
            globs: of the tar files whose members are listed.
            label: extension of the members that hold a class label.

        Raises:
            FileNotFoundError: where the source is no folder, or a tar file is not there.
            ValueError: for a compressed tar file.
        """
        self._source = source
        self._list("files", source, globs, label)
        self._database.execute("CREATE INDEX folders ON files (folder, name)")
        self._database.execute("CREATE INDEX names ON files (name)")

    def changed(self, source: Path, globs: Sequence[str] = (), label: str = "") -> list[str]:
        """Return files that are new, gone or changed in `source` since it was listed; at most three."""
        self._list("temp.now", source, globs, label)
        differ = "SELECT path FROM (SELECT * FROM {} EXCEPT SELECT * FROM {}) LIMIT 3"
        rows = [
            *self._database.execute(differ.format("files", "now")),
            *self._database.execute(differ.format("now", "files")),
        ]
        self._database.execute("DROP TABLE now")
        return list(dict.fromkeys(path for (path,) in rows))[:3]

    def _list(self, table: str, source: Path, globs: Sequence[str], label: str) -> None:
        self._database.execute(f"CREATE TABLE {table} {_TABLE}")
        with files.reaching(source):
            if not (globs and str(source).startswith("http")):  # a server lists no folder
                hint = " (tar files are read with --recipe webdataset)" * tars.named_so(source.name)
                files.check_source(source, f"the folder that holds the dataset{hint}")
        found = self._members(source, globs, label) if globs else ((*row, "", 0, None) for row in self._walk(source))
        rows = ((path, *path.rpartition("/")[::2], *rest) for path, *rest in found)
        self._database.executemany(_INSERT.format(table), rows)

    def _walk(self, source: Path, deep: int | None = None) -> Iterator[tuple[str, int, str]]:
        """Yield path, size and stamp of the files below a folder, of at most `deep` folders below one another (default: all)."""
        if not files.is_local(source):
            return _walk_remote(source, deep)
        return self._walk_local(source, deep)

    def _walk_local(self, source: Path, deep: int | None) -> Iterator[tuple[str, int, str]]:
        excluded = {folder.identity(path.stat()) for path in self._excluded if path.is_dir()}
        for path, status, fault, is_folder in folder.walk(source, excluded=excluded, deep=deep, follow=self._follow):
            text = path.encode("utf-8", "backslashreplace").decode()  # bytes that are not UTF-8 cannot be text
            if is_folder:
                self.damaged[text] = fault
            elif not status or text != path:
                yield text, UNREADABLE, fault or "its name is not UTF-8; rename it"
            else:
                yield text, status.st_size, str(status.st_mtime_ns)

    def _members(self, source: Path, globs: Sequence[str], label: str) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of the members of all tar files, and note which of these are damaged."""
        for tar, size, stamp in self._tars(source, globs):
            own = f"{size} {stamp}"
            try:
                for member in tars.members(source / tar, label):
                    seen = (UNREADABLE, member.fault) if member.fault else (member.size, own)
                    yield f"{tar}/{member.name}", *seen, tar, member.offset, member.text
            except tars.BrokenTarError as error:
                self.damaged[tar] = str(error)

    def _tars(self, source: Path, globs: Sequence[str]) -> list[tuple[str, int, str]]:
        """Return path, size and stamp of the files that match."""
        literal = [_literal(one) for one in globs]
        exact = {text for text, whole in literal if whole}
        if not files.is_local(source) and len(exact) == len(globs):  # a web server lists no folder
            found = list(_one_remote(source, sorted(exact)))
        else:
            deep = None if any("**" in one for one in globs) else max(one.count("/") for one in globs)
            wild = [patterns.fits(one) for one, (_, whole) in zip(globs, literal, strict=True) if not whole]
            every = sorted(self._walk(source, deep))
            found = [row for row in every if row[0] in exact or any(matches(row[0]) for matches in wild)]
        for path in sorted(exact - {path for path, _, _ in found}):
            raise FileNotFoundError(f"{source / path}: no such tar file")
        if not found:
            raise FileNotFoundError(
                f"{source}: no tar file matches '{globs[0]}'; SOURCE is a folder of tar files, or such as 'tars/*.tar'"
            )
        return found

    def can_be_read(self, path: str) -> bool:
        """Return whether a file can be an image, by its name or else its content."""
        if kinds.is_photo(path):
            return True
        (stat,) = self.stats([path])
        if stat.tar:
            head = tars.pieces(self._source / stat.tar, stat.place, min(stat.size, kinds.HEAD))
            return kinds.kind(next(head, b""), PurePosixPath(path)) != ""
        with files.reaching(self._source / path):
            return kinds.is_image(self._source / path)

    def is_detached(self, path: str) -> bool:
        """Return whether a file holds the voxels of a volume whose header is another file."""
        query = "SELECT 1 FROM files WHERE path = ?"
        return any(self._database.execute(query, [header]).fetchone() for header in kinds.headers(path))

    def label(self, path: str) -> str | None:
        """Return the class label that a member of a tar file holds, None where there is none."""
        found = self._database.execute("SELECT label FROM files WHERE path = ?", (path,)).fetchone()
        return found[0] if found else None

    def stats(self, paths: Sequence[str]) -> tuple[Stat, ...]:
        """Return what each of these files was when it was listed."""
        found: dict[str, Stat] = {}
        for start in range(0, len(paths), _AT_ONCE):
            some = paths[start : start + _AT_ONCE]
            marks = ",".join("?" * len(some))
            rows = self._database.execute(
                f"SELECT path, size, stamp, tar, place FROM files WHERE path IN ({marks})", some
            )
            found |= {path: Stat(*stat) for path, *stat in rows}
        return tuple(found[path] for path in paths)

    def match(self, pattern: str) -> Iterator[str]:
        """Yield the paths that match a glob pattern, sorted; `**` stands for any number of folders."""
        text, whole = (pattern, True) if not MAGIC.search(pattern) else _literal(pattern)
        if whole:  # one of a million names: without a regular expression
            rows = self._database.execute("SELECT path FROM files WHERE path = ?", [text])
            yield from (path for (path,) in rows)
            return
        folder, _, name = pattern.rpartition("/")
        (above, fixed), (begin, _) = _literal(folder), _literal(name)
        where, values = "path >= ? AND path < ?", [above, above + _LAST]
        if fixed:
            where, values = "folder = ? AND name >= ? AND name < ?", [above, begin, begin + _LAST]
        elif begin:
            where, values = "name >= ? AND name < ?", [begin, begin + _LAST]
        matches = patterns.fits(pattern)
        rows = self._database.execute(f"SELECT path FROM files WHERE {where} ORDER BY path", values)
        yield from (path for (path,) in rows if matches(path))


def _literal(pattern: str) -> tuple[str, bool]:
    """Return what every match begins with, unescaped from `glob.escape`, and whether that is the whole pattern."""
    match = _LITERAL.match(pattern)
    begin = match[0] if match else ""
    return re.sub(r"\[([*?\[])\]", r"\1", begin) if "[" in begin else begin, begin == pattern


def _walk_remote(source: Any, deep: int | None) -> Iterator[tuple[str, int, str]]:
    root = source.path.rstrip("/")
    with files.reaching(source):
        found = source.fs.find(root, detail=True, **({} if deep is None else {"maxdepth": deep + 1}))
    for path, info in found.items():
        below = path.removeprefix(root).lstrip("/")
        if not any(map(kinds.is_junk, below.split("/"))):  # also what leads up with ..
            yield below, *_remote(info)


def _one_remote(source: Path, paths: Iterable[str]) -> Iterator[tuple[str, int, str]]:
    for path in paths:
        place: Any = source / path
        with suppress(FileNotFoundError), files.reaching(place):
            yield path, *_remote(place.fs.info(place.path))


def _remote(info: Mapping[str, Any]) -> tuple[int, str]:
    """Return the size and the stamp of a file at an address."""
    stamps = (info.get(name) for name in ("ETag", "etag", "LastModified", "mtime", "md5Hash"))
    return int(info.get("size") or 0), next((str(stamp) for stamp in stamps if stamp), "")
