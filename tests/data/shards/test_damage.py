"""Damage of a tar file, its index and its checksums: which of them is accused, and in which words."""

from pathlib import Path

import pytest
import wds2idx
from hypothesis import given, settings
from hypothesis import strategies as st

from medsass.data.shards.verify import verify
from tests.support.damaged import FIRST, SECOND, damage, edit, members, places


def test_the_line_that_is_printed(broken: Path) -> None:
    one = next(each for each in members(broken / FIRST) if each.name == "train_0003.jpg")
    value = (broken / FIRST).read_bytes()[one.offset]
    damage(broken / FIRST, {one.offset: 1})
    assert [str(problem) for problem in verify(broken)] == [
        f"{FIRST}: byte {one.offset} (sample train_0003, train_0003.jpg) is wrong: 0x{value ^ 1:02x}, should be "
        f"0x{value:02x}; copy it again from where it came, or make the shards anew: medsass shard SOURCE OUT --overwrite"
    ]


def test_bytes_that_became_zero_do_not_accuse_the_index(broken: Path) -> None:
    data = bytearray((broken / FIRST).read_bytes())
    data[8192:20_480] = bytes(12_288)
    (broken / FIRST).write_bytes(data)
    assert places(verify(broken)) == [(FIRST, 8192)]


def test_swapped_tars_are_told_by_name(broken: Path) -> None:
    one, other = (broken / FIRST).read_bytes(), (broken / SECOND).read_bytes()
    (broken / FIRST).write_bytes(other)
    (broken / SECOND).write_bytes(one)
    first, second = verify(broken)
    assert (first.file, second.file) == (FIRST, SECOND)
    assert f"holds what belongs into {SECOND}" in first.text
    assert f"holds what belongs into {FIRST}" in second.text


def test_a_tar_of_another_run_with_its_own_checksums(broken: Path) -> None:
    edit(broken, lambda table: table["splits"]["val"]["shards"][0].update(sha256="0" * 64))
    (problem,) = verify(broken)
    assert problem.file == "val-000000.tar"
    assert "SHA-256 is not the manifest's, though every block fits the checksums" in problem.text


@given(st.data())
@settings(deadline=None, max_examples=30)
def test_a_damaged_index_is_found_at_its_byte(whole: Path, data: st.DataObject) -> None:
    path = whole / "train-000000.idx"
    before = path.read_bytes()
    offset, bits = data.draw(st.integers(0, len(before) - 1)), data.draw(st.integers(1, 255))
    try:
        damage(path, {offset: bits})
        (problem,) = verify(whole)
    finally:
        path.write_bytes(before)
    assert (problem.file, problem.offset) == (path.name, offset)
    line = before.count(b"\n", 0, offset) + 1
    assert f"(line {line})" in problem.text
    assert problem.remedy.endswith("wds2idx train-000000.tar train-000000.idx")


def test_what_the_remedy_of_an_index_writes_is_right(broken: Path) -> None:
    with wds2idx.IndexCreator(str(broken / FIRST), str(broken / "train-000000.idx"), verbose=False) as creator:
        creator.create_index()
    assert verify(broken) == []


@pytest.mark.parametrize("cut", [0, 4, 100])
def test_a_cut_or_longer_index(cut: int, broken: Path) -> None:
    path = broken / "train-000000.idx"
    text = path.read_bytes()
    path.write_bytes(text[:cut])
    assert places(verify(broken)) == [(path.name, cut)]
    path.write_bytes(text + b"more\n")
    assert places(verify(broken)) == [(path.name, len(text))]


@given(st.data())
@settings(deadline=None, max_examples=30)
def test_damaged_checksums_are_found_and_the_tar_is_not_accused(whole: Path, data: st.DataObject) -> None:
    path = whole / "train-000000.crc"
    before = path.read_bytes()
    offset, bits = data.draw(st.integers(0, len(before) - 1)), data.draw(st.integers(1, 255))
    try:
        damage(path, {offset: bits})
        (problem,) = verify(whole)
    finally:
        path.write_bytes(before)
    assert (problem.file, problem.offset) == (path.name, offset)
    assert f"0x{before[offset] ^ bits:02x}, should be 0x{before[offset]:02x}" in problem.text


def test_cut_and_longer_checksums(broken: Path) -> None:
    path = broken / "train-000000.crc"
    data = path.read_bytes()
    for changed, offset in ((data[:-3], len(data) - 3), (b"", 0), (data + b"x", len(data))):
        path.write_bytes(changed)
        assert places(verify(broken)) == [(path.name, offset)]


def test_tar_index_and_checksums_damaged_at_once(broken: Path) -> None:
    damage(broken / FIRST, {20_000: 4})
    damage(broken / "train-000000.idx", {300: 1})
    damage(broken / "train-000000.crc", {9: 1})
    damage(broken / SECOND, {512: 1, 513: 2})
    assert places(verify(broken)) == [
        (FIRST, 20_000), ("train-000000.idx", 300), ("train-000000.crc", 9), (SECOND, 0)
    ]  # fmt: skip


def test_without_checksums_a_damaged_tar_is_still_found(broken: Path) -> None:
    (broken / "train-000000.crc").unlink()
    damage(broken / FIRST, {20_000: 4})
    first, second = verify(broken)
    assert (first.file, first.offset) == (FIRST, None)
    assert "which bytes are wrong is unknown without its .crc file" in first.text
    assert (second.file, second.text) == ("train-000000.crc", "is missing")


@pytest.mark.parametrize("suffix", [".tar", ".idx", ".crc"])
def test_missing_files_are_all_named(suffix: str, broken: Path) -> None:
    for stem in ("train-000000", "val-000000"):
        (broken / stem).with_suffix(suffix).unlink()
    found = verify(broken)
    assert [(problem.file, problem.text) for problem in found] == [
        (f"train-000000{suffix}", "is missing"),
        (f"val-000000{suffix}", "is missing"),
    ]
