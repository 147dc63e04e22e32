"""DICOM files that are the slices of one series become one image, as `label` and `predict` read them.

Slices with masks of their own stay images of their own, and so do those in tar files and at addresses; all slices of a series
may have one volume as their mask.
"""

import json
import sqlite3
from collections.abc import Sequence
from itertools import pairwise
from pathlib import PurePosixPath
from statistics import median

from medsass.data.formats import kinds
from medsass.data.sharding.catalog.names import safe

_WIDE = 1.5  # times the median distance of slices: one is missing


def unite(database: sqlite3.Connection, every: int) -> list[str]:
    """Unite the slices of each series in the table of images that were found: its first file stands for all, named as their
    folder. Returns notes for the user: one of them where `every`, the largest step of slices that is asked for, is more than 1, and some slices are not united.
    """
    query = """SELECT series, entry, count(*), count(DISTINCT round(place, 3)), min(image), min(masks) FROM found WHERE series NOT NULL
               GROUP BY series, entry
               HAVING count(*) > 1 AND count(DISTINCT masks) = 1 AND count(DISTINCT given) = 1
               AND count(DISTINCT coalesce(label, '')) = 1"""
    database.execute("CREATE INDEX parts ON found (series, entry)")
    volumes = slices = mixed = 0
    example, gaps = "", list[tuple[str, str]]()
    for series, table, count, places, image, masks in database.execute(query).fetchall():
        if any(kinds.is_photo(mask) for mask in json.loads(masks)):
            continue  # a picture for all slices
        if places < count:
            mixed, example = mixed + count, example or image
            continue
        listed = "SELECT image, place FROM found WHERE series = ? AND entry = ? ORDER BY place"
        rows = database.execute(listed, (series, table)).fetchall()
        (first, *others) = [path for path, _ in rows]
        gaps += _gap(rows)
        database.executemany("DELETE FROM found WHERE image = ?", ((path,) for path in others))
        database.executemany("INSERT INTO aside VALUES (?)", ((path,) for path in others))
        folder = PurePosixPath(first).parent.name or PurePosixPath(first).stem
        row = safe(folder), json.dumps([first, *others]), first
        database.execute("UPDATE found SET stem = ?, slices = ? WHERE image = ?", row)
        volumes, slices = volumes + 1, slices + count
    notes = [f"{slices} DICOM slices are read as {volumes} volumes, one for each series"] if volumes else []
    if gaps:
        before, after = gaps[0]
        notes.append(
            f"WARNING: slices may be missing in {len(gaps)} of {volumes} series: two are further apart than the others, such "
            f"as {before} and {after}"
        )
    if mixed:
        notes.append(
            f"{mixed} DICOM slices of series in which some lie in one place stay images of their own, such as {example}"
        )
    query = "SELECT count(*), min(image) FROM found WHERE series NOT NULL AND slices IS NULL"
    alone, example = database.execute(query).fetchone()
    if every > 1 and alone:
        notes.append(
            f"WARNING: {alone} DICOM slices are images of their own, such as {example}, so that --every leaves none of them out"
        )
    return notes


def _gap(slices: Sequence[tuple[str, float]]) -> list[tuple[str, str]]:
    """Return the two neighbours that are furthest apart, if clearly more than others are: [] or one pair.

    Args:
        slices: files and places, in order.
    """
    steps = [after - before for (_, before), (_, after) in pairwise(slices)]
    widest = max(range(len(steps)), key=steps.__getitem__)
    return [(slices[widest][0], slices[widest + 1][0])] if steps[widest] > _WIDE * median(steps) else []
