"""Verify against damage of which kind, file and byte are known."""

import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import wds2idx
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medsass.data import manifest
from medsass.data.manifest import Manifest, Split
from medsass.data.tar import Member, ShardWriter
from medsass.data.verify import Problem, verify

SPLITS = {"train": 60, "val": 9}
MAX_BYTES = 81_920
FIRST, SECOND = "train-000000.tar", "train-000001.tar"


def image(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (16 + seed % 7, 24, 3), np.uint8)
    return cv2.imencode(".png" if seed % 3 else ".jpg", pixels)[1].tobytes()


def sample(key: str, seed: int) -> tuple[dict[str, bytes], dict[str, Any]]:
    meta: dict[str, Any] = {"key": key, "width": 24, "height": 16 + seed % 7, "class": ["a", "b", None][seed % 3]}
    content = {"png" if seed % 3 else "jpg": image(seed)}
    if seed % 4:
        mask = np.zeros((meta["height"], 24), np.uint8)
        mask[: seed % 16] = 255
        content["mask.png"] = cv2.imencode(".png", mask)[1].tobytes()
        meta["mask_coverage"] = round(float((mask > 0).mean()), 6)
    content["json"] = json.dumps(meta, sort_keys=True).encode()
    return content, meta


def build(folder: Path, change: Callable[[str, dict[str, bytes]], dict[str, bytes]] | None = None) -> None:
    """A dataset of two splits. The manifest counts what `sample` says, whatever `change` makes of it."""
    splits = {}
    for name, count in SPLITS.items():
        writer, shards, metas, formats = ShardWriter(folder, name, MAX_BYTES), [], [], []
        for seed in range(count):
            content, meta = sample(f"{name}_{seed:04d}", seed)
            shards.append(writer.add(meta["key"], change(meta["key"], content) if change else content))
            metas.append(meta)
            formats.append(next(iter(content)))
        shards.append(writer.close())
        sizes = [f"{meta['width']}x{meta['height']}" for meta in metas]
        labels = [meta["class"] for meta in metas if meta["class"]]
        covers = [meta["mask_coverage"] for meta in metas if "mask_coverage" in meta]
        splits[name] = Split(
            [shard for shard in shards if shard], count, len(covers), {x: labels.count(x) for x in labels},
            round(sum(covers) / len(covers), 6), {x: sizes.count(x) for x in sizes},
            {x: formats.count(x) for x in formats},
        )  # fmt: skip
    (folder / "rejected.jsonl").write_text('{"file": "a"}\n{"file": "b"}\n')
    Manifest({"polarity": "bright"}, splits, rejected=2).save(folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An intact dataset. Read it, never change it."""
    folder = tmp_path_factory.mktemp("whole")
    build(folder)
    return folder


@pytest.fixture
def broken(whole: Path, tmp_path: Path) -> Path:
    """A copy of it, to be broken."""
    return Path(shutil.copytree(whole, tmp_path / "shards"))


def members(path: Path) -> list[Member]:
    """By DALI's own index writer."""
    with tempfile.TemporaryDirectory() as folder, wds2idx.IndexCreator(path, f"{folder}/idx", verbose=False) as creator:
        return [Member(name, offset, size) for offset, name, size in creator._get_data_tar()]


def damage(path: Path, changes: dict[int, int]) -> None:
    """Turn these bits of these bytes."""
    data = bytearray(path.read_bytes())
    for offset, bits in changes.items():
        data[offset] ^= bits
    path.write_bytes(data)


def edit(folder: Path, change: Callable[[Any], Any]) -> None:
    """Change the manifest."""
    path = folder / "manifest.json"
    table = json.loads(path.read_text())
    change(table)
    path.write_text(json.dumps(table))


def places(problems: list[Problem]) -> list[tuple[str, int | None]]:
    return [(problem.file, problem.offset) for problem in problems]


def test_an_intact_dataset_has_no_problem(whole: Path) -> None:
    assert len(list(whole.glob("train-*.tar"))) > 2
    assert verify(whole) == []


def test_progress_counts_the_bytes_of_the_tar_files(whole: Path) -> None:
    calls: list[tuple[int, int]] = []
    verify(whole, lambda done, total: calls.append((done, total)))
    total = sum(path.stat().st_size for path in whole.glob("*.tar"))
    assert calls[-1] == (total, total)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


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
        (problem,) = verify(whole)
    finally:
        path.write_bytes(before)
    assert (problem.file, problem.offset) == (FIRST, offset)
    assert f"is wrong: 0x{before[offset] ^ bits:02x}, should be 0x{before[offset]:02x}" in problem.text
    holder = next((each for each in held if each.offset - 512 <= offset < each.end), None)
    place = f"(sample {holder.name.split('.')[0]}, " if holder else "(behind the last sample)"
    assert f"byte {offset} {place}" in problem.text
    assert not holder or f"{holder.name})" in problem.text
    assert "copy it again" in problem.remedy


def test_the_line_that_is_printed(broken: Path) -> None:
    one = next(each for each in members(broken / FIRST) if each.name == "train_0003.jpg")
    value = (broken / FIRST).read_bytes()[one.offset]
    damage(broken / FIRST, {one.offset: 1})
    assert [str(problem) for problem in verify(broken)] == [
        f"{FIRST}: byte {one.offset} (sample train_0003, train_0003.jpg) is wrong: 0x{value ^ 1:02x}, should be "
        f"0x{value:02x}; copy it again from where it came, or make the shards anew: medsass shard SOURCE OUT --overwrite"
    ]


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
        (problem,) = verify(whole)
    finally:
        path.write_bytes(before)
    assert (problem.file, problem.offset) == (FIRST, start)
    assert problem.text.startswith(f"wrong within bytes {start} to {start + 4095} (sample")
    assert "more" not in problem.text


def test_a_long_damage_names_its_first_block_and_its_end(broken: Path) -> None:
    damage(broken / FIRST, dict.fromkeys(range(9000, 30_000), 0x55))
    (problem,) = verify(broken)
    assert problem.offset == 8192
    assert "within bytes 8192 to 12287 (sample" in problem.text
    assert problem.text.endswith("and more in 5 other blocks up to byte 32767")


def test_bytes_that_became_zero_do_not_accuse_the_index(broken: Path) -> None:
    data = bytearray((broken / FIRST).read_bytes())
    data[8192:20_480] = bytes(12_288)
    (broken / FIRST).write_bytes(data)
    assert places(verify(broken)) == [(FIRST, 8192)]


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


def test_files_that_the_manifest_does_not_name(broken: Path) -> None:
    for name in ("train-000099.tar", "train-000099.idx", "val-000000.tar.part", "README.md", ".DS_Store"):
        (broken / name).write_bytes(b"")
    assert [problem.file for problem in verify(broken)] == [
        "train-000099.idx", "train-000099.tar", "val-000000.tar.part"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda split: split.update(samples=61), "samples: says 61, the tar files hold 60"),
        (lambda split: split.update(masks=1), "masks: says 1, the tar files hold 45"),
        (lambda split: split["classes"].update(a=3), "classes, a: says 3, the tar files hold 20"),
        (lambda split: split["classes"].update(z=1), "classes, z: says 1, the tar files hold 0"),
        (lambda split: split["sizes"].pop("24x16"), "sizes, 24x16: says 0, the tar files hold 9"),
        (lambda split: split["formats"].update(jp2=4), "formats, jp2: says 4, the tar files hold 0"),
        (lambda split: split.update(mask_coverage=None), "mask_coverage: says None, the tar files hold 0."),
        (lambda split: split["shards"][0].update(samples=1), f"says that {FIRST} has 1 samples, but it has"),
        (lambda split: split["shards"][0].update(bytes=10_240), f"says that {FIRST} has 10240 bytes, but it has"),
    ],
)
def test_an_edited_count_of_the_manifest(change: Callable[[Any], Any], text: str, broken: Path) -> None:
    edit(broken, lambda table: change(table["splits"]["train"]))
    (problem,) = verify(broken)
    assert problem.file == "manifest.json"
    assert text in problem.text


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


def without(extension: str) -> Callable[[str, dict[str, bytes]], dict[str, bytes]]:
    def change(key: str, content: dict[str, bytes]) -> dict[str, bytes]:
        return {name: data for name, data in content.items() if key != "val_0001" or name != extension}

    return change


def with_json(**changes: object) -> Callable[[str, dict[str, bytes]], dict[str, bytes]]:
    def change(key: str, content: dict[str, bytes]) -> dict[str, bytes]:
        meta = {**json.loads(content["json"]), **changes}
        return {**content, "json": json.dumps(meta).encode()} if key == "val_0001" else content

    return change


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (without("png"), "sample val_0001 has no image"),
        (without("json"), "sample val_0001 has no .json"),
        (without("mask.png"), "sample val_0001 and its .json disagree on whether it has a mask"),
        (lambda key, content: {**content, "txt": b""} if key == "val_0001" else content, "val_0001.txt is not a file"),
        (lambda key, content: {**content, "jp2": b""} if key == "val_0001" else content, "val_0001 has 2 images"),
        (lambda key, content: {**content, "json": b"{"} if key == "val_0001" else content, "val_0001.json is not what"),
        (lambda key, content: {**content, "json": b"3"} if key == "val_0001" else content, "val_0001.json is not what"),
        (with_json(key="val_0002"), "val_0001.json is of another sample, 'val_0002'"),
        (with_json(width="wide"), "val_0001.json is not what medsass writes"),
    ],
)
def test_members_out_of_place(change: Callable[[str, Any], Any], text: str, tmp_path: Path) -> None:
    build(tmp_path, change)
    found = verify(tmp_path)
    assert text in found[0].text
    assert found[0].file == "val-000000.tar"
    assert "sample" in text or found[0].offset is not None


def test_a_key_that_occurs_twice(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, "train", 1 << 20)
    content, meta = sample("k", 5)
    for _ in range(2):
        writer.add("k", content)
    shard = writer.close()
    assert shard
    split = Split([shard], 2, 2, {}, meta["mask_coverage"], {"24x21": 2}, {"png": 2})
    Manifest({"polarity": "bright"}, {"train": split}).save(tmp_path)
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
@settings(deadline=None, max_examples=40)
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
    damage(broken / FIRST, {20_000: 4})
    place = upath.UPath("memory://medsass-verify/shards")
    for path in broken.iterdir():
        (place / path.name).parent.mkdir(parents=True, exist_ok=True)
        with (place / path.name).open("wb") as file:
            shutil.copyfileobj(io.BytesIO(path.read_bytes()), file)
    assert places(verify(place)) == [(FIRST, 20_000)]
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
    Manifest({"polarity": "bright"}, {"train": split}).save(tmp_path)
    assert verify(tmp_path) == []
    offset = shard.bytes // 2
    damage(tmp_path / shard.file, {offset: 8})
    assert places(verify(tmp_path)) == [(shard.file, offset)]
