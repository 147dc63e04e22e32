"""Block checksums against zlib."""

import struct
import zlib

from hypothesis import given, settings
from hypothesis import strategies as st

from medsass.data.shards import checksums


def expected(data: bytes) -> bytes:
    return b"".join(struct.pack("<I", zlib.crc32(data[at : at + 4096])) for at in range(0, len(data), 4096))


@given(st.lists(st.integers(0, 9000), max_size=8), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=50)
def test_any_pieces_give_the_checksums_of_the_whole(lengths: list[int], random: object) -> None:
    pieces = [random.randbytes(length) for length in lengths]  # type: ignore[attr-defined]
    sums = checksums.Checksums()
    for piece in pieces:
        sums.update(piece)
    data = b"".join(pieces)
    assert sums.pack() == expected(data)
    assert checksums.packed_size(len(data)) == len(expected(data))


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_differing_compares_whole_checksums_as_far_as_both_go(one: bytes, other: bytes) -> None:
    pairs = zip(
        struct.iter_unpack("<I", one[: len(one) // 4 * 4]),
        struct.iter_unpack("<I", other[: len(other) // 4 * 4]),
        strict=False,
    )
    assert checksums.differing(one, other).tolist() == [a != b for a, b in pairs]
