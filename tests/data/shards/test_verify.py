"""Verify a folder as a whole: its manifest, its counts, and files that do not belong to it."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from medsass.config import ShardConfig
from medsass.data.sharding import shard
from medsass.data.shards import manifest
from medsass.data.shards.contents import Contents
from medsass.data.shards.manifest import Manifest, Split
from medsass.data.shards.tar import ShardWriter
from medsass.data.shards.verify import verify
from tests.support.damaged import FIRST, SECOND, damage, edit, harmed, members, places, sample
from tests.support.effort import examples


def test_an_intact_dataset_has_no_problem(whole: Path) -> None:
    assert len(list(whole.glob("train-*.tar"))) > 2
    assert verify(whole) == []


def test_progress_counts_the_bytes_of_the_tar_files(whole: Path) -> None:
    calls: list[tuple[int, int]] = []
    verify(whole, lambda done, total: calls.append((done, total)))
    total = sum(path.stat().st_size for path in whole.glob("*.tar"))
    assert calls[-1] == (total, total)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_files_that_the_manifest_does_not_name(broken: Path) -> None:
    for name in ("train-000099.tar", "train-000099.idx", "val-000000.tar.part", "README.md", ".DS_Store"):
        (broken / name).write_bytes(b"")
    assert [problem.file for problem in verify(broken)] == [
        "train-000099.idx", "train-000099.tar", "val-000000.tar.part"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda split: split.update(samples=61), "split 'train' says 61 samples, but its shards hold 60"),
        (lambda split: split.update(masks=1), "masks: says 1, the tar files hold 45"),
        (lambda split: split["classes"].update(a=3), "classes, a: says 3, the tar files hold 20"),
        (lambda split: split["classes"].update(z=1), "classes, z: says 1, the tar files hold 0"),
        (lambda split: split["sizes"].pop("24x16"), "sizes, 24x16: says 0, the tar files hold 9"),
        (lambda split: split["formats"].update(jp2=4), "formats, jp2: says 4, the tar files hold 0"),
        (lambda split: split.update(mask_coverage=None), "mask_coverage: says None, the tar files hold 0."),
        (lambda split: split["shards"][0].update(samples=0), "split 'train' says 60 samples, but its shards hold "),
        (lambda split: split["shards"][0].update(bytes=10_240), f"says that {FIRST} has 10240 bytes, but it has"),
    ],
)
def test_an_edited_count_of_the_manifest(change: Callable[[Any], Any], text: str, broken: Path) -> None:
    edit(broken, lambda table: change(table["splits"]["train"]))
    (problem,) = verify(broken)
    assert problem.file == "manifest.json"
    assert text in problem.text


def test_a_sample_that_the_manifest_counts_in_another_tar_file(broken: Path) -> None:
    def shift(table: Any) -> None:
        one, other = table["splits"]["train"]["shards"][:2]
        one["samples"], other["samples"] = one["samples"] - 1, other["samples"] + 1

    edit(broken, shift)
    first, second = verify(broken)
    assert first.file == second.file == "manifest.json"
    assert f"says that {FIRST} has " in first.text
    assert f"says that {SECOND} has " in second.text


def test_coverage_is_checked_to_its_last_digit(broken: Path) -> None:
    stated = manifest.load(broken).splits["val"].mask_coverage
    assert stated is not None
    edit(broken, lambda table: table["splits"]["val"].update(mask_coverage=round(stated + 1e-6, 6)))
    (problem,) = verify(broken)
    assert f"split val: mask_coverage: says {round(stated + 1e-6, 6)}, the tar files hold {stated}" in problem.text


def test_counts_of_rejected_files(broken: Path) -> None:
    (broken / "rejected.jsonl").write_text('{"file": "a"}\n')
    assert [str(problem).split(";")[0] for problem in verify(broken)] == [
        "rejected.jsonl: has 1 lines, but the manifest says 2"
    ]
    (broken / "rejected.jsonl").unlink()
    assert verify(broken)[0].text == "is missing, but the manifest says that it has 2 lines"


def test_a_key_that_occurs_twice(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, "train", 1 << 20)
    content, meta = sample("k", 5)
    for _ in range(2):
        writer.add("k", content)
    shard = writer.close()
    assert shard
    split = Split([shard], 2, 2, {}, meta["mask_coverage"], {"24x21": 2}, {"png": 2})
    Manifest({"name": "some", "polarity": "bright"}, {"train": split}).save(tmp_path)
    assert [problem.text for problem in verify(tmp_path)] == ["sample k is also in train-000000.tar"]


@pytest.mark.parametrize("text", ["", "not json", "[]", '{"format": 1}', '{"format": 2, "splits": {}}'])
def test_a_manifest_that_is_none(text: str, broken: Path) -> None:
    (broken / "manifest.json").write_text(text)
    (problem,) = verify(broken)
    assert problem.file == "manifest.json"
    assert problem.text.startswith("not a medsass manifest (")
    assert problem.remedy == "run medsass shard again"


def test_no_manifest(tmp_path: Path) -> None:
    (problem,) = verify(tmp_path / "nowhere")
    assert "not a finished shard folder" in problem.text


@given(st.data())
@examples(40)
def test_no_damage_of_the_manifest_raises(whole: Path, data: st.DataObject) -> None:
    path = whole / "manifest.json"
    before = path.read_bytes()
    value: Any = data.draw(st.sampled_from([None, -1, 1.5, "x", [], {}, True, "../val-000000.tar"]))
    table: Any = json.loads(before)
    at, shard = data.draw(st.sampled_from([
        (table, None), (table["splits"], None), (table["splits"]["val"], None), (table["splits"]["val"]["shards"][0], 1)
    ]))  # fmt: skip
    name = data.draw(st.sampled_from(sorted(at)))
    at[name] = value
    try:
        path.write_text(json.dumps(table))
        found = verify(whole)
    finally:
        path.write_bytes(before)
    assert all(problem.text and problem.remedy for problem in found)
    assert found or not shard


def test_an_address_is_read_like_a_folder(broken: Path) -> None:
    upath = pytest.importorskip("upath")
    keys = harmed(members(broken / FIRST), 20_000)
    damage(broken / FIRST, {20_000: 4})
    place = upath.UPath("memory://medsass-verify/shards")
    for path in broken.iterdir():
        (place / path.name).parent.mkdir(parents=True, exist_ok=True)
        with (place / path.name).open("wb") as file:
            shutil.copyfileobj(io.BytesIO(path.read_bytes()), file)
    assert places(verify(place)) == [(FIRST, keys)]
    assert [str(problem) for problem in verify(place)] == [str(problem) for problem in verify(broken)]


def test_real_images(real_data: Path, tmp_path: Path) -> None:
    images = sorted((real_data / "dsb2018").rglob("*.png"))[:12]
    writer = ShardWriter(tmp_path, "train", 1 << 30)
    sizes: dict[str, int] = {}
    for number, path in enumerate(images):
        width, height = Image.open(path).size
        meta = {"key": f"s{number}", "width": width, "height": height, "class": None}
        writer.add(f"s{number}", {"png": path.read_bytes(), "json": json.dumps(meta).encode()})
        sizes[f"{width}x{height}"] = sizes.get(f"{width}x{height}", 0) + 1
    shard = writer.close()
    assert shard
    split = Split([shard], len(images), 0, {}, None, sizes, {"png": len(images)})
    Manifest({"name": "some", "polarity": "bright"}, {"train": split}).save(tmp_path)
    assert verify(tmp_path) == []
    offset = shard.bytes // 2
    keys = harmed(members(tmp_path / shard.file), offset)
    damage(tmp_path / shard.file, {offset: 8})
    assert places(verify(tmp_path)) == [(shard.file, keys)]
    assert keys


def test_a_seal_spares_a_look_into_tar_files_and_whatever_does_not_fit_breaks_it(
    broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    update = Contents.update
    monkeypatch.setattr(Contents, "update", lambda self, data: (looked.append(len(data)), update(self, data)))
    assert (verify(broken), looked) == ([], [])
    tars = sum(path.stat().st_size for path in broken.glob("*.tar"))
    assert verify(broken, trusting=False) == []
    assert sum(looked) == tars
    looked.clear()
    text = (broken / manifest.NAME).read_text()
    (broken / manifest.NAME).write_text(text.replace('"name": "some"', '"name": "same"'))
    assert verify(broken) == []
    assert sum(looked) == tars  # nobody vouches for it now
    (broken / manifest.NAME).write_text(text)
    looked.clear()
    damage(broken / FIRST, {700: 1})
    assert [problem.file for problem in verify(broken)] == [FIRST]
    assert sum(looked) == (broken / FIRST).stat().st_size  # that one alone
    looked.clear()
    (broken / "val-000000.idx").write_text("v1.2 0\n")
    assert {problem.file for problem in verify(broken)} == {FIRST, "val-000000.idx"}
    assert sum(looked) == sum((broken / name).stat().st_size for name in (FIRST, "val-000000.tar"))


def test_a_dataset_that_was_just_written_is_sealed_and_one_by_hand_is_not(tmp_path: Path) -> None:
    Image.new("L", (9, 9)).save(tmp_path / "a.png")
    stated = shard.write(ShardConfig(tmp_path, tmp_path / "out", images="*.png"))
    held = manifest.load(tmp_path / "out")
    assert held.seal == stated.seal
    assert manifest.is_sealed(tmp_path / "out", held)
    held.save(tmp_path / "out")
    assert manifest.is_sealed(tmp_path / "out", manifest.load(tmp_path / "out"))
    held.notes.append("more")
    held.save(tmp_path / "out")
    assert not manifest.is_sealed(tmp_path / "out", manifest.load(tmp_path / "out"))
    held.seal = ""
    held.save(tmp_path / "out")
    assert not manifest.is_sealed(tmp_path / "out", manifest.load(tmp_path / "out"))
