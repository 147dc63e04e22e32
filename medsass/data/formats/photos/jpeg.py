"""JPEG (ITU T.81): its segments, and whether a stream is whole.

Decoders paint gray what a stream that ends early leaves open, and go on with wrong blocks after a broken code, with no
more than a warning on stderr, or none. TIFF, slides and DICOM hold such streams too. So what is read as JPEG is first
decoded by simplejpeg (libjpeg-turbo), the one decoder that raises for it.
"""

import re
from collections.abc import Iterator
from functools import partial
from typing import Literal, NamedTuple

import simplejpeg

from medsass.data.formats.damage import DamagedError
from medsass.data.formats.geometry import ORIENTATION, known_orientation
from medsass.data.formats.image import check_size

EXIF = b"Exif\0\0"  # which begins the segment
SOI, EOI, SOS = b"\xff\xd8", b"\xff\xd9", 0xDA
SCANS, _SCAN = 256, b"\xff\xda"  # in a file, as many as DALI takes; what begins one
LOSSLESS, LS = 0xC3, 0xF7  # frames of lossless JPEG and of JPEG-LS
WARNINGS = re.compile(rb"Corrupt JPEG data|Premature end of JPEG")
"""What libjpeg says of data that it cannot decode, in any program that uses it."""

FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0), LS)
_ORDERS: dict[bytes, Literal["little", "big"]] = {b"II*\0": "little", b"MM\0*": "big"}  # that EXIF begins with
_APP, _COM = range(0xE0, 0xF0), 0xFE
BARE = (0x01, *range(0xD0, 0xD9))  # markers without a length
_MARKER = re.compile(rb"\xff[^\0\xff]")
_IN_SCAN = re.compile(rb"\xff[^\0\xff\xd0-\xd7]")  # what ends entropy-coded data: no stuffed zero, fill byte or restart
_AS_IS = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0"  # Adobe's segment that says: colours are not transformed
_SPACES = {"RGB": "rgb", "CMYK": "cmyk"}  # what simplejpeg decodes to itself alone in lossless streams
_AT_END = "extraneous bytes before marker 0xd9"  # behind the last block, where they do no harm


class Segment(NamedTuple):
    """A marker, and the range of the segment's bytes behind marker and length."""

    marker: int
    start: int
    end: int


def segments(data: bytes) -> Iterator[Segment]:
    """Yield the segments of a JPEG file up to its end marker, which comes last if it is there; bytes between them are
    passed over, as decoders do.
    """
    at, form = len(SOI), _MARKER
    while found := form.search(data, at):
        at, marker = found.end(), data[found.end() - 1]
        if marker in BARE:
            continue
        if marker == EOI[1]:
            yield Segment(marker, at, at)
            return
        segment = Segment(marker, at + 2, at + int.from_bytes(data[at : at + 2]))
        yield segment
        at, form = max(segment[1:]), _IN_SCAN if marker == SOS else form


def orientation(exif: bytes) -> int:
    """Return the orientation (1 to 8) that the content of an EXIF segment states, 1 for none.

    Its first two bytes count, whatever the type of the tag, as DALI and OpenCV take it: Pillow knows two types alone.
    """
    body = exif.removeprefix(EXIF)
    order = _ORDERS.get(body[:4])
    if not order:
        return 1
    number = partial(int.from_bytes, byteorder=order)
    start = number(body[4:8])
    for at in range(start + 2, min(start + 2 + 12 * number(body[start : start + 2]), len(body) - 9), 12):
        if number(body[at : at + 2]) == ORIENTATION:
            return known_orientation(number(body[at + 8 : at + 10]))
    return 1


def check(data: bytes) -> None:
    """Raise `ValueError` where a JPEG file has no scan, or ends before its end marker."""
    scans = 0
    for marker, start, end in segments(data):
        if marker == EOI[1]:
            if not scans:
                raise DamagedError("broken JPEG file: it ends before its pixel data")
            return
        if end < start:
            raise DamagedError("broken JPEG file: a segment without a length")
        scans += marker == SOS
    raise DamagedError("truncated JPEG file: its end marker is missing")


def check_pixels(data: bytes, tables: bytes = b"") -> None:
    """Raise `ValueError` where the pixel data of a JPEG stream end early or break off.

    What is no JPEG passes, and what this decoder does not know: the one that reads it tells.

    Args:
        data: the stream, or a part of it as TIFF stores them.
        tables: the stream that holds the tables of such parts.
    """
    if not data.startswith(SOI):
        return
    if data.count(_SCAN) > SCANS and sum(each.marker == SOS for each in segments(data)) > SCANS:
        raise DamagedError(f"damaged JPEG: more than {SCANS} scans, each of which is decoded over the whole image")
    stream = _bare(data, tables)
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(stream)
    except ValueError:
        return
    check_size(height, width)
    try:
        # reduced, which would be a third faster, it writes beyond its memory at lossless streams
        simplejpeg.decode_jpeg(stream, _SPACES.get(space, "gray"), fastdct=True, fastupsample=True)
    except ValueError as error:
        text = str(error)
        if "remature end of" in text:
            raise DamagedError("truncated JPEG: its pixel data end early") from error
        if WARNINGS.match(text.encode()) and _AT_END not in text:
            raise DamagedError(f"damaged JPEG: {text.partition(': ')[2]}") from error


def _bare(data: bytes, tables: bytes) -> bytes:
    """Return a stream without what libjpeg may warn of before the pixels, as it tells of the first fault only; of 8 bits
    a sample, of which the codes of 12 and 16 bits decode as well.
    """
    parts = [SOI, tables[len(SOI) : -len(EOI)]]
    for marker, start, end in segments(data):
        if marker == SOS:
            return b"".join([*parts, data[start - 4 :]])
        if marker in FRAMES:
            parts += [_AS_IS * (marker == LOSSLESS), data[start - 4 : start], b"\x08", data[start + 1 : end]]
        elif marker not in (*_APP, _COM):
            parts.append(data[start - 4 : end])
    return data
