"""Checks that the bytes of a PNG, JPEG or JPEG 2000 file are whole, before they are stored as they are.

Decoders differ in what they forgive, and some die of what others refuse. So a file that a shard keeps unchanged must first
follow its format's rules: PNG (ISO/IEC 15948) chunk by chunk, with checksums, length and filter bytes of the inflated
rows; JPEG (ITU T.81) segment by segment up to its end marker (`formats.photos.jpeg`).
"""

import struct
import zlib
from collections.abc import Iterator

import imagecodecs
import numpy as np
from zlib_ng.zlib_ng import crc32

from medsass.data.formats.damage import DamagedError, readable
from medsass.data.formats.image import check_size
from medsass.data.formats.kinds import PNG_MAGIC
from medsass.data.formats.photos import jpeg

_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_HARMLESS = {b"IHDR", b"IDAT", b"IEND", b"pHYs", b"tIME", b"gAMA", b"sRGB", b"cHRM", b"tEXt", b"sBIT"}
"""Chunks that DALI passes over whatever they hold, which it does not do with bKGD and fcTL."""
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # by colour type
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""Adam7: first row, first column, and the distance to the next of each."""
_SMALL = 1 << 16  # bytes that cost no time to inflate
_FILTERS = 4  # the largest number of a row's filter


def check(data: bytes, suffix: str) -> bool:
    """Return whether a file is sure to be read alike by every decoder, as `check_png` says; `suffix` is "png", "jpg" or "jp2".

    Raises `ValueError` with the reason where the file is broken.
    """
    if suffix == "png":
        return check_png(data)
    {"jpg": jpeg.check, "jp2": _check_jpeg2000}[suffix](data)
    return False  # their pixel data tell only a decoder


def check_png(data: bytes) -> bool:
    """Return whether a PNG file is so plain that nothing is left to its decoder's judgement: 8 bits in gray, RGB or RGBA, not
    interlaced, no chunks but pixels and what says nothing of them, a stream without a flaw.

    Raises `ValueError` where it breaks a rule that a decoder may rely on.
    """
    return inflate_png(data)[1]


def check_surplus(data: bytes) -> None:
    """Raise `ValueError` where a PNG file is far larger than its rows, and breaks a rule: libpng would inflate all that is behind them."""
    if len(data) > _SMALL and len(data) > 2 * _sizes(data)[1]:
        inflate_png(data)


def inflate_png(data: bytes) -> tuple[bytes, bool]:
    """Return the rows of a PNG file, each behind the byte of its filter, pass after pass, and what `check_png` returns. Raises
    `ValueError` as that does.
    """
    if not data.startswith(PNG_MAGIC):
        raise DamagedError("not a PNG file")
    kinds: list[bytes] = []
    pixels: list[bytes] = []
    for kind, content in _chunks(data):
        if kind[:1].isupper() and kind not in _CRITICAL:
            raise DamagedError(f"broken PNG file: unknown critical chunk {kind!r}")
        if kind == b"IDAT":
            if pixels and kinds[-1] != kind:
                raise DamagedError("broken PNG file: its pixel data is not in one piece")
            pixels.append(content)
        kinds.append(kind)
    if kinds[0] != b"IHDR" or kinds.count(b"IHDR") > 1 or kinds.count(b"PLTE") > 1:
        raise DamagedError("broken PNG file: a header or palette out of place")
    if not pixels:
        raise DamagedError("broken PNG file: no pixel data")
    rows, flawless = _rows(b"".join(pixels), *_sizes(data))
    usual = data[24] == 8 and data[25] in (0, 2, 6) and not data[28]
    return rows, usual and flawless and set(kinds) <= _HARMLESS


def _check_jpeg2000(data: bytes) -> None:
    with readable():
        imagecodecs.jpeg2k_decode(data)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield type and content of each chunk of a PNG up to IEND; their checksums are right."""
    at, kind = len(PNG_MAGIC), b""
    while kind != b"IEND":
        end = at + 12 + int.from_bytes(data[at : at + 4])
        if end > len(data):
            raise DamagedError("truncated PNG file")
        kind = data[at + 4 : at + 8]
        if crc32(memoryview(data)[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end]):
            raise DamagedError(f"broken PNG file: wrong checksum of chunk {kind!r}")
        yield kind, data[at + 8 : end - 4]
        at = end


def _sizes(data: bytes) -> tuple[list[tuple[int, int]], int]:
    """Return rows and bytes a row (with the filter byte) of each pass of a PNG, and their sum of bytes."""
    width, height, depth, colour, packing, filtering, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    known = depth in _DEPTHS.get(colour, ()) and not packing and not filtering and interlaced < 2
    if data[8:12] != b"\0\0\0\x0d" or not known or not 0 < width < 1 << 31 or not 0 < height < 1 << 31:
        raise DamagedError("broken PNG file: a header that means nothing")
    check_size(height, width, 2 * depth * _CHANNELS[colour] / 8)
    passes = []
    for top, left, down, across in _PASSES if interlaced else ((0, 0, 1, 1),):
        rows, columns = -(-(height - top) // down), -(-(width - left) // across)
        if rows > 0 and columns > 0:
            passes.append((rows, 1 + (columns * depth * _CHANNELS[colour] + 7) // 8))
    return passes, sum(rows * stride for rows, stride in passes)


def _rows(packed: bytes, passes: list[tuple[int, int]], size: int) -> tuple[bytes, bool]:
    """Inflate a PNG's pixel data, and say whether they are its rows and nothing else. Raises `ValueError` where they do not hold
    its rows, each with a filter that exists.
    """
    flawless = True
    try:
        raw = bytes(imagecodecs.deflate_decode(packed, out=size))  # by libdeflate, in half the time
    except imagecodecs.DeflateError:
        flawless = False
        try:
            stream = zlib.decompressobj()
            raw = stream.decompress(packed, size)  # forgives bytes behind the last row, as libpng does
        except zlib.error as error:
            raise DamagedError(f"broken PNG file: {error}") from error
        if len(stream.unconsumed_tail) > _SMALL:
            raise DamagedError("broken PNG file: far more pixel data than its rows") from None
    if len(raw) < size:
        raise DamagedError("truncated PNG file: its rows are fewer than its header says")
    at = 0
    for rows, stride in passes:
        if np.frombuffer(raw, np.uint8, rows * stride, at)[::stride].max() > _FILTERS:
            raise DamagedError("broken PNG file: a row with an unknown filter")
        at += rows * stride
    return raw, flawless
