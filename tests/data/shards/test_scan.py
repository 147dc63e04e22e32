"""Bytes of a tar file that are wrong, missing or too many, of which each is known."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medsass.data.shards.tar import Member
from medsass.data.shards.verify import verify
from tests.support.damaged import FIRST, SECOND, damage, members, places


@pytest.fixture(scope="module")
def held(whole: Path) -> list[Member]:
    """The members of the first tar file."""
    return members(whole / FIRST)


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_one_changed_byte_is_found_exactly(whole: Path, held: list[Member], data: st.DataObject) -> None:
    path = whole / FIRST
    before = path.read_bytes()
    region = data.draw(st.sampled_from(["header", "data", "padding", "anywhere", "end"]))
    one = data.draw(st.sampled_from(held))
    low, high = {
        "header": (one.offset - 512, one.offset),
        "data": (one.offset, one.offset + one.size),
        "padding": (one.offset + one.size, one.end),
        "anywhere": (0, len(before)),
        "end": (held[-1].end, len(before)),
    }[region]
    offset = data.draw(st.integers(low, max(low, high - 1)))
    bits = data.draw(st.integers(1, 255))
    try:
        damage(path, {offset: bits})
        problem, *others = verify(whole)
    finally:
        path.write_bytes(before)
    # Two bytes of a file's name can keep its header's sum: then the index seems to be of other samples.
    assert {other.file for other in others} <= {FIRST.replace(".tar", ".idx")}
    assert (problem.file, problem.offset) == (FIRST, offset)
    assert f"is wrong: 0x{before[offset] ^ bits:02x}, should be 0x{before[offset]:02x}" in problem.text
    holder = next((each for each in held if each.offset - 512 <= offset < each.end), None)
    place = f"(sample {holder.name.split('.')[0]}, " if holder else "(behind the last sample)"
    assert f"byte {offset} {place}" in problem.text
    assert not holder or f"{holder.name})" in problem.text
    assert "copy it again" in problem.remedy


def test_single_bytes_in_several_blocks_are_all_found(broken: Path) -> None:
    changes = {5: 1, 5000: 255, 30_000: 7, 70_001: 16}
    damage(broken / FIRST, changes)
    assert places(verify(broken)) == [(FIRST, offset) for offset in changes]


@given(st.lists(st.integers(0, 4095), min_size=2, max_size=40, unique=True), st.integers(1, 255), st.integers(0, 15))
@settings(deadline=None, max_examples=25)
def test_several_bytes_of_a_block_name_the_block(whole: Path, inside: list[int], bits: int, block: int) -> None:
    path, start = whole / FIRST, block * 4096
    before = path.read_bytes()
    try:
        damage(path, {start + offset: bits for offset in inside})
        problem, *others = verify(whole)
    finally:
        path.write_bytes(before)
    # Two bytes of a file's name can keep its header's sum: then the index seems to be of other samples.
    assert {other.file for other in others} <= {FIRST.replace(".tar", ".idx")}
    assert (problem.file, problem.offset) == (FIRST, start)
    assert problem.text.startswith(f"wrong within bytes {start} to {start + 4095} (sample")
    assert "more" not in problem.text


def test_a_long_damage_names_its_first_block_and_its_end(broken: Path) -> None:
    damage(broken / FIRST, dict.fromkeys(range(9000, 30_000), 0x55))
    (problem,) = verify(broken)
    assert problem.offset == 8192
    assert "within bytes 8192 to 12287 (sample" in problem.text
    assert problem.text.endswith("and more in 5 other blocks up to byte 32767")


@pytest.mark.parametrize("left", [0, 1, 511, 4096, 30_000, 81_919])
def test_a_truncated_tar_names_the_first_missing_byte(left: int, broken: Path) -> None:
    path = broken / SECOND
    size = path.stat().st_size
    left = min(left, size - 1)
    os.truncate(path, left)
    (problem,) = verify(broken)
    assert (problem.file, problem.offset) == (SECOND, left)
    assert f"byte {left} (" in problem.text
    assert f"is the first of {size - left} missing ones" in problem.text


def test_a_truncated_tar_with_a_wrong_byte_has_two_problems(broken: Path) -> None:
    os.truncate(broken / FIRST, 30_000)
    damage(broken / FIRST, {1000: 1})
    assert places(verify(broken)) == [(FIRST, 1000), (FIRST, 30_000)]


@pytest.mark.parametrize("surplus", [b"\0", b"x", bytes(10_240), b"y" * 5000])
def test_a_longer_tar_names_the_first_surplus_byte(surplus: bytes, broken: Path) -> None:
    path = broken / FIRST
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + surplus)
    (problem,) = verify(broken)
    assert (problem.file, problem.offset) == (FIRST, size)
    assert f"is the first of {len(surplus)} surplus ones" in problem.text


def test_an_inserted_byte_names_its_block_and_the_surplus(broken: Path) -> None:
    data = (broken / FIRST).read_bytes()
    (broken / FIRST).write_bytes(data[:10_000] + b"!" + data[10_000:])
    assert places(verify(broken)) == [(FIRST, 8192), (FIRST, len(data))]
