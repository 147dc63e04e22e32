"""Tar files of others as a source, written by webdataset and tarfile, and read back by webdataset."""

import io
import json
import subprocess
import tarfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
from pydicom.data import get_testdata_file

from medsass import files
from medsass.config import ShardConfig
from medsass.data.sharding import shard
from medsass.data.shards.manifest import load
from tests.support import faults, servers
from tests.support.faults import command, contents, decoded, reasons, stored
from tests.support.packed import RNG, dataset, encoded, made, pack, sources, square


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
        "1.png": png, "1.jpg": jpg, "1.seg.png": encoded("PNG"), "1.mask.png": mask, "1.label.txt": b"3", "1.cls": b"\xff\0",
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
    notes = load(tmp_path / "out").notes
    assert any("1 '.txt' files" in note for note in notes)
    assert any(note.startswith("1 '.cls' files hold no class") and "'a.tar/1.cls'" in note for note in notes)
    assert {name for split in load(tmp_path / "out").splits.values() for name in split.classes} <= {"benign"}


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
    assert found["val-0.tar/e.jpg"].startswith("mask val-0.tar/e.mask.png: ")
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


def test_a_patients_dicom_files_in_tar_files_stay_in_one_split(tmp_path: Path) -> None:
    reference = Path(get_testdata_file("CT_small.dcm")).read_bytes()  # its PatientID is 1CT1
    content = {f"{i}.dcm": reference.replace(b"1CT1", b"%dCT1" % (i % 4)) for i in range(24)}
    assert len({*content.values()}) == 4
    pack(tmp_path / "tars/x.tar", content)
    made(tmp_path / "tars", tmp_path / "out", split="0.5,0.25,0.25")
    where = {
        (json.loads(sample["json"])["group"], json.loads(sample["json"])["source"])
        for sample in stored(tmp_path / "out").values()
    }
    assert len({group for group, _ in where}) == 4
    assert {group.partition("-")[0] for group, _ in where} == {"patient"}


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


def test_a_server_that_sends_no_parts_is_named_with_the_remedy(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    dataset(tmp_path / "tars", {"train": 2}, masks=False)
    with servers.server("http.server", "PORT", "--bind", "127.0.0.1", "--directory", str(tmp_path / "tars")) as port:
        source = f"http://127.0.0.1:{port}/train-{{000000..000000}}.tar"
        code, said = command(source, tmp_path / "out", "--recipe", "webdataset")
    assert code == 2
    assert "its server does not send parts of a file; download the tar files first" in said


def test_members_that_are_not_read_are_counted_and_masks_are_no_images(tmp_path: Path) -> None:
    mask = encoded("PNG", square(3))
    beside = {
        f"{i}.{kind}": encoded(kind.upper()) if kind == "jpeg" else mask for i in range(3) for kind in ("jpeg", "png")
    }
    dotted = {
        f"1.2.{i}{end}": mask if end == ".mask.png" else encoded("PNG")
        for i in range(3)
        for end in (".png", ".mask.png")
    }
    exact = {f"{i}.{kind}": mask if kind == "png" else encoded("TIFF") for i in range(3) for kind in ("png", "tif")}
    for name, members in (("beside", beside), ("dotted", dotted), ("exact", exact)):
        (tmp_path / name).mkdir()
        pack(tmp_path / name / "a.tar", members)
        manifest = made(tmp_path / name, tmp_path / f"{name}-out")
        assert not any(source.endswith("mask.png") for source in sources(tmp_path / f"{name}-out"))
        note = next(
            note
            for note in manifest.notes
            if "are beside the one of their sample, whose masks they may be, and are not read" in note
        )
        assert note.startswith(f"{2 if name == 'dotted' else 3} images are beside")
