"""The manifest: a round trip, and each way in which a shard folder can be broken."""

import hashlib
import json
import re
import shutil
import tarfile
from pathlib import Path

import pytest

from medsass.data.shards import manifest
from medsass.data.shards.manifest import Options


@pytest.fixture
def broken(shards: Path, tmp_path: Path) -> Path:
    """A copy of good shards, to be broken."""
    return Path(shutil.copytree(shards, tmp_path / "shards"))


def test_it_says_what_the_folder_holds(shards: Path) -> None:
    found = manifest.load(shards)
    tars = {path.name: path for path in shards.glob("*.tar")}
    assert {shard.file for split in found.splits.values() for shard in split.shards} == set(tars)
    for split in found.splits.values():
        assert split.samples == sum(shard.samples for shard in split.shards) == split.masks
        assert split.sizes == {"64x64": split.samples}
        for shard in split.shards:
            assert shard.sha256 == hashlib.sha256(tars[shard.file].read_bytes()).hexdigest()
    assert sum(split.samples for split in found.splits.values()) == 60


def test_save_and_load_give_the_same_bytes(shards: Path, broken: Path) -> None:
    manifest.load(broken).save(broken)
    assert (broken / "manifest.json").read_bytes() == (shards / "manifest.json").read_bytes()


def test_it_holds_no_absolute_path(shards: Path) -> None:
    text = (shards / "manifest.json").read_text("utf-8")
    assert str(shards) not in text
    assert "/tmp" not in text


def test_sha256_is_the_files_hash(shards: Path) -> None:
    expected = hashlib.sha256((shards / "manifest.json").read_bytes()).hexdigest()
    assert manifest.load(shards).sha256 == expected
    assert expected not in (shards / "manifest.json").read_text("utf-8")


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_missing_folder_or_manifest_names_the_command(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    with pytest.raises(FileNotFoundError, match="not a finished shard folder; make one with: medsass shard") as caught:
        manifest.load(folder)
    assert str(folder / "manifest.json") in str(caught.value)


@pytest.mark.parametrize("name", ["train-000000.tar", "train-000000.idx", "val-000000.idx"])
def test_missing_file_is_named(name: str, broken: Path) -> None:
    (broken / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name} is missing.*run medsass shard again with --overwrite"):
        manifest.load(broken)


@pytest.mark.parametrize("place", ["header", "image", "mask", "end"])
@pytest.mark.parametrize("number", [0, 2])
def test_truncated_tar_is_named_with_both_sizes_and_the_first_sample_that_is_cut(
    place: str, number: int, broken: Path
) -> None:
    path = broken / "train-000000.tar"
    whole = path.read_bytes()
    with tarfile.open(path) as opened:
        images = [item for item in opened if item.name.count(".") == 1 and item.name.endswith(".png")]
        mask = opened.getmember(images[number].name.replace(".png", ".mask.png"))
    image = images[number]
    size = {"header": image.offset + 9, "image": image.offset_data + 1, "mask": mask.offset_data + mask.size - 1,
            "end": images[number + 1].offset - 513}[place]  # fmt: skip
    path.write_bytes(whole[:size])
    with pytest.raises(ValueError, match="bytes") as error:
        manifest.load(broken)
    key = image.name.removesuffix(".png")
    assert str(error.value) == (
        f"{path}: {size} bytes, but the manifest says {len(whole)} (cut off at sample {key}); run: medsass verify {broken}"
    )


@pytest.mark.parametrize("index", [b"", b"v1.2 1\npng\n", b"v1.2 1\npng a b c\n", b"\xff"])
def test_truncated_tar_with_a_damaged_index_is_named_without_a_sample(index: bytes, broken: Path) -> None:
    path = broken / "train-000000.tar"
    whole = len(path.read_bytes())
    path.write_bytes(path.read_bytes()[:5000])
    path.with_suffix(".idx").write_bytes(index)
    with pytest.raises(ValueError, match=f"5000 bytes, but the manifest says {whole}; run: medsass verify {broken}$"):
        manifest.load(broken)


def test_surplus_bytes_are_no_cut(broken: Path) -> None:
    path = broken / "train-000000.tar"
    with path.open("ab") as file:
        file.write(b"more")
    with pytest.raises(ValueError, match=rf"but the manifest says \d+; run: medsass verify {broken}$"):
        manifest.load(broken)


@pytest.mark.parametrize(
    "text", ["", "not json", "[]", "3", "null", "{}", '{"format": 1}', '{"format": 1, "splits": []}',
             '{"format": 1, "splits": {"train": {"shards": [{"file": "a"}]}}, "recipe": {}}'],
)  # fmt: skip
def test_garbage_is_refused_with_the_remedy(text: str, broken: Path) -> None:
    (broken / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=r"manifest.json: not a medsass manifest .*; run medsass shard again"):
        manifest.load(broken)


@pytest.mark.parametrize(
    ("keys", "value", "reason"),
    [
        (("splits", "val", "samples"), "x", "'samples' in [splits.val] must be a whole number; got 'x'"),
        (("splits", "val", "sizes"), [], "'sizes' in [splits.val] must be a table; got []"),
        (("splits", "val", "shards", 0, "bytes"), -1, "'bytes' in [[splits.val.shards]] 1 must be at least 0; got -1"),
        (("splits", "val", "shards", 0, "file"), "../a.tar", "tar files of split 'val' must be val-000000.tar, .*; got '../a.tar'"),
        (("splits", "val", "shards", 0, "file"), "train-000000.tar", "tar files of split 'val' must be val-000000.tar, .*; got 'train-000000.tar'"),
        (("rejceted",), 3, "'rejceted' in the file is unknown: did you mean rejected? known: recipe, .*, format, seal"),
        (("splits", "val", "samples"), 99, "split 'val' says 99 samples, but its shards hold .*"),
        (("splits", "val", "shards"), [], "split 'val' says .* samples, but its shards hold 0"),
        (("splits", "new"), {"samples": 3}, "split 'new' says 3 samples, but its shards hold 0"),
        (("splits", "train", "shards", 0, "samples"), 1, "split 'train' says .* samples, but its shards hold .*"),
        (("splits", "val", "sizes", "1x1"), -1, "'1x1' in [splits.val.sizes] must be at least 0; got -1"),
        (("splits", "val", "formats", "bmp"), 1, "'bmp' in [splits.val.formats] must be one of jpg, png, jp2; got 'bmp'"),
        (("splits", "val", "mask_coverage"), 1.5, "'mask_coverage' in [splits.val] must be at most 1; got 1.5"),
        (("options", "depth"), 5, "'depth' in [options] must be one of 8, 16; got 5"),
        (("options", "tlie"), 5, "'tlie' in [options] is unknown: did you mean tile? known: .*"),
        (("recipe", "polarity"), "up", "'polarity' in [recipe] must be one of bright, dark, auto; got 'up'"),
        (("recipe", "refine"), 5, "'refine' in [recipe] must be text; got 5"),
        (("recipe",), {}, "'name' in [recipe] is missing; add it"),
        (("sha256",), "a", "'sha256' in the file is unknown: known: recipe, .*, format, seal"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named(keys: tuple[str | int, ...], value: object, reason: str, broken: Path) -> None:
    path = broken / "manifest.json"
    table = at = json.loads(path.read_text())
    for key in keys[:-1]:
        at = at[key]
    at[keys[-1]] = value
    path.write_text(json.dumps(table))
    pattern = ".*".join(re.escape(part) for part in reason.split(".*"))
    with pytest.raises(ValueError, match=rf"^{path}: not a medsass manifest \(.*{pattern}\); run medsass shard again$"):
        manifest.load(broken)


def test_a_manifest_of_an_older_version_has_defaults(broken: Path) -> None:
    path = broken / "manifest.json"
    table = json.loads(path.read_text())
    for name in ("options", "converted", "notes", "rejected"):
        del table[name]
    path.write_text(json.dumps(table))
    found = manifest.load(broken)
    assert (found.options, found.converted, found.notes, found.rejected) == (Options(), {}, [], 0)
    assert (found.options.depth, found.options.tile, found.options.range) == (8, 0, "minmax")


def test_a_manifest_is_written_as_it_was_read(shards: Path, tmp_path: Path) -> None:
    table = json.loads((shards / "manifest.json").read_text())
    table["recipe"] = {"of a later version": [1], **table["recipe"]}
    (tmp_path / "manifest.json").write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n")
    before = (tmp_path / "manifest.json").read_bytes()
    manifest.read(tmp_path).save(tmp_path)
    assert (tmp_path / "manifest.json").read_bytes() == before


def test_binary_garbage_is_refused(broken: Path) -> None:
    (broken / "manifest.json").write_bytes(b"\xff\x00\xfe")
    with pytest.raises(ValueError, match="not a medsass manifest"):
        manifest.load(broken)


def test_other_format_is_refused(broken: Path) -> None:
    path = broken / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    with pytest.raises(ValueError, match="of another medsass version"):
        manifest.load(broken)


def test_unknown_split_names_those_that_exist(shards: Path) -> None:
    with pytest.raises(ValueError, match=r"split 'trian'.* train, val, test"):
        manifest.load(shards).split("trian")


def test_a_manifest_without_its_format_is_refused(broken: Path) -> None:
    path = broken / "manifest.json"
    table = json.loads(path.read_text())
    del table["format"]
    path.write_text(json.dumps(table))
    with pytest.raises(ValueError, match=r"it does not say its format.*; run medsass shard again"):
        manifest.load(broken)


def test_a_folder_of_tar_files_without_a_manifest_is_answered_with_the_command(tmp_path: Path) -> None:
    (tmp_path / "train-000000.tar").touch()
    with pytest.raises(FileNotFoundError, match=rf"medsass shard '{tmp_path}/\*\.tar' OUT --recipe webdataset$"):
        manifest.read(tmp_path)


@pytest.mark.parametrize(
    ("splits", "said"), [({}, "it names no split, and so no image"), ({"train": {}}, "split 'train' holds no sample")]
)
def test_a_manifest_without_images_is_refused(splits: dict[str, object], said: str, tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    table = {"format": 2, "recipe": {"name": "x", "polarity": "dark"}, "splits": splits}
    with pytest.raises(ValueError, match=rf"^{path}: not a medsass manifest \({said}\)"):
        manifest.parse(json.dumps(table).encode(), path)
