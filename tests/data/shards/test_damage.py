"""Damage of a tar file, its index and its checksums: which of them is accused, and in which words."""

import hashlib
import os
from pathlib import Path

import pytest
import wds2idx
from hypothesis import given
from hypothesis import strategies as st

from medsass.data.shards import damage as problems_module
from medsass.data.shards.verify import verify
from tests.support.damaged import FIRST, SECOND, damage, edit, harmed, members, places
from tests.support.effort import examples

INDEX, CHECKSUMS = "train-000000.idx", "train-000000.crc"


def test_the_line_that_is_printed(broken: Path) -> None:
    held = members(broken / FIRST)
    one = next(each for each in held if each.name == "train_0003.jpg")
    damage(broken / FIRST, {one.offset: 1})
    keys = harmed(held, one.offset)
    assert "train_0003" in keys
    assert [str(problem) for problem in verify(broken)] == [
        f"{FIRST}: is damaged: samples {', '.join(keys)}; "
        "copy it again from where it came, or make the shards anew: medsass shard SOURCE OUT --overwrite"
    ]


def test_bytes_that_became_zero_do_not_accuse_the_index(broken: Path) -> None:
    data = bytearray((broken / FIRST).read_bytes())
    keys = harmed(members(broken / FIRST), *range(8192, 20_480))
    data[8192:20_480] = bytes(12_288)
    (broken / FIRST).write_bytes(data)
    assert places(verify(broken)) == [(FIRST, keys)]


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
    assert problem.text.startswith("fits its checksums, but not the SHA-256 in the manifest")


def test_a_manifest_that_says_another_index(broken: Path) -> None:
    edit(broken, lambda table: table["splits"]["val"]["shards"][0].update(index="0" * 64))
    (problem,) = verify(broken)
    assert problem.file == "manifest.json"
    assert problem.text == "says another SHA-256 of the index of val-000000.tar, which is what the tar file says"


def test_a_tar_that_was_written_wrong_is_to_be_made_anew(broken: Path) -> None:
    path = broken / "val-000000.tar"
    end = members(path)[-1].end
    damage(path, {end: 1})
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    edit(broken, lambda table: table["splits"]["val"]["shards"][0].update(sha256=sha256))
    (problem,) = verify(broken)
    assert problem.text == f"has the right SHA-256, but byte {end} starts no member of a tar file"
    assert problem.remedy.startswith("make the shards anew")


@given(st.data())
@examples(30)
def test_a_damaged_index_is_found(whole: Path, data: st.DataObject) -> None:
    path = whole / INDEX
    before = path.read_bytes()
    offset, bits = data.draw(st.integers(0, len(before) - 1)), data.draw(st.integers(1, 255))
    try:
        damage(path, {offset: bits})
        (problem,) = verify(whole)
    finally:
        path.write_bytes(before)
    assert (problem.file, problem.samples) == (INDEX, ())
    assert problem.text == "is not what the tar file says"
    assert problem.remedy.endswith("wds2idx train-000000.tar train-000000.idx")


def test_what_the_remedy_of_an_index_writes_is_right(broken: Path) -> None:
    with wds2idx.IndexCreator(str(broken / FIRST), str(broken / INDEX), verbose=False) as creator:
        creator.create_index()
    assert verify(broken) == []


@pytest.mark.parametrize("cut", [0, 4, 100])
def test_a_cut_or_longer_index(cut: int, broken: Path) -> None:
    path = broken / INDEX
    text = path.read_bytes()
    for changed in (text[:cut], text + b"more\n"):
        path.write_bytes(changed)
        (problem,) = verify(broken)
        assert (problem.file, problem.text) == (INDEX, "is not what the tar file says")


@given(st.data())
@examples(30)
def test_damaged_checksums_are_found_and_the_tar_is_not_accused(whole: Path, data: st.DataObject) -> None:
    path = whole / CHECKSUMS
    before = path.read_bytes()
    offset, bits = data.draw(st.integers(0, len(before) - 1)), data.draw(st.integers(1, 255))
    try:
        damage(path, {offset: bits})
        (problem,) = verify(whole)
    finally:
        path.write_bytes(before)
    assert (problem.file, problem.samples) == (CHECKSUMS, ())
    assert problem.text == "holds other checksums than those of the tar file, which is intact"


def test_cut_and_longer_checksums(broken: Path) -> None:
    path = broken / CHECKSUMS
    data = path.read_bytes()
    for changed in (data[:-3], b"", data + b"x"):
        path.write_bytes(changed)
        assert places(verify(broken)) == [(CHECKSUMS, ())]


def test_tar_index_and_checksums_damaged_at_once(broken: Path) -> None:
    good, sums, second = (broken / FIRST).read_bytes(), (broken / CHECKSUMS).read_bytes(), members(broken / SECOND)
    damage(broken / FIRST, {20_000: 4})
    damage(broken / INDEX, {300: 1})
    (broken / CHECKSUMS).write_bytes(sums[:-1])
    damage(broken / SECOND, {512: 1, 513: 2})
    found = verify(broken)
    assert [problem.file for problem in found] == [FIRST, CHECKSUMS, SECOND]
    assert found[-1].samples == harmed(second, 512)
    (broken / CHECKSUMS).write_bytes(sums)
    damage(broken / CHECKSUMS, {9: 1})
    assert [problem.file for problem in verify(broken)] == [FIRST, SECOND]
    (broken / FIRST).write_bytes(good)  # now the index and the checksums can be told to be wrong
    assert [problem.file for problem in verify(broken)] == [INDEX, CHECKSUMS, SECOND]


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines[:6],
        lambda lines: [*lines[:1], lines[2], *lines[2:]],
        lambda lines: [lines[0], "png 512\n"],
        lambda _: [],
    ],
)
def test_a_wrong_index_beside_a_damaged_tar_harms_no_other_sample(change: object, broken: Path) -> None:
    keys = harmed(members(broken / FIRST), 40_000)
    damage(broken / FIRST, {40_000: 4})
    path = broken / INDEX
    path.write_text("".join(change(path.read_text().splitlines(keepends=True))))  # type: ignore[operator]
    (problem,) = verify(broken)
    assert problem.file == FIRST
    assert problem.samples in (keys, ())


def test_without_checksums_a_damaged_tar_is_still_found(broken: Path) -> None:
    (broken / CHECKSUMS).unlink()
    damage(broken / FIRST, {20_000: 4})
    first, second = verify(broken)
    assert (first.file, first.samples) == (FIRST, ())
    assert first.text == "is damaged (which samples are damaged cannot be told without an intact train-000000.crc)"
    assert (second.file, second.text) == (CHECKSUMS, "is missing")


def test_without_an_index_samples_behind_a_damaged_header_are_unknown(broken: Path) -> None:
    held = members(broken / FIRST)
    offset = next(one.offset for one in held if one.key == "train_0009") - 500
    (broken / INDEX).unlink()
    damage(broken / FIRST, {1000: 1, offset: 1})
    first, second = verify(broken)
    assert first.file == FIRST
    assert "train_0009" not in first.samples
    assert set(harmed(held, 1000)) <= set(first.samples)
    assert "(which other samples are damaged cannot be told without an intact train-000000.idx)" in first.text
    assert (second.file, second.text) == (INDEX, "is missing")


def test_a_damaged_tar_with_cut_checksums_names_no_sample(broken: Path) -> None:
    damage(broken / FIRST, {20_000: 4})
    sums = (broken / CHECKSUMS).read_bytes()
    (broken / CHECKSUMS).write_bytes(sums[:-4])
    first, second = verify(broken)
    assert first.text == "is damaged (which samples are damaged cannot be told without an intact train-000000.crc)"
    assert (second.file, second.text) == (CHECKSUMS, f"has {len(sums) - 4} bytes, should have {len(sums)}")


@pytest.mark.parametrize("suffix", [".tar", ".idx", ".crc"])
def test_missing_files_are_all_named(suffix: str, broken: Path) -> None:
    for stem in ("train-000000", "val-000000"):
        (broken / stem).with_suffix(suffix).unlink()
    found = verify(broken)
    assert [(problem.file, problem.text) for problem in found] == [
        (f"train-000000{suffix}", "is missing"),
        (f"val-000000{suffix}", "is missing"),
    ]


def test_a_file_far_longer_than_it_should_be_is_not_read_to_its_end(
    broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(problems_module, "_SPARE", 1 << 20)
    os.truncate(broken / FIRST, 1 << 40)
    (problem,) = verify(broken)
    assert problem.file == FIRST
    assert f"is {1 << 40} bytes long" in problem.text
