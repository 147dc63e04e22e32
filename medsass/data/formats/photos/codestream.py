"""The size that a compressed stream says it has: of a file, or of a strip, tile or frame within another file, whose header may say
less.
"""

import struct

from medsass import budget
from medsass.data.formats.damage import DamagedError
from medsass.data.formats.image import MOST_PIXELS
from medsass.data.formats.kinds import PNG_MAGIC
from medsass.data.formats.photos import jpeg

_SIZ = b"\xff\x4f\xff\x51"  # the markers that begin a JPEG 2000 codestream
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by a PNG's colour type
_HEAD = 1 << 16  # bytes of a JPEG 2000 file in which its codestream begins


def size(data: bytes) -> tuple[int, int, int] | None:
    """Return height, width and number of channels of a JPEG, JPEG-LS, JPEG 2000, PNG or WebP stream by its header, else None."""
    if data.startswith(jpeg.SOI):
        for marker, start, _ in jpeg.segments(data):
            if marker in jpeg.FRAMES and len(data) >= start + 6:
                return (*struct.unpack_from(">HH", data, start + 1), data[start + 5])
            if marker == jpeg.SOS:
                break
        return None
    if data.startswith(PNG_MAGIC) and len(data) >= 26:
        width, height = struct.unpack_from(">II", data, 16)
        return height, width, _CHANNELS.get(data[25], 1)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP" and len(data) >= 30:
        return (*_webp(data), 4)
    at = data.find(_SIZ, 0, _HEAD)
    if at < 0 or len(data) < at + 42:
        return None
    right, bottom, left, top = struct.unpack_from(">IIII", data, at + 8)
    return bottom - top, right - left, int.from_bytes(data[at + 40 : at + 42])


def _webp(data: bytes) -> tuple[int, int]:
    if data[12:16] == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    elif data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    return height, width


def check(data: bytes, height: int, width: int, channels: int) -> None:
    """Refuse a stream within a file that has more pixels, or channels, than the `height` x `width` of `channels` that the file says,
    by more than what some writers add to fill tiles.

    Raises:
        DamagedError: for such a stream.
        ExceededError, ScarceError: as `budget.check`.
    """
    if not (found := size(data)):
        return
    if found[0] * found[1] * found[2] > min(4 * height * width * max(channels, 3) + (1 << 20), 4 * MOST_PIXELS):
        raise DamagedError(
            f"damaged: {found[1]}x{found[0]} pixels of {found[2]} channels are packed where its header says {width}x{height}"
        )
    budget.check(2.0 * found[0] * found[1] * found[2], f"{found[1]}x{found[0]} pixels of {found[2]} channels")
