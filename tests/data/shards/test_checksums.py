"""Block checksums against zlib, and the search for a changed byte against trying them all."""

import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medsass.data.shards import checksums

PIECES = st.lists(st.integers(0, 9000), max_size=8)


def expected(data: bytes) -> bytes:
    return b"".join(struct.pack("<I", zlib.crc32(data[at : at + 4096])) for at in range(0, len(data), 4096))


@given(PIECES, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=50)
def test_any_pieces_give_the_checksums_of_the_whole(lengths: list[int], random: object) -> None:
    pieces = [random.randbytes(length) for length in lengths]  # type: ignore[attr-defined]
    sums = checksums.Checksums()
    for piece in pieces:
        sums.update(piece)
    data = b"".join(pieces)
    assert sums.pack() == expected(data)
    assert checksums.packed_size(len(data)) == len(expected(data))


@given(st.binary(max_size=40))
def test_unpack_leaves_out_an_incomplete_one(data: bytes) -> None:
    whole = data[: len(data) // 4 * 4]
    assert checksums.unpack(data) == [value for (value,) in struct.iter_unpack("<I", whole)]
    assert checksums.pack(checksums.unpack(data)) == whole


@given(st.binary(min_size=1, max_size=4096), st.data())
@settings(deadline=None, max_examples=100)
def test_a_changed_byte_is_among_the_repairs_and_each_repair_fits(block: bytes, data: st.DataObject) -> None:
    at, bits = data.draw(st.integers(0, len(block) - 1)), data.draw(st.integers(1, 255))
    changed = bytearray(block)
    changed[at] ^= bits
    found = checksums.repairs(bytes(changed), zlib.crc32(block))
    assert (at, block[at]) in found
    for position, value in found:
        again = bytearray(changed)
        again[position] = value
        assert zlib.crc32(again) == zlib.crc32(block)


@pytest.mark.parametrize("changes", [{3: 1, 9: 1}, {0: 255, 31: 255}, {}])
def test_repairs_are_all_that_trying_every_byte_finds(changes: dict[int, int]) -> None:
    block = bytes(range(100, 132))
    changed = bytearray(block)
    for at, bits in changes.items():
        changed[at] ^= bits
    tried = []
    for at in range(len(block)):
        for value in set(range(256)) - {changed[at]}:
            again = bytearray(changed)
            again[at] = value
            if zlib.crc32(again) == zlib.crc32(block):
                tried.append((at, value))
    assert checksums.repairs(bytes(changed), zlib.crc32(block)) == tried
