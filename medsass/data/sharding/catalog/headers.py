"""Patient and series of DICOM files, from their headers, so that a patient's images stay in one split."""

import sqlite3
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath

from medsass import files
from medsass.data.sharding.catalog import tars
from medsass.data.sharding.catalog.listing import Listing, Stat
from medsass.data.sharding.catalog.splits import digest
from medsass.data.sharding.recipe import Recipe

_DICOM = ("", ".dcm", ".dicom", ".dic", ".ima")
_TAGS = (
    "PatientID",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "TotalPixelMatrixRows",
    "TotalPixelMatrixColumns",
    "ImageType",
)
_ASIDE = ("LABEL", "OVERVIEW", "THUMBNAIL")  # of the image types of slides
_THREADS = 16  # a header is a few kB, so that the time is that of asking for it
_AT_ONCE = 10_000


@dataclass(frozen=True)
class _Header:
    """What the header of a DICOM file says: its group, the series of a slide or "", its pixels, and whether it is the slide's
    label, overview or thumbnail.
    """

    group: str | None
    slide: str = ""
    pixels: int = 0
    aside: bool = False


def group(database: sqlite3.Connection, listing: Listing, source: Path, recipe: Recipe, group_by: str) -> int:
    """Enter patients, or series, as the groups of DICOM files in the catalog's table of images that were found, and leave out
    what lies beside the images of slides: labels (which name patients), overviews, and all resolutions but the highest.

    A patient's ID is stored as a hash, because shards may be passed on. A file without an ID counts by its study, or else
    by its series. Returns the number of files that are left out.
    """
    where = " OR ".join(f"image LIKE '%{suffix}'" for suffix in _DICOM[1:]) + " OR image NOT LIKE '%.%'"
    images = [image for (image,) in database.execute(f"SELECT image FROM found WHERE {where}")]
    images = [image for image in images if PurePosixPath(image).suffix.lower() in _DICOM]
    own = group_by in ("patient", "series") or (not group_by and not recipe.groups)
    slides: list[tuple[str, _Header]] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(images), _AT_ONCE):
            some = images[start : start + _AT_ONCE]
            read = pool.map(partial(_read, source, series=group_by == "series"), some, listing.stats(some))
            found = [(image, header) for image, header in zip(some, read, strict=True) if header]
            slides += [pair for pair in found if pair[1].slide]
            rows = [(header.group, header.group if own else None, image) for image, header in found]
            database.executemany("UPDATE found SET named = ?, grp = coalesce(?, grp) WHERE image = ?", rows)
    largest: dict[str, int] = defaultdict(int)
    for _, header in slides:
        largest[header.slide] = max(largest[header.slide], 0 if header.aside else header.pixels)
    smaller = [(image,) for image, header in slides if header.aside or header.pixels < largest[header.slide]]
    database.executemany("DELETE FROM found WHERE image = ?", smaller)
    return len(smaller)


def _read(source: Path, image: str, stat: Stat, series: bool) -> _Header | None:
    """Read the header of a file; None where it is no DICOM file, or a damaged one."""
    import pydicom

    path = source / image
    try:
        member = BytesIO(b"".join(tars.pieces(source / stat.tar, stat.place, stat.size))) if stat.tar else None
        with files.reaching(path), member or path.open("rb") as file:
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(_TAGS), force=path.suffix != "")
        order = reversed(_TAGS[:2]) if series else (_TAGS[0], _TAGS[2], _TAGS[1])
        tag = next((tag for tag in order if str(header.get(tag) or "").strip()), "")
        kind = tag.removesuffix("InstanceUID").removesuffix("ID").lower()
        named = f"{kind}-{digest(str(header[tag].value))[:12]}" if tag else None
        pixels = int(header.get("TotalPixelMatrixRows") or 0) * int(header.get("TotalPixelMatrixColumns") or 0)
        slide = str(header.get("SeriesInstanceUID") or "") if pixels else ""
        aside = any(word in _ASIDE for word in header.get("ImageType") or ())
    except files.UnreachableError:
        raise
    except Exception:  # whatever is wrong with it is said when it is read
        return None
    return _Header(named, slide, pixels, aside)
