"""The journal of an unfinished dataset: a database beside its tar files, from which a killed run is resumed.

A sample counts as stored when the tar file that holds it is complete, on the disk, and entered here: all rows of a tar
file are committed in one transaction. What a killed run did after that is forgotten, and done again in the same way.
"""

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsass.data.sharding.sample import APART, MASK_BRIGHT, MASK_STRANGE, OWN_RANGE
from medsass.data.shards.manifest import Split
from medsass.data.shards.tar import Shard

NAME, LAYOUT = "journal.sqlite", 5  # of its tables and the catalog's

_TABLES = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE shards (split TEXT, file TEXT, samples INTEGER, bytes INTEGER, sha256 TEXT, idx TEXT);
CREATE TABLE rejected (file TEXT, split TEXT, reason TEXT, UNIQUE (file, split, reason));
CREATE TABLE skipped (rank INTEGER PRIMARY KEY, tiles INTEGER);
CREATE TABLE stored (key TEXT PRIMARY KEY, rank INTEGER, split TEXT, format TEXT, size TEXT, coverage REAL, class TEXT,
                     converted TEXT, hash BLOB, look INTEGER, flat INTEGER, framed INTEGER);
CREATE INDEX hashes ON stored (hash);
"""
_BUFFERED = 1000  # samples that wait to be entered together
_MANY = 0.05  # of all images look like masks: it is no accident
_MOST = 0.9  # of the masks have a border of foreground: objects seldom have
_COUNTED = {"sizes": "size", "classes": "class", "formats": "format"}


class Journal:
    """The journal of one shard folder, in the file `path`; `Journal(None)` lives in memory."""

    def __init__(self, path: Path | None) -> None:
        self._database = sqlite3.connect(path or ":memory:", isolation_level=None)
        self._open, self._waiting = True, list[tuple[Any, ...]]()
        self.database.execute("PRAGMA synchronous = FULL")
        if not self.database.execute("SELECT 1 FROM sqlite_master WHERE name = 'facts'").fetchall():
            self.database.executescript(f"BEGIN; {_TABLES} COMMIT;")
        self.database.execute("BEGIN")

    @property
    def database(self) -> sqlite3.Connection:
        """The database, with all samples entered so far."""
        self._enter()
        return self._database

    def close(self) -> None:
        """Close the database without what was not committed. A second call does nothing."""
        if self._open:
            self._database.rollback()
            self._database.close()
        self._open = False

    def commit(self) -> None:
        """Commit everything entered so far."""
        self.database.execute("COMMIT")
        self.database.execute("BEGIN")

    def __getitem__(self, name: str) -> Any:
        """Return the value of a fact, None where it was not set."""
        row = self._database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return json.loads(row[0]) if row else None

    def __setitem__(self, name: str, value: Any) -> None:
        self._database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(value)))

    def finish(self, split: str, shard: Shard, position: tuple[int, int]) -> None:
        """Enter a finished tar file, and as fact "position" the (rank, region) of the sample that comes next; commits."""
        self._database.execute("INSERT INTO shards VALUES (?, ?, ?, ?, ?, ?)", (split, *asdict(shard).values()))
        self["position"] = position
        self.commit()

    def reject(self, file: str, split: str, reason: str) -> None:
        """Enter a file that is left out, and why; once, whatever the number of its tiles."""
        self._database.execute("INSERT OR IGNORE INTO rejected VALUES (?, ?, ?)", (file, split, reason))

    def skip(self, rank: int, tiles: int) -> None:
        """Enter how many tiles of an image have too little foreground."""
        self._database.execute("INSERT OR REPLACE INTO skipped VALUES (?, ?)", (rank, tiles))

    def store(
        self,
        rank: int,
        split: str,
        extension: str,
        meta: dict[str, Any],
        phash: int | None,
        flat: bool | None = False,
        *,
        framed: bool = False,
    ) -> None:
        """Enter a sample that went into the tar file in progress: `meta` is its JSON, `phash` its perceptual hash; whether its
        image is `flat`, as `Made` has it, and its mask `framed`, as `Sample` has it.
        """
        size, sha256 = f"{meta['width']}x{meta['height']}", bytes.fromhex(meta["sha256"])
        seen = meta.get("mask_coverage"), meta["class"], meta["converted"]
        if self._waiting and self._waiting[0][2] != split:
            self._enter()  # those that wait are of one split, among which no twin is looked for
        self._waiting.append((meta["key"], rank, split, extension, size, *seen, sha256, phash, flat, framed))
        if len(self._waiting) == _BUFFERED:
            self._enter()

    def _enter(self) -> None:
        if not self._waiting:
            return
        self._database.executemany("INSERT INTO stored VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", self._waiting)
        self._waiting = []

    def twin(self, sha256: str, split: str) -> str | None:
        """Return the "split/key" of the first image with these bytes that is stored in another split."""
        query = "SELECT split || '/' || key FROM stored WHERE hash = ? AND split != ? ORDER BY rowid LIMIT 1"
        own = not self._waiting or self._waiting[0][2] == split
        row = (self._database if own else self.database).execute(query, (bytes.fromhex(sha256), split)).fetchone()
        return row[0] if row else None

    def perceptual_hashes(self, split: str) -> tuple[NDArray[np.int64], list[str]]:
        """Return the perceptual hashes (n,) int64 of the images in other splits, and the "split/key" of each."""
        query = "SELECT look, split || '/' || key FROM stored WHERE split != ? AND look NOT NULL"
        rows = self.database.execute(query, (split,)).fetchall()
        return np.array([phash for phash, _ in rows], np.int64), [name for _, name in rows]

    def flat(self, share: float = _MANY, least: int = 1) -> tuple[str, str, str]:
        """Return how many of the images hold few values in flat areas, in all that is stored of them, as "3 of 6", with the path of one and
        of another that does not; "" if they are less than a share of the images, or than a number.
        """
        ranks = "SELECT rank, min(flat) AS flat FROM stored GROUP BY rank"
        query = f"SELECT count(*), sum(flat), min(iif(flat, rank, NULL)), min(iif(flat, NULL, rank)) FROM ({ranks})"
        count, flat, *found = self.database.execute(query).fetchone()
        if not flat or flat < max(share * count, least):
            return "", "", ""
        paths = dict(self.database.execute("SELECT rank, image FROM samples WHERE rank IN (?, ?)", found))
        return f"{flat} of {count}", paths[found[0]], paths.get(found[1], "")

    def shards(self, split: str = "") -> list[Shard]:
        """Return the finished tar files of a split, or of all."""
        query = "SELECT file, samples, bytes, sha256, idx FROM shards WHERE ? IN ('', split)"
        return [Shard(*row) for row in self._database.execute(query, (split,))]

    def stored(self, outside: str = "", *, images: bool = False) -> int:
        """Return the number of samples stored so far, or of `images`, without those of the split `outside`."""
        what = "DISTINCT rank" if images else "*"
        return int(
            self.database.execute(f"SELECT count({what}) FROM stored WHERE split != ?", (outside,)).fetchone()[0]
        )

    def rejected(self) -> Iterator[dict[str, str]]:
        """Yield what is left out, in the order in which it was entered."""
        for file, split, reason in self._database.execute("SELECT * FROM rejected ORDER BY rowid"):
            yield {"file": file, "split": split, "reason": reason}

    def split(self, name: str) -> Split:
        """Return a split as the manifest describes it."""
        query = "SELECT count(*), count(coverage), avg(coverage) FROM stored WHERE split = ?"
        samples, masks, coverage = self.database.execute(query, (name,)).fetchone()
        query, counted = "SELECT {0}, count(*) FROM stored WHERE split = ? AND {0} NOT NULL GROUP BY 1 ORDER BY 1", {}
        for field, column in _COUNTED.items():
            counted[field] = dict(self.database.execute(query.format(column), (name,)).fetchall())
        return Split(self.shards(name), samples, masks, mask_coverage=coverage and round(coverage, 6), **counted)

    def converted(self) -> dict[str, int]:
        """Count samples by what was done to their pixels."""
        query = "SELECT converted, count(*) FROM stored WHERE converted != '' GROUP BY converted ORDER BY converted"
        return dict(self.database.execute(query).fetchall())

    def _pixel_notes(self) -> list[str]:
        """Return what to know of the pixels: masks that are nearly empty or nearly full, as those of a wrong --foreground are (of
        tiles, which often are, the mean alone counts); ranges that differ; masks that were not turned.
        """
        notes = []
        query = "SELECT count(*), min(key), count(DISTINCT rank) = count(*) FROM stored WHERE coverage "
        for share, rule, values in (
            ("below 0.1 %", "< 0.001", "mostly ground"),
            ("above 90 %", "> 0.9", "mostly foreground"),
        ):
            count, first, whole = self.database.execute(query + rule).fetchone()
            if count and whole:
                notes.append(
                    f"WARNING: {count} masks are {share} foreground, such as that of {first}; look at them: info --preview"
                )
            query_mean = f"SELECT split, avg(coverage) AS mean FROM stored GROUP BY split HAVING mean {rule}"
            for split, mean in self.database.execute(query_mean):
                notes.append(
                    f"WARNING: the masks of split '{split}' are {values}, {mean:.2%} in the mean; --foreground says which levels "
                    "or colours are foreground"
                )
        query = (
            "SELECT count(*), sum(framed), min(iif(framed, key, NULL)) FROM stored WHERE coverage > 0 AND coverage < 1"
        )
        count, framed, first = self.database.execute(query).fetchone()
        if framed and framed >= _MOST * count:
            notes.append(
                f"WARNING: the whole border is foreground in {framed} of {count} masks, such as that of {first}; if they are "
                "inverted, --foreground names the other level, such as 0"
            )
        query = "SELECT count(DISTINCT rank), min(key) FROM stored WHERE converted LIKE ?"
        count, first = self.database.execute(query, (f"%{OWN_RANGE}%",)).fetchone()
        if count > 1:
            notes.append(
                f"{count} files in physical units, such as {first}, are mapped to gray by their own ranges, so that one value is "
                "not one gray in all; --window LOW,HIGH, such as Hounsfield units of CT, maps all alike"
            )
        count, first = self.database.execute(query, (f"%{APART}%",)).fetchone()
        if count:
            notes.append(
                f"WARNING: {count} images are turned by their orientation tag and their masks have none, such as {first}; if "
                "they do not fit, --turn-masks turns them alike"
            )
        count, first = self.database.execute(query, (f"%{MASK_BRIGHT}%",)).fetchone()
        (masks,) = self.database.execute("SELECT count(DISTINCT rank) FROM stored WHERE coverage NOT NULL").fetchone()
        if count:
            some = "all masks" if count == masks else f"WARNING: {count} of {masks} masks"
            remedy = "--foreground 0 if bright is meant" if count == masks else "save all alike, or some are inverted"
            notes.append(
                f"{some} show their 0 bright (MINISWHITE, MONOCHROME1 or a palette), such as that of {first}, and values count as "
                f"stored: {remedy}"
            )
        count, first = self.database.execute(query, (f"%{MASK_STRANGE}%",)).fetchone()
        if count:
            notes.append(
                f"WARNING: {count} masks name another PatientID than their images, such as that of {first}: check the pairs"
            )
        return notes

    def notes(self) -> list[str]:
        """Return notes for the user: images that look like masks, identical images within a split, tiles skipped."""
        notes = self._pixel_notes()
        flat, first, _ = self.flat()
        if flat:
            notes.append(
                f"WARNING: {flat} images hold few values in flat areas, as masks do, such as {first}; if they are masks, "
                "--images and --masks say so"
            )
        query = """SELECT split, count(*) FROM (SELECT split FROM stored GROUP BY split, hash
                   HAVING count(DISTINCT rank) > 1) GROUP BY split"""
        for split, count in self.database.execute(query):
            notes.append(f"{count} images of split '{split}' are there more than once, byte for byte")
        (tiles,) = self.database.execute("SELECT sum(tiles) FROM skipped").fetchone()
        if tiles:
            notes.append(f"{tiles} tiles with too little foreground passed over (--min-foreground)")
        return notes
