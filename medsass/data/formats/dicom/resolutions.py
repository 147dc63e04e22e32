"""Which files of a DICOM slide are its image: the highest resolution, and not its label, which names the patient, or overview."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

TAGS = ("SeriesInstanceUID", "TotalPixelMatrixRows", "TotalPixelMatrixColumns", "ImageType")
_ASIDE = ("LABEL", "OVERVIEW", "THUMBNAIL")  # image types

T = TypeVar("T")


class Resolution(NamedTuple):
    """A file of a slide: the slide's series, its number of pixels, and whether it is label, overview or thumbnail."""

    series: str
    pixels: int
    aside: bool


def of(header: Any) -> Resolution | None:
    """Return what a header with `TAGS` says; None where the file is of no slide. May raise whatever pydicom does."""
    pixels = int(header.get("TotalPixelMatrixRows") or 0) * int(header.get("TotalPixelMatrixColumns") or 0)
    aside = any(word in _ASIDE for word in header.get("ImageType") or ())
    series = str(header.get("SeriesInstanceUID") or "")
    return Resolution(series, pixels, aside) if pixels and series else None


def lesser(found: Sequence[tuple[T, Resolution]], *, named: bool = False) -> list[T]:
    """Return the files that are not their slide's image; of those that a user has `named`, only beside a larger one."""
    largest: dict[str, int] = defaultdict(int)
    for _, held in found:
        largest[held.series] = max(largest[held.series], 0 if held.aside else held.pixels)
    return [
        file
        for file, held in found
        if (held.aside or held.pixels < largest[held.series]) and (largest[held.series] or not named)
    ]
