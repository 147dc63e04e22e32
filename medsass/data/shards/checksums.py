"""CRC-32 of every block of a file: they tell which blocks of a damaged file are wrong.

On disk: one little-endian uint32 (`zlib.crc32`) for each block of 4096 bytes; the last block may be shorter.
"""

import zlib

import numpy as np
from numpy.typing import NDArray

BLOCK = 4096  # bytes
_ENTRY = 4  # bytes of one checksum


class Checksums:
    """The checksums of a stream of bytes that arrives in pieces of any length."""

    def __init__(self) -> None:
        self._done = bytearray()
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
                self._done += self._crc.to_bytes(_ENTRY, "little")
                self._crc = self._filled = 0

    def pack(self) -> bytes:
        """Return the checksums of the stream so far, as they stand on disk."""
        return bytes(self._done) + (self._crc.to_bytes(_ENTRY, "little") if self._filled else b"")


def packed_size(size: int) -> int:
    """Return how many bytes the checksums of a file of `size` bytes take on disk."""
    return -(-size // BLOCK) * _ENTRY


def differing(one: bytes, other: bytes) -> NDArray[np.bool_]:
    """Compare checksums on disk: (blocks,) bool, True where they differ, as long as the shorter of the two."""
    count = min(len(one), len(other)) // _ENTRY
    unequal: NDArray[np.bool_] = np.frombuffer(one, "<u4", count) != np.frombuffer(other, "<u4", count)
    return unequal
