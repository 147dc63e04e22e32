"""Bytes of a tar file that are wrong, missing or too many: the tar file and the samples that they harm are named."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medsass.data.shards.tar import Member
from medsass.data.shards.verify import verify
from tests.support.damaged import FIRST, SECOND, damage, harmed, members, places
from tests.support.effort import examples


@pytest.fixture(scope="module")
def held(whole: Path) -> list[Member]:
    """The members of the first tar file."""
    return members(whole / FIRST)


@given(st.data())
@examples(60)
def test_one_changed_byte_names_the_samples_of_its_block(whole: Path, held: list[Member], data: st.DataObject) -> None:
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
    try:
        damage(path, {offset: data.draw(st.integers(1, 255))})
        (problem,) = verify(whole)
    finally:
        path.write_bytes(before)
    keys = harmed(held, offset)
    assert (problem.file, problem.samples) == (FIRST, keys)
    holder = next((each.key for each in held if each.offset - 512 <= offset < each.end), None)
    assert holder is None or holder in keys
    named = f"is damaged: sample{'s' * (len(keys) > 1)} {', '.join(keys)}"
    assert problem.text == (named if keys else "is damaged behind its last sample")
    assert problem.remedy.startswith("copy it again")


def test_damage_in_several_blocks_names_the_samples_of_each(held: list[Member], broken: Path) -> None:
    changes = {5: 1, 5000: 255, 30_000: 7, 70_001: 16}
    damage(broken / FIRST, changes)
    assert places(verify(broken)) == [(FIRST, harmed(held, *changes))]


@given(st.lists(st.integers(0, 4095), min_size=2, max_size=40, unique=True), st.integers(1, 255), st.integers(0, 15))
@examples(25)
def test_several_bytes_of_a_block_name_the_samples_of_the_block(
    whole: Path, held: list[Member], inside: list[int], bits: int, block: int
) -> None:
    path, start = whole / FIRST, block * 4096
    before = path.read_bytes()
    try:
        damage(path, {start + offset: bits for offset in inside})
        (problem,) = verify(whole)
    finally:
        path.write_bytes(before)
    # two bytes of a file's name can keep its header's sum: then that name is read as another sample
    assert [key for key in problem.samples if key.isascii() and key.startswith("train_0")]
    assert set(harmed(held, start)) <= set(problem.samples)
    assert problem.file == FIRST


def test_a_long_damage_names_the_first_samples_and_counts_the_others(held: list[Member], broken: Path) -> None:
    damage(broken / FIRST, dict.fromkeys(range(9000, 60_000), 0x55))
    keys = harmed(held, *range(9000, 60_000))
    (problem,) = verify(broken)
    assert problem.samples == keys
    assert problem.text == f"is damaged: samples {', '.join(keys[:8])} and {len(keys) - 8} more"


@pytest.mark.parametrize("left", [0, 1, 511, 4096, 30_000, 81_919])
def test_a_truncated_tar_names_the_samples_that_are_cut_off(left: int, broken: Path) -> None:
    path = broken / SECOND
    size, found = path.stat().st_size, members(path)
    left = min(left, size - 1)
    os.truncate(path, left)
    (problem,) = verify(broken)
    assert problem.file == SECOND
    assert problem.samples == tuple(dict.fromkeys(each.key for each in found if each.end > left))
    assert problem.text.startswith(f"is cut off after {left} of {size} bytes")


def test_a_truncated_tar_with_a_wrong_byte_names_the_samples_of_both(held: list[Member], broken: Path) -> None:
    os.truncate(broken / FIRST, 30_000)
    damage(broken / FIRST, {1000: 1})
    cut = tuple(dict.fromkeys(each.key for each in held if each.end > 30_000))
    assert places(verify(broken)) == [(FIRST, (*harmed(held, 1000), *cut))]


@pytest.mark.parametrize("surplus", [b"\0", b"x", bytes(10_240), b"y" * 5000])
def test_a_longer_tar_harms_no_sample(surplus: bytes, broken: Path) -> None:
    path = broken / FIRST
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + surplus)
    (problem,) = verify(broken)
    assert (problem.file, problem.samples) == (FIRST, ())
    assert problem.text == f"is {size + len(surplus)} bytes long, {len(surplus)} more than the manifest says"


def test_an_inserted_byte_names_the_samples_from_there_on(held: list[Member], broken: Path) -> None:
    data = (broken / FIRST).read_bytes()
    (broken / FIRST).write_bytes(data[:10_000] + b"!" + data[10_000:])
    (problem,) = verify(broken)
    assert problem.samples == tuple(dict.fromkeys(each.key for each in held if each.end > 8192))
    assert problem.text.startswith(f"is {len(data) + 1} bytes long, 1 more than the manifest says: samples ")
