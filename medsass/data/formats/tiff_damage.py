"""What tifffile lets pass: damage, because it makes what is missing zero or leaves it to decoders that invent it; and pages
of one series that differ in what turns or colours them.
"""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from medsass.data.formats.damage import DamagedError, UnreadableError
from medsass.data.formats.geometry import ORIENTATION, known_orientation
from medsass.data.formats.image import MOST_FRAMES, Selection
from medsass.data.formats.photos import codestream, jpeg

_PIXELS, _PLANES = re.compile(r"<(?:\w+:)?Pixels\b([^>]*)>"), re.compile(r"\bSize[ZCT]\s*=\s*[\"'](\d+)")
_STREAMS = (6, 7, 33007, 34892)  # compressions of JPEG itself


def refuse(level: Any, size: int, view: Selection) -> None:
    """Raise `ValueError` where a level lacks planes, or a page of it strips or tiles, or has some behind the end of its file of
    `size` bytes; where pages that are read differ in orientation or, as images, in palette; and make tifffile refuse JPEG strips
    and tiles that end early, and those with more pixels than the page has room for, as it does those of other codecs.
    """
    whole = view.frames not in ("first", 0)
    if whole:
        _refuse_mixed(level, palettes=not view.raw)
    key, due = level.keyframe, int(np.prod(level.keyframe.chunked))
    pages = [key] if level.dataoffset is not None else list(level.pages)
    if whole and (lacking := pages.count(None)):
        raise DamagedError(f"truncated: {len(pages) - lacking} of {len(pages)} planes")
    pages = [page for page in pages if page is not None]
    for page in pages:
        held = len(page.dataoffsets)
        if held < due and not page.is_contiguous:
            raise DamagedError(f"truncated: {held} {'tiles' if key.is_tiled else 'strips'} of {due}")
        ends = np.array(page.dataoffsets, np.int64) + np.array(page.databytecounts, np.int64)
        if (end := ends.max(initial=0)) > size and page.parent is key.parent:
            raise DamagedError(f"truncated: the file has {size:,} bytes of {end:,}")
    if key.compression in _STREAMS or key.compression in tifffile.TIFF.IMAGE_COMPRESSIONS:
        for one in {id(page.keyframe): page.keyframe for page in pages}.values():
            one.decode = one.decode if isinstance(one.decode, _Strict) else _Strict(one)  # of a file opened twice


def check_ome(tiff: Any) -> None:
    """Raise `UnreadableError` where OME-XML says so many planes that tifffile's list of them would fill the memory."""
    for pixels in _PIXELS.finditer((tiff.ome_metadata if tiff.is_ome else None) or ""):
        if (planes := math.prod(int(size[1][:12]) for size in _PLANES.finditer(pixels[1]))) > MOST_FRAMES:
            raise UnreadableError(
                f"{planes:,} planes by its OME-XML, more than the {MOST_FRAMES:,} that medsass reads of a file; mend it"
            )


def refuse_elsewhere(level: Any, tiff: Any) -> None:
    """Raise `UnreadableError` where pages of a level are those of files in other folders, which an index beside this one may name."""
    own = tiff.filehandle.dirname
    others = (page.parent.filehandle for page in level.pages if page is not None) if tiff.is_ndtiff else ()
    if far := next((file.name for file in others if Path(file.dirname).resolve() != Path(own).resolve()), ""):
        raise UnreadableError(f"NDTiff.index names {far}, which does not lie beside it; put the file there")


def _refuse_mixed(level: Any, palettes: bool) -> None:
    """Raise `ValueError` where pages differ so: of a long stack those whose tags are read anyway, the middle one and the last."""
    held, file = level._pages, level.keyframe.parent
    pages = [page for page in held if isinstance(page, tifffile.TiffPage)]
    for page in {held[len(held) // 2], held[-1]}:
        if type(page) is tifffile.TiffFrame and page.offset and page.parent is file:
            file.filehandle.seek(page.offset)
            pages.append(tifffile.TiffPage(file, page.index))
    tables = {np.asarray(page.colormap).tobytes() for page in pages if palettes and page.colormap is not None}
    turns = {known_orientation(page.tags.valueof(ORIENTATION, 1)) for page in pages}
    for held, what in ((tables, "palettes"), (turns, "orientations")):
        if len(held) > 1:
            raise UnreadableError(f"its pages have different {what}; save each as a file of its own")


class _Strict:
    """The function of a page that decodes a strip or a tile, with a check of its stream before."""

    def __init__(self, page: Any) -> None:
        self._decode: Callable[..., Any] = page.decode
        self._jpeg = page.compression in _STREAMS
        self._room = page.chunks if page.is_tiled else (page.imagelength, page.imagewidth)
        self._samples = page.samplesperpixel

    def __call__(self, data: bytes | None, index: int, /, **options: Any) -> Any:
        if data:
            head, tables = options.get("jpegheader"), options.get("jpegtables")
            codestream.check(head or data, self._room[0], self._room[1], self._samples)
            if self._jpeg:
                jpeg.check_pixels(head + data + jpeg.EOI if head else data, tables or b"")
        return self._decode(data, index, **options)
