"""Patient and series of DICOM files, from their headers, so that a patient's images stay in one split."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from medsass import files
from medsass.data.formats import kinds
from medsass.data.formats.dicom import resolutions
from medsass.data.formats.dicom.grouping import TAGS, Orientations, Slice, slice_of
from medsass.data.formats.dicom.resolutions import Resolution
from medsass.data.sharding.catalog import tars
from medsass.data.sharding.catalog.listing import Listing, Stat
from medsass.data.sharding.catalog.splits import digest, named
from medsass.data.sharding.recipe import Recipe

_TAGS = ("PatientID", "SeriesInstanceUID", "StudyInstanceUID")
_THREADS = 16  # a header is a few kB, so that the time is that of asking for it
_AT_ONCE = 10_000


class _Header(NamedTuple):
    """What the header of a DICOM file says: its group, the other groups that files of the same study or series without an ID
    have, which file of a slide it is, if it is of one, which slice of a series, and whether it holds an image at all.
    """

    group: str | None
    others: list[str]
    slide: Resolution | None
    slice: Slice | None
    pictured: bool


def group(
    database: sqlite3.Connection, listing: Listing, source: Path, recipe: Recipe, group_by: str
) -> tuple[dict[str, int], list[str]]:
    """Enter patients, or series, as the groups of DICOM files in the catalog's table of images that were found, and leave out
    what holds no image, and what lies beside the images of slides: labels (which name patients), overviews, and all resolutions
    but the highest.

    A patient's ID is stored as a hash, because shards may be passed on. A file without an ID counts by its study, or else
    by its series: as the patient that another file of it names. Where all files have one ID, as after some anonymizers, names,
    studies or series are the groups. Returns the numbers of files that are left out, and notes for the user.

    Raises `ValueError` where no file holds an image.
    """
    images = [image for (image,) in database.execute("SELECT image FROM found") if _may_be_dicom(image)]
    own = group_by in ("patient", "series") or (not group_by and not recipe.groups)
    slides, known, patients = list[tuple[str, Resolution]](), Orientations(), dict[str, str]()
    held, without = dict[str, _Header](), list[str]()
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(images), _AT_ONCE):
            some = images[start : start + _AT_ONCE]
            read = pool.map(partial(_read, source, series=group_by == "series"), some, listing.stats(some))
            found = [(image, header) for image, header in zip(some, read, strict=True) if header]
            slides += [(image, header.slide) for image, header in found if header.slide]
            without += [image for image, header in found if not header.pictured]
            if len({header.group for header in held.values()}) < 2:  # after which no more are needed
                held |= [(image, header) for image, header in found if header.pictured]
            patients |= {other: str(header.group) for _, header in found for other in header.others}
            rows = [
                (header.group, header.group if own else None, *_series(header.slice, known), image)
                for image, header in found
            ]
            change = "UPDATE found SET named = coalesce(?, named), grp = coalesce(?, grp), series = ?, place = ? WHERE image = ?"
            database.executemany(change, rows)
    database.execute("CREATE TEMP TABLE patients (other TEXT PRIMARY KEY, patient)")
    database.executemany("INSERT INTO patients VALUES (?, ?)", patients.items())
    for column in ("named", "grp"):
        known_by = f"FROM patients WHERE other = {column}"
        database.execute(f"UPDATE found SET {column} = (SELECT patient {known_by}) WHERE EXISTS (SELECT 1 {known_by})")
    database.execute("DROP TABLE patients")
    _leave_out(database, without)
    if without and not database.execute("SELECT 1 FROM found LIMIT 1").fetchone():
        raise ValueError(
            f"{source}: none of its {len(without)} DICOM files holds an image, such as {without[0]}: they are reports, plans or "
            "contours; give the folder of the images"
        )
    notes = _by_other_than_patient(database, held) if own and not group_by else []
    _leave_out(database, smaller := resolutions.lesser(slides))
    what = "labels, overviews and smaller resolutions of DICOM slides"
    return {"DICOM files without an image": len(without), what: len(smaller)}, notes


def _leave_out(database: sqlite3.Connection, images: Sequence[str]) -> None:
    database.executemany("DELETE FROM found WHERE image = ?", [(image,) for image in images])
    database.executemany("INSERT INTO aside VALUES (?)", [(image,) for image in images])


def pictured(listing: Listing, source: Path, path: str) -> bool:
    """Return whether a file is not, by its header, a DICOM file without an image, such as a report, a plan or contours."""
    (stat,) = listing.stats([path])
    header = _read(source, path, stat, series=False)
    return header is None or header.pictured


def _by_other_than_patient(database: sqlite3.Connection, headers: Mapping[str, _Header]) -> list[str]:
    """Group DICOM files that all have one PatientID by what their names, studies or series tell apart. Returns a note of it."""
    if len({header.group for header in headers.values()}) > 1 or not all(header.others for header in headers.values()):
        return []
    ways: list[tuple[str, Callable[[str], str | None]]] = [("name", named)]
    ways += [(what, lambda image, at=at: headers[image].others[at]) for at, what in ((0, "study"), (-1, "series"))]  # type: ignore[misc]
    for what, way in ways:
        groups = {image: way(image) for image in headers}
        if len(different := {*groups.values()}) > 1 and None not in different:
            rows = [(value, value, image) for image, value in groups.items()]
            database.executemany("UPDATE found SET named = ?, grp = ? WHERE image = ?", rows)
            return [
                f"all {len(headers)} DICOM files have one PatientID, so that their {what} is their group; if they are one "
                "patient's, scores will be too good"
            ]
    return []


def _may_be_dicom(image: str) -> bool:
    """Return whether a file can be DICOM by its name, which may have any suffix that is no other format's."""
    return kinds.by_name(image) in ("", "dicom")


def _series(one: Slice | None, known: Orientations) -> tuple[str | None, float | None]:
    return (known.key(one), one.place) if one else (None, None)


def _read(source: Path, image: str, stat: Stat, series: bool) -> _Header | None:
    """Read the header of a file; None where it is no DICOM file, or a damaged one."""
    import pydicom

    path = source / image
    try:
        member = BytesIO(b"".join(tars.pieces(source / stat.tar, stat.place, stat.size))) if stat.tar else None
        with files.reaching(path), member or path.open("rb") as file:
            known = kinds.kind(file.read(kinds.HEAD), path) == "dicom"  # also without the preamble
            file.seek(0)
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=[*_TAGS, *TAGS], force=known)
        order = reversed(_TAGS[:2]) if series else (_TAGS[0], _TAGS[2], _TAGS[1])
        named = ((tag, str(header[tag].value or "").strip()) for tag in order if tag in header)
        groups = [_group(tag, value) for tag, value in named if value]
        others = groups[1:] if groups and groups[0].startswith("patient") else []
        parts = files.is_local(path) and not stat.tar
        return _Header(
            next(iter(groups), None),
            others,
            resolutions.of(header),
            slice_of(header, str(path.parent)) if parts else None,
            "Rows" in header or _may_be_image(header.get("SOPClassUID")),
        )
    except files.UnreachableError:
        raise
    except Exception:  # whatever is wrong with it is said when it is read
        return None


def _may_be_image(storage: Any) -> bool:
    """Return whether a file without rows is a damaged image, unless its class is one of DICOM's that are no images."""
    return (
        storage is None or storage.name == storage or "Image" in storage.name
    )  # one that DICOM does not have has no name


def _group(tag: str, value: str) -> str:
    """Return the name of a patient, study or series."""
    return f"{tag.removesuffix('InstanceUID').removesuffix('ID').lower()}-{digest(value)[:12]}"
