"""Tar files of others as a source, written by webdataset and tarfile, and read back by webdataset."""

import io
import json
import sqlite3
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel
import numpy as np
import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from webdataset.tariterators import base_plus_ext, tar_file_expander

from medsass import files
from medsass.config import ShardConfig
from medsass.data.sharding import shard, tars
from medsass.data.sharding.listing import Listing
from medsass.data.shards.manifest import Manifest, load
from tests.support import faults
from tests.support.effort import examples
from tests.support.faults import command, contents, decoded, reasons, stored

RNG = np.random.default_rng(0)


def encoded(form: str, array: np.ndarray | None = None) -> bytes:
    """Return an image of 24 x 16 random pixels, or of `array`, as a file."""
    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (16, 24), np.uint8) if array is None else array).save(buffer, form)
    return buffer.getvalue()


def square(high: int = 255) -> np.ndarray:
    mask = np.zeros((16, 24), np.uint8)
    mask[4:9, 5:12] = high
    return mask


def pack(path: Path, content: Mapping[str, bytes] | Sequence[tuple[str, bytes]]) -> Path:
    """Write a tar file by tarfile, names as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as opened:
        for name, data in content.items() if isinstance(content, Mapping) else content:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            opened.addfile(info, io.BytesIO(data))
    return path


def dataset(folder: Path, splits: Mapping[str, int], masks: bool = True) -> dict[str, dict[str, bytes]]:
    """Write one tar file a split by webdataset's writer, and return the samples as webdataset reads them, by tar file and key."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in splits.items():
        with webdataset.TarWriter(str(folder / f"{split}-000000.tar")) as sink:
            for i in range(count):
                sample = {"__key__": f"{split}{i:03d}", "jpg": encoded("JPEG"), "cls": i % 2, "json": {"i": i}}
                sink.write(sample | ({"mask.png": encoded("PNG", square())} if masks else {}))
    read = webdataset.WebDataset(sorted(map(str, folder.glob("*.tar"))), shardshuffle=False, empty_check=False)
    return {f"{Path(sample['__url__']).name}/{sample['__key__']}": sample for sample in read}


def made(source: Path, out: Path, **options: object) -> Manifest:
    return shard.write(ShardConfig(source, out, **{"recipe": "webdataset", "workers": 1, **options}))  # type: ignore[arg-type]


def sources(out: Path) -> dict[str, str]:
    """Return the key of each image by its path in the source."""
    return {json.loads(sample["json"])["source"]: key for key, sample in stored(out).items()}


def test_samples_masks_classes_and_splits_are_webdatasets(tmp_path: Path) -> None:
    theirs = dataset(tmp_path / "tars", {"train": 6, "validation": 3, "test": 2})
    manifest = made(tmp_path / "tars", tmp_path / "out")
    assert {name: split.samples for name, split in manifest.splits.items()} == {"train": 6, "val": 3, "test": 2}
    assert all(split.masks == split.samples for split in manifest.splits.values())
    assert manifest.rejected == 0
    ours = stored(tmp_path / "out")
    assert len(ours) == len(theirs) == 11
    for sample in ours.values():
        meta = json.loads(sample["json"])
        other = theirs[meta["source"].removesuffix(".jpg")]
        assert sample["jpg"] == other["jpg"]
        np.testing.assert_array_equal(decoded(sample["mask.png"]), decoded(other["mask.png"]))
        assert meta["class"] == other["cls"].decode()


def test_a_tar_file_is_as_good_as_the_folder_that_it_holds(tmp_path: Path) -> None:
    """The same files, packed by GNU tar and in a folder of the tar file's name, become the same bytes."""
    for i in range(8):
        path = tmp_path / "folder" / "x.tar" / f"case{i % 3}" / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded("JPEG"))
        path.with_suffix(".mask.png").write_bytes(encoded("PNG", square(i + 1)))
    (tmp_path / "tars").mkdir()
    subprocess.run(["tar", "cf", "../../tars/x.tar", "."], cwd=tmp_path / "folder" / "x.tar", check=True)
    options = {"foreground": "nonzero", "size": 12, "tile": 0}
    made(tmp_path / "tars", tmp_path / "a", **options)
    mine = (
        '[[images]]\npath = "**/{key}.jpg"\nmasks = "**/{key}.mask.png"\n[splits]\ntrain = 0.7\nval = 0.1\ntest = 0.2\n'
    )
    (tmp_path / "my.toml").write_text('name = "webdataset"\n' + mine)
    made(tmp_path / "folder", tmp_path / "b", recipe=str(tmp_path / "my.toml"), **options)
    one, other = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert {name for name in one if one[name] != other[name]} == {"manifest.json"}  # which holds the recipe
    assert any(note.startswith("8 images are grouped by their names") for note in load(tmp_path / "a").notes)


def test_bytes_depend_neither_on_workers_nor_on_a_kill(tmp_path: Path) -> None:
    dataset(tmp_path / "tars", {"train": 20, "val": 4})
    source = tmp_path / "tars" / "*.tar"
    made(source, tmp_path / "one", max_shard_bytes=20_480)
    faults.interrupt(source, tmp_path / "two", images="", masks="", recipe="webdataset", workers=2)
    made(source, tmp_path / "two", max_shard_bytes=20_480, workers=2, resume=True)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert made(source, tmp_path / "two", max_shard_bytes=20_480, resume=True) == load(
        tmp_path / "one"
    )  # it was finished


def test_a_tar_file_that_changed_stops_a_resumed_run(tmp_path: Path) -> None:
    dataset(tmp_path / "tars", {"train": 20, "val": 4})
    faults.interrupt(tmp_path / "tars", tmp_path / "out", images="", masks="", recipe="webdataset", workers=1)
    dataset(tmp_path / "tars", {"val": 5})
    with pytest.raises(ValueError, match=r"tars has changed since the run was interrupted \(val-000000.tar/val"):
        made(tmp_path / "tars", tmp_path / "out", max_shard_bytes=20_480, resume=True)


@pytest.mark.parametrize(
    ("source", "train", "val"),
    [("t/*.tar", 4, 2), ("t/{train,val}-000000.tar", 4, 2), ("t/train-{000000..000000}.tar", 4, 0), ("t/val-000000.tar", 0, 2), ("{t,u}/*.tar", 4, 2), ("t", 4, 2)],
)  # fmt: skip
def test_source_is_a_pattern_a_file_or_a_folder(source: str, train: int, val: int, tmp_path: Path) -> None:
    dataset(tmp_path / "t", {"train": 4, "val": 2}, masks=False)
    for place in (tmp_path / source, files.location(str(tmp_path / source))):
        found, _ = shard.plan(ShardConfig(place, tmp_path / "out", recipe="webdataset"))
        assert sum(split.samples for split in found.splits.values()) == train + val
        if train and val:
            assert {name: split.samples for name, split in found.splits.items()} == {"train": train, "val": val}


def test_a_preferred_image_of_several_and_a_preferred_mask(tmp_path: Path) -> None:
    png, jpg, mask = encoded("PNG"), encoded("JPEG"), encoded("PNG", square())
    pack(tmp_path / "a.tar", {
        "1.png": png, "1.jpg": jpg, "1.seg.png": encoded("PNG"), "1.mask.png": mask, "1.label.txt": b"3",
        "2.depth.png": encoded("PNG"), "2.png": png, "2.SEG": mask, "2.cells.png": encoded("PNG"),
        "3.data": encoded("BMP", square(9)), "3.json": b"{}", "3.segmentation.png": mask, "3.cls": b"benign\n",
        "4.a.png": encoded("PNG"), "4.image.png": png, "4.labels.png": mask, "4.txt": b"no image",
        "d.e/5.PNG": png, "d.e/5.Mask.png": mask, "5.txt": b"a caption alone", "without": jpg,
    })  # fmt: skip
    made(tmp_path, tmp_path / "out", foreground="nonzero", near_duplicates=False, split="0.5,0.5")
    listed = reasons(tmp_path / "out")
    images = {path.partition("/")[2] for path in [*sources(tmp_path / "out"), *listed]}
    assert images == {"1.jpg", "2.png", "3.data", "4.image.png", "d.e/5.png"}
    assert all("the same image" in reason or "bytes" in reason for reason in listed.values())  # twins of 2.png
    for sample in stored(tmp_path / "out").values():
        np.testing.assert_array_equal(decoded(sample["mask.png"]) > 0, square() > 0)
    assert any("1 '.txt' files" in note for note in load(tmp_path / "out").notes)


def test_what_cannot_be_read_is_listed_by_tar_and_name(tmp_path: Path) -> None:
    """Also links, which lead nowhere, and a name that is there twice. Names that lead out of a folder are only names."""
    good = encoded("JPEG")
    with tarfile.open(pack(tmp_path / "tars/train-0.tar", {"a.jpg": good, "b.jpg": b"no image"}), "a") as opened:
        for name, kind in (("link.jpg", tarfile.SYMTYPE), ("hard.jpg", tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/hostname"
            opened.addfile(info)
        for name in (
            "twice.jpg",
            "twice.JPG",
            "/tmp/absolute.jpg",
            "../../up.jpg",
            "._a.jpg",
            "__MACOSX/a.jpg",
            "__meta__/a.jpg",
        ):
            info = tarfile.TarInfo(name)
            data = encoded("JPEG")
            info.size = len(data)
            opened.addfile(info, io.BytesIO(data))
    pack(tmp_path / "tars/val-0.tar", {"c.jpg": encoded("JPEG"), "d.jpg": good, "e.jpg": good, "e.mask.png": b"x"})
    made(tmp_path / "tars", tmp_path / "out")
    assert set(sources(tmp_path / "out")) == {
        "train-0.tar/a.jpg", "train-0.tar/tmp/absolute.jpg", "train-0.tar/up.jpg", "val-0.tar/c.jpg",
    }  # fmt: skip
    found = reasons(tmp_path / "out")
    assert set(found) == {f"train-0.tar/{name}.jpg" for name in ("b", "link", "hard", "twice")} | {
        "val-0.tar/d.jpg", "val-0.tar/e.jpg",
    }  # fmt: skip
    assert found["train-0.tar/link.jpg"] == found["train-0.tar/hard.jpg"]
    assert found["train-0.tar/link.jpg"].startswith(
        "a link in a tar file, which is not followed; pack it with tar --deref"
    )
    assert found["train-0.tar/twice.jpg"].startswith("there are two files of this name")
    assert "train/" in found["val-0.tar/d.jpg"]  # its twin in the other split
    assert found["val-0.tar/e.jpg"].startswith("mask e.mask.png: ")
    assert command(tmp_path / "tars", tmp_path / "strict", "--recipe", "webdataset", "--strict")[0] == 2


def test_levels_of_masks_are_those_of_all_tar_files(tmp_path: Path) -> None:
    for i in range(3):
        pack(tmp_path / f"tars/{i}.tar", {f"{i}.jpg": encoded("JPEG"), f"{i}.mask.png": encoded("PNG", square(i + 1))})
    code, said = command(tmp_path / "tars", tmp_path / "out", "--recipe", "webdataset")
    assert (code, "--foreground" in said) == (2, True)
    assert made(tmp_path / "tars", tmp_path / "out", foreground="2,3").splits["train"].masks == 1


def test_volumes_and_arrays_are_read_from_a_copy_that_goes(tmp_path: Path) -> None:
    volume = RNG.integers(0, 255, (12, 10, 3)).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([-1, -1, 1, 1])), tmp_path / "v.nii.gz")
    nibabel.save(nibabel.Nifti1Image((volume > 99).astype(np.uint8), np.diag([-1, -1, 1, 1])), tmp_path / "m.nii.gz")
    np.save(tmp_path / "x.npy", np.arange(160, dtype=np.uint8).reshape(10, 16))
    pack(tmp_path / "tars/a.tar", {"v.nii.gz": (tmp_path / "v.nii.gz").read_bytes(), "v.mask.nii.gz": (tmp_path / "m.nii.gz").read_bytes(), "x.npy": (tmp_path / "x.npy").read_bytes(), "t.tif": encoded("TIFF")})  # fmt: skip
    made(tmp_path / "tars", tmp_path / "out", workers=2)
    ours = stored(tmp_path / "out")
    assert set(ours) == {"t", "v-f000000", "v-f000001", "v-f000002", "x"}
    for i in range(3):
        np.testing.assert_array_equal(decoded(ours[f"v-f{i:06d}"]["mask.png"]) > 0, volume[..., i].T > 99)
    assert not list(tmp_path.rglob("fetched"))


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


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("t", [], "its tar files are read with --recipe webdataset"),
        ("t/*.tar", [], "tar files are read with --recipe webdataset"),
        ("t/a.tar", [], "tar files are read with --recipe webdataset"),
        ("t/{a,none}.tar", ["--recipe", "webdataset"], "t/none.tar: no such tar file"),
        ("t/x*.tar", ["--recipe", "webdataset"], "t: no tar file matches 'x*.tar'"),
        ("nothing", ["--recipe", "webdataset"], "nothing: no such folder"),
        ("packed", ["--recipe", "webdataset"], "packed/a.tar.gz: a compressed tar file cannot be read by place; unpack it with gunzip"),
        ("empty", ["--recipe", "webdataset"], "no image matches"),
        ("named", ["--recipe", "webdataset", "--split", "0.5,0.5"], "its tar files name their splits, such as 'train-0.tar'; drop --split"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_source_is_said_in_one_line(
    source: str, options: list[str], message: str, tmp_path: Path
) -> None:
    pack(tmp_path / "t/a.tar", {"a.jpg": encoded("JPEG")})
    pack(tmp_path / "empty/a.tar", {"a.txt": b"text"})
    for name in ("train-0.tar", "val-0.tar"):
        pack(tmp_path / "named" / name, {"a.jpg": encoded("JPEG")})
    (tmp_path / "packed").mkdir()
    with tarfile.open(tmp_path / "packed/a.tar.gz", "w:gz") as opened:
        opened.add(tmp_path / "t/a.tar", "a.jpg")
    code, said = command(tmp_path / source, tmp_path / "out", *options)
    assert code == 2
    assert message in said
    assert not (tmp_path / "out.part").exists()


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


def test_tar_files_at_an_address(tmp_path: Path) -> None:
    pytest.importorskip("upath")
    dataset(tmp_path / "tars", {"train": 4, "val": 2})
    made(tmp_path / "tars" / "{train,val}-000000.tar", tmp_path / "local")
    remote = files.location("memory://webdataset")
    for path in (tmp_path / "tars").iterdir():
        remote.mkdir(parents=True, exist_ok=True)
        (remote / path.name).write_bytes(path.read_bytes())
    for source in ("*.tar", "{train,val}-000000.tar"):
        found, _ = shard.plan(
            ShardConfig(files.location(f"memory://webdataset/{source}"), tmp_path / "o", recipe="webdataset")
        )
        assert {name: split.samples for name, split in found.splits.items()} == {"train": 4, "val": 2}
