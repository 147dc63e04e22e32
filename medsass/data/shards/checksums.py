"""CRC-32 of every block of a file: it says where a damaged file is wrong, and often which byte.

On the disk: one little-endian uint32 (`zlib.crc32`) for each block of 4096 bytes, the last block shorter.
"""

import struct
import zlib
from array import array

BLOCK = 4096  # bytes
_ENTRY = 4

# CRC-32 is linear: a byte changed by the bits `delta` changes the checksum of what ends there by _TABLE[delta], and
# each byte that follows takes that change `c` to _TABLE[c & 255] ^ (c >> 8). The top byte tells the entries apart.
_TABLE = [zlib.crc32(bytes([delta])) ^ zlib.crc32(b"\0") for delta in range(256)]
_DELTA = {change: delta for delta, change in enumerate(_TABLE) if delta}
_BY_TOP = {change >> 24: delta for delta, change in enumerate(_TABLE)}


class Checksums:
    """The checksums of a stream of bytes that comes in pieces of any length."""

    def __init__(self) -> None:
        self._done = array("I")
        self._crc = self._filled = 0

    def update(self, data: bytes) -> None:
        """Append `data` to the stream."""
        start = 0
        while start < len(data):
            piece = data[start : start + BLOCK - self._filled]
            self._crc = zlib.crc32(piece, self._crc)
            self._filled += len(piece)
            start += len(piece)
            if self._filled == BLOCK:
                self._done.append(self._crc)
                self._crc = self._filled = 0

    def pack(self) -> bytes:
        """What stands on the disk for the stream so far."""
        return pack([*self._done, self._crc] if self._filled else list(self._done))


def pack(checksums: list[int]) -> bytes:
    """Checksums of blocks as they stand on the disk."""
    return struct.pack(f"<{len(checksums)}I", *checksums)


def unpack(data: bytes) -> list[int]:
    """Checksums of blocks from their bytes on the disk; an incomplete one at the end is left out."""
    count = len(data) // _ENTRY
    return list(struct.unpack(f"<{count}I", data[: count * _ENTRY]))


def packed_size(size: int) -> int:
    """Bytes on the disk of the checksums of a file of `size` bytes."""
    return -(-size // BLOCK) * _ENTRY


def repairs(block: bytes, checksum: int) -> list[tuple[int, int]]:
    """Every single changed byte that explains why `block` differs from its `checksum`: its position in the block and
    the value it should have. Nearly always one, or none where more than one byte was changed.
    """
    change = zlib.crc32(block) ^ checksum
    found = []
    for position in reversed(range(len(block))):
        if change in _DELTA:
            found.append((position, block[position] ^ _DELTA[change]))
        last = _BY_TOP[change >> 24]
        change = (change ^ _TABLE[last]) << 8 | last
    return found[::-1]
