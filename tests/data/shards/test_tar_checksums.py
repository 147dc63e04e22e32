"""Block checksums against zlib."""

import struct
import zlib

from hypothesis import given
from hypothesis import strategies as st

from medsass.data.shards.tar import Checksums
from tests.support.effort import examples


def expected(data: bytes) -> bytes:
    return b"".join(struct.pack("<I", zlib.crc32(data[at : at + 4096])) for at in range(0, len(data), 4096))


@given(st.lists(st.integers(0, 9000), max_size=8), st.randoms(use_true_random=False))
@examples(50)
def test_any_pieces_give_the_checksums_of_the_whole(lengths: list[int], random: object) -> None:
    pieces = [random.randbytes(length) for length in lengths]  # type: ignore[attr-defined]
    sums = Checksums()
    for piece in pieces:
        sums.update(piece)
    data = b"".join(pieces)
    assert sums.pack() == expected(data)
