"""Patient and series of DICOM files, from their headers, so that a patient's images stay in one split."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath

from medsass import files
from medsass.data.sharding import tars
from medsass.data.sharding.listing import Listing, Stat
from medsass.data.sharding.recipe import Recipe
from medsass.data.sharding.splits import digest

_DICOM = ("", ".dcm", ".dicom", ".dic", ".ima")
_TAGS = ("PatientID", "SeriesInstanceUID", "StudyInstanceUID")
_THREADS = 16  # a header is a few kB, so that the time is that of asking for it
_AT_ONCE = 10_000


def group(database: sqlite3.Connection, listing: Listing, source: Path, recipe: Recipe, group_by: str) -> None:
    """Enter patients, or series, as the groups of DICOM files in the catalog's table of images that were found.

    A patient's ID is stored as a hash, because shards may be passed on. A file without an ID counts by its study, or else
    by its series.
    """
    where = " OR ".join(f"image LIKE '%{suffix}'" for suffix in _DICOM[1:]) + " OR image NOT LIKE '%.%'"
    images = [image for (image,) in database.execute(f"SELECT image FROM found WHERE {where}")]
    images = [image for image in images if PurePosixPath(image).suffix.lower() in _DICOM]
    own = group_by in ("patient", "series") or (not group_by and not recipe.groups)
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(images), _AT_ONCE):
            some = images[start : start + _AT_ONCE]
            found = pool.map(partial(_belongs, source, series=group_by == "series"), some, listing.stats(some))
            rows = [(name, name if own else None, image) for image, name in zip(some, found, strict=True) if name]
            database.executemany("UPDATE found SET named = ?, grp = coalesce(?, grp) WHERE image = ?", rows)


def _belongs(source: Path, image: str, stat: Stat, series: bool) -> str | None:
    """Return the group of one file, None where it is no DICOM file or does not say."""
    import pydicom

    path = source / image
    try:
        member = BytesIO(b"".join(tars.pieces(source / stat.tar, stat.place, stat.size))) if stat.tar else None
        with files.reaching(path), member or path.open("rb") as file:
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(_TAGS), force=path.suffix != "")
    except files.UnreachableError:
        raise
    except Exception:  # whatever is wrong with it is said when it is read
        return None
    order = reversed(_TAGS[:2]) if series else (_TAGS[0], _TAGS[2], _TAGS[1])
    tag = next((tag for tag in order if str(header.get(tag) or "").strip()), "")
    return (
        f"{tag.removesuffix('InstanceUID').removesuffix('ID').lower()}-{digest(str(header[tag].value))[:12]}"
        if tag
        else None
    )
