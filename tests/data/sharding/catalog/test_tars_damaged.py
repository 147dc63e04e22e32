"""Members of tar files, whole and damaged, against what was packed and what webdataset reads."""

import sqlite3
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from webdataset.tariterators import base_plus_ext, tar_file_expander

from medsass.data.sharding.catalog import tars
from medsass.data.sharding.catalog.listing import Listing
from tests.support.effort import examples
from tests.support.faults import command, reasons
from tests.support.packed import RNG, dataset, made, pack


def listed(tar: Path) -> tuple[dict[str, tuple[int, int]], dict[str, str]]:
    """Return place and size of the members of a tar file, and what is said of the file."""
    made = Listing(sqlite3.connect(":memory:"))
    made.fill(tar.parent, [tar.name])
    paths = list(made.match("**/*"))
    return {
        path.partition("/")[2]: (stat.place, stat.size) for path, stat in zip(paths, made.stats(paths), strict=True)
    }, made.damaged


@given(st.data())
@examples(60)
def test_of_a_damaged_tar_file_everything_before_the_damage_is_read(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("tar")
    sizes = data.draw(st.lists(st.integers(0, 1500), min_size=1, max_size=5))
    content = {f"{i}.{'x' * 30 * i}.jpg": RNG.bytes(size) for i, size in enumerate(sizes)}
    whole = pack(folder / "a.tar", content)
    members, damaged = listed(whole)
    raw = bytearray(whole.read_bytes())
    assert damaged == {}
    assert {name: bytes(raw[at : at + size]) for name, (at, size) in members.items()} == content
    ends = [at + size for at, size in members.values()]
    cut = data.draw(st.integers(0, max(ends)))
    whole.write_bytes(raw[:cut])
    found, damaged = listed(whole)
    assert list(damaged) == ["a.tar"]
    assert {name for name, (_, size) in found.items() if size >= 0} == {
        n for n, (at, size) in members.items() if at + size <= cut and at <= cut
    }
    broken = data.draw(st.sampled_from(sorted(members)))
    raw[members[broken][0] - 512 + 150] ^= 1  # in the checksum of its header
    whole.write_bytes(raw)
    found, damaged = listed(whole)
    assert found == {name: place for name, place in members.items() if place[0] < members[broken][0]}
    assert "byte" in damaged["a.tar"] or "not a tar file" in damaged["a.tar"]


def test_a_damaged_tar_file_is_listed_and_the_others_are_read(tmp_path: Path) -> None:
    dataset(tmp_path / "tars", {"train": 5, "val": 3})
    whole = tmp_path / "tars" / "train-000000.tar"
    with tarfile.open(whole) as opened:
        middle = opened.getmember("train003.jpg").offset_data + 10
    whole.write_bytes(whole.read_bytes()[:middle])
    (tmp_path / "tars" / "test-0.tar").write_bytes(b"no tar file" * 100)
    manifest = made(tmp_path / "tars", tmp_path / "out")
    assert {name: split.samples for name, split in manifest.splits.items()} == {"train": 3, "val": 3}
    found = reasons(tmp_path / "out")
    assert found["train-000000.tar"].startswith(f"cut off at byte {middle}, after 'train003.jpg'")
    assert found["train-000000.tar/train003.jpg"] == f"its tar file is cut off at byte {middle}"
    assert found["test-0.tar"].startswith("not a tar file")
    code, said = command(tmp_path / "tars", tmp_path / "strict", "--recipe", "webdataset", "--strict")
    assert (code, "tar: not a tar file" in said or "tar: cut off" in said) == (2, True)


def test_two_tar_files_in_one_are_noticed(tmp_path: Path) -> None:
    one, two = pack(tmp_path / "a.tar", {"a.jpg": b"1"}), pack(tmp_path / "b.tar", {"b.jpg": b"2"})
    one.write_bytes(one.read_bytes() + two.read_bytes())
    members, damaged = listed(one)
    assert set(members) == {"a.jpg"}
    assert damaged["a.tar"].startswith("it goes on after its end mark")


@given(st.lists(st.text("ab./_A", min_size=1, max_size=6), min_size=1, max_size=6, unique=True))
@examples(100)
def test_keys_and_extensions_are_the_librarys(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    """As webdataset groups the same tar file; medsass also skips hidden files, and needs no . and .. in names."""
    clean = [name for name in names if not any(step in ("", ".", "..") or step[0] == "." for step in name.split("/"))]
    tar = pack(tmp_path_factory.mktemp("tar") / "a.tar", dict.fromkeys(clean, b"1"))
    with tar.open("rb") as stream:
        expanded = list(tar_file_expander([{"url": "a.tar", "stream": stream}]))
    theirs = {(key, ext.lower()) for item in expanded if item for key, ext in [base_plus_ext(item["fname"])] if key}
    found = {member.name for member in tars.members(tar)}
    ours = {(key, ext) for name in found for key, ext in [base_plus_ext(name)] if key}
    assert ours == theirs
