"""`medsass shard` on odd names, bad files and copies: stored once under a safe key, or left out with a reason."""

import os
import re
import shutil
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from medsass.data.formats.damage import REMEDY
from medsass.data.sharding import shard
from tests.support.faults import by_source, config, decoded, one_split, reasons, stored


def save(folder: Path, name: str | bytes, gray: int) -> None:
    """Save an 8 x 8 image of one gray level as PNG under any name."""
    folder.mkdir(parents=True, exist_ok=True)
    _, data = cv2.imencode(".png", np.full((8, 8), gray, np.uint8))
    with open(os.path.join(os.fsencode(folder), os.fsencode(name)), "wb") as file:  # noqa: PTH118, PTH123 - a name in bytes
        file.write(data.tobytes())


NAMES = ["a b.png", "it's.png", 'say "x".png', "é日本.png", "a.b.c.png", "new\nline.png", "-rf.png", "a..b.png", "~.png",
         "$(touch x).png", "%00.png", "C:\\x.png", "n" * 251 + ".png", "m" * 251 + ".png", "png.png", "a_b.png",
         "*.png", "[a].png", "a-y000000-x000000.png", "x.PNG", "COM1.png"]  # fmt: skip


def test_odd_names_are_stored_once_under_safe_keys(tmp_path: Path) -> None:
    folder = tmp_path / "in" / "source"
    for i, name in enumerate(NAMES):
        save(folder, name, 2 * i + 1)
    save(tmp_path / "in" / "far", "away.png", 201)
    save(tmp_path / "in", "alone.png", 203)
    (folder / "link.png").symlink_to(tmp_path / "in" / "alone.png")
    (folder / "linked").symlink_to(tmp_path / "in" / "far")
    save(folder, "..png", 211)  # hidden, and passed over
    for bad in (b"\xff\xfe.png", b"\xff\xff.png"):
        save(folder, bad, 221)
    os.mkfifo(folder / "pipe.png")
    before = {path: path.lstat().st_mtime_ns for path in (tmp_path / "in").rglob("*")}
    shard.write(config(folder, tmp_path / "out", images="**/*", masks="", follow_links=True))
    keys = by_source(tmp_path / "out")
    samples = stored(tmp_path / "out")
    assert {name: int(decoded(samples[key]["png"])[0, 0]) for name, key in keys.items()} == {
        **{name: 2 * i + 1 for i, name in enumerate(NAMES)}, "link.png": 203, "linked/away.png": 201}  # fmt: skip
    assert len(set(keys.values())) == len(keys)
    for path in (tmp_path / "out").glob("*.tar"):
        with tarfile.open(path) as opened:
            assert all(re.fullmatch(r"[A-Za-z0-9_-]+\.(png|json)", name) for name in opened.getnames())
            assert all(len(name) <= 100 for name in opened.getnames())
    assert reasons(tmp_path / "out") == dict.fromkeys(
        ("\\udcff\\udcfe.png", "\\udcff\\udcff.png"), "its name is not UTF-8; rename it"
    )
    assert before == {path: path.lstat().st_mtime_ns for path in (tmp_path / "in").rglob("*")}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_a_frame_and_an_image_of_its_name_get_different_keys(tmp_path: Path) -> None:
    pages = [Image.new("L", (8, 8), gray) for gray in (10, 20)]
    (tmp_path / "source").mkdir()
    pages[0].save(tmp_path / "source" / "a.tif", save_all=True, append_images=pages[1:])
    save(tmp_path / "source", "a-f000001.png", 30)
    shard.write(config(tmp_path / "source", tmp_path / "out", recipe=one_split(tmp_path), images="", masks=""))
    values = [decoded(one["png"])[0, 0] for one in stored(tmp_path / "out").values()]
    assert sorted(values) == [10, 20, 30]


def good(folder: Path) -> None:
    """Save one image of noise in every format that can be written here."""
    folder.mkdir()
    array = np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)
    for suffix in ("jpg", "png", "tif", "bmp", "webp", "jp2"):
        Image.fromarray(array).save(folder / f"{suffix}.{suffix}")
    np.save(folder / "npy.npy", array)
    np.savez(folder / "npz.npz", array)
    pydicom = pytest.importorskip("pydicom")
    header = pydicom.Dataset()
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = "1.2.3"
    header.Rows, header.Columns, header.SamplesPerPixel, header.PixelRepresentation = 40, 40, 1, 0
    header.BitsAllocated = header.BitsStored = 8
    header.HighBit, header.PhotometricInterpretation, header.PixelData = 7, "MONOCHROME2", array.tobytes()
    header.save_as(folder / "dcm.dcm", enforce_file_format=True)


def test_truncated_files_of_every_format_are_left_out_with_a_reason(tmp_path: Path) -> None:
    source = tmp_path / "source"
    good(source)
    bad: list[str] = []
    for path in sorted(source.iterdir()):
        data = path.read_bytes()
        for size in (0, 1, 6, 60, len(data) // 2, len(data) - 30):
            name = f"{path.stem}_{size}{path.suffix}"
            (source / name).write_bytes(data[:size])
            bad.append(name)
    shard.write(config(source, tmp_path / "out", images="*", masks=""))
    found = reasons(tmp_path / "out")
    assert sorted(found) == sorted(bad)
    assert all(len(reason) > 8 and "\n" not in reason and str(tmp_path) not in reason for reason in found.values())
    assert {found[name] for name in bad if "_0." in name} == {f"empty file (0 bytes); {REMEDY}"}
    assert set(by_source(tmp_path / "out")) == {
        f"{kind}.{kind}" for kind in ("jpg", "png", "tif", "bmp", "webp", "jp2", "npy", "npz", "dcm")
    }


def test_what_a_file_is_goes_by_its_content_not_its_name(tmp_path: Path) -> None:
    source = tmp_path / "source"
    good(source)
    for path, name in (("png.png", "a.jpg"), ("jpg.jpg", "b.tif"), ("tif.tif", "c.png"), ("npy.npy", "d.png")):
        shutil.copy(source / path, source / name)
    (source / "e.png").write_text("I am text")
    (source / "f.jpg").write_text("<!DOCTYPE html><html><title>404 Not Found</title></html>")
    (source / "g.tif").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    (source / "h.npy").write_text("text")
    (source / "i.dcm").write_bytes(b"\0" * 200)
    (source / "j.png").mkdir()
    shard.write(config(source, tmp_path / "out", recipe=one_split(tmp_path, "first"), images="", masks=""))
    assert set(reasons(tmp_path / "out")) == {"e.png", "f.jpg", "g.tif", "h.npy", "i.dcm"}
    keys, samples = by_source(tmp_path / "out"), stored(tmp_path / "out")
    assert set(samples[keys["a.jpg"]]) == {"png", "json"}
    assert samples[keys["a.jpg"]]["png"] == (source / "png.png").read_bytes()
    assert samples[keys["b.tif"]]["jpg"] == (source / "jpg.jpg").read_bytes()
    for name in ("c.png", "d.png"):
        array = decoded(samples[keys[name]]["png"])
        np.testing.assert_array_equal(array, np.load(source / "npy.npy"))


def test_recompressed_copies_are_kept_out_of_later_splits(real_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("imagehash")
    for kind in ("train", "val"):
        (tmp_path / "source" / kind).mkdir(parents=True)
    paths = sorted((real_data / "isic2017" / "ISIC-2017_Validation_Data").glob("*.jpg"))[:4]
    for path in paths:
        shutil.copy(path, tmp_path / "source" / "train")
    Image.open(paths[0]).save(tmp_path / "source" / "val" / "again.jpg", quality=70)
    shutil.copy(paths[1], tmp_path / "source" / "val" / "same.jpg")
    text = "".join(f'[[images]]\npath = "{kind}/*.jpg"\nsplit = "{kind}"\n' for kind in ("train", "val"))
    (tmp_path / "two.toml").write_text(f'name = "two"\n{text}')
    options = {"recipe": str(tmp_path / "two.toml"), "images": "", "masks": ""}
    shard.write(config(tmp_path / "source", tmp_path / "out", near_duplicates=True, **options))
    found = reasons(tmp_path / "out")
    assert re.fullmatch(
        rf"looks like train/{paths[0].stem} \([0-2] of 64 bits differ\), which is in another split",
        found["val/again.jpg"],
    )
    assert found["val/same.jpg"] == f"the same bytes as train/{paths[1].stem}, which is in another split"
    shard.write(config(tmp_path / "source", tmp_path / "bare", **options))
    assert list(reasons(tmp_path / "bare")) == ["val/same.jpg"]
