"""Source folder -> shards: the same bytes each time, bad files left out and listed, foreign files never deleted."""

import io
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import webdataset
from PIL import Image

from medsass.config import ShardConfig
from medsass.data import synthetic
from medsass.data.formats.damage import REMEDY
from medsass.data.sharding import shard
from medsass.data.shards import tar
from medsass.data.shards.manifest import load
from tests.support.faults import contents, decoded, reasons, samples


def config(source: Path, out: Path, **changes: object) -> ShardConfig:
    options = {"images": "images/*", "masks": "masks/*", "max_shard_bytes": 100_000}
    return ShardConfig(source, out, **{**options, **changes})  # type: ignore[arg-type]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """12 good pairs, to be changed."""
    synthetic.generate(tmp_path / "source", 12, seed=2, size=32)
    return tmp_path / "source"


@pytest.mark.parametrize("workers", [1, 4])
def test_same_source_gives_the_same_bytes(workers: int, nuclei_folder: Path, shards: Path, tmp_path: Path) -> None:
    again = config(nuclei_folder, tmp_path / "out", images="images/*.png", masks="masks/*.png", workers=workers)
    shard.write(again)
    assert contents(tmp_path / "out") == contents(shards)


def test_bytes_do_not_depend_on_where_the_source_is(source: Path, tmp_path: Path) -> None:
    shard.write(config(source, tmp_path / "a"))
    shutil.move(source, tmp_path / "moved")
    shard.write(config(tmp_path / "moved", tmp_path / "b"))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize("workers", [1, 3])
def test_every_slice_of_a_stack_is_stored_between_photographs(workers: int, tmp_path: Path) -> None:
    rng, images = np.random.default_rng(0), tmp_path / "source"
    images.mkdir()
    stacks = {name: rng.integers(0, 256, (5, 16, 24), np.uint8) for name in ("a", "c", "e")}
    for name, stack in stacks.items():
        tifffile.imwrite(images / f"{name}.tif", stack, photometric="minisblack")
    for name in ("b", "d", "f"):
        Image.fromarray(rng.integers(0, 256, (16, 24), np.uint8)).save(images / f"{name}.png")
    moving = [Image.new("L", (24, 16), level) for level in (30, 90)]
    moving[0].save(images / "g.gif", save_all=True, append_images=moving[1:])
    Image.fromarray(stacks["a"][0]).save(images / "h.tif")
    shard.write(config(images, tmp_path / "out", images="*", masks="", workers=workers))
    stored = samples(tmp_path / "out", load(tmp_path / "out"))
    frames = {f"{name}-f{frame:06d}": stack[frame] for name, stack in stacks.items() for frame in range(5)}
    assert set(stored) == set(frames) | {"b", "d", "f", "g", "h"}
    for key, frame in frames.items():
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(stored[key]["png"]))), frame)
    assert json.loads(stored["a-f000003"]["json"])["frame"] == 3
    assert stored["b"]["png"] == (images / "b.png").read_bytes()
    assert (decoded(stored["g"]["png"]) == 30).all()


def test_a_stack_under_the_name_of_a_photograph_is_left_out_and_said(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    tifffile.imwrite(tmp_path / "source/a.tif", np.ones((5, 16, 24), np.uint8), photometric="minisblack")
    (tmp_path / "source/a.tif").rename(tmp_path / "source/a.png")
    Image.fromarray(np.eye(16, dtype=np.uint8)).save(tmp_path / "source/b.png")
    shard.write(config(tmp_path / "source", tmp_path / "out", images="*", masks=""))
    assert reasons(tmp_path / "out")["a.png"].startswith("5 frames under the name of a photograph")


def test_every_pair_is_stored_with_its_bytes(nuclei_folder: Path, shards: Path) -> None:
    stored = samples(shards, load(shards))
    images = {path.stem: path for path in (nuclei_folder / "images").iterdir()}
    assert set(stored) == set(images)
    for key, content in stored.items():
        assert content["png"] == images[key].read_bytes()
        truth = cv2.imread(str(nuclei_folder / "masks" / f"{key}.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(decoded(content["mask.png"]), truth)


def test_webdataset_reads_the_same_keys_and_bytes(shards: Path) -> None:
    for split in load(shards).splits.values():
        paths = [str(shards / item.file) for item in split.shards]
        theirs = {
            sample["__key__"]: {name: data for name, data in sample.items() if not name.startswith("__")}
            for sample in webdataset.WebDataset(paths, shardshuffle=False, empty_check=False)
        }
        assert theirs == {key: content for path in paths for key, content in tar.read(Path(path))}
        assert len(theirs) == split.samples


def test_manifest_counts_coverage(nuclei_folder: Path, shards: Path) -> None:
    for split in load(shards).splits.values():
        keys = [key for item in split.shards for key, _ in tar.read(shards / item.file)]
        masks = [cv2.imread(str(nuclei_folder / "masks" / f"{key}.png"), cv2.IMREAD_UNCHANGED) for key in keys]
        assert split.mask_coverage == pytest.approx(np.mean([(mask > 0).mean() for mask in masks]), abs=2e-6)


def test_progress_reaches_all_images(source: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    shard.write(config(source, tmp_path / "out"), lambda done, total: calls.append((done, total)))
    assert calls == sorted(calls)
    assert calls[-1] == (12, 12)


def spoil(source: Path) -> dict[str, str]:
    """Break five pairs and take the mask of one image, which stays, and give the reason expected for each file."""
    image = source / "images"
    (image / "nuclei_0000.png").write_bytes(b"")
    data = (image / "nuclei_0001.png").read_bytes()
    (image / "nuclei_0001.png").write_bytes(data[: len(data) // 2])
    (image / "nuclei_0002.png").write_text("I am text")
    (source / "masks" / "nuclei_0003.png").unlink()
    Image.new("L", (20, 30)).save(source / "masks" / "nuclei_0004.png")
    (source / "masks" / "nuclei_0005.png").write_bytes(b"")
    Image.new("L", (32, 32)).save(source / "masks" / "lost.png")
    return {
        "images/nuclei_0000.png": "empty file",
        "images/nuclei_0001.png": "",  # Pillow's words or DALI's
        "images/nuclei_0002.png": "not an image file",
        "images/nuclei_0004.png": "size 20x30 differs from the image's 32x32",
        "images/nuclei_0005.png": "mask masks/nuclei_0005.png: empty file",
        "masks/lost.png": "mask without an image",
    }


def test_bad_samples_are_left_out_and_listed_and_good_ones_written(source: Path, tmp_path: Path) -> None:
    expected = spoil(source)
    manifest = shard.write(config(source, tmp_path / "out"))
    found = reasons(tmp_path / "out")
    assert set(found) == set(expected)
    for file, reason in expected.items():
        assert reason in found[file]
        assert found[file]
    assert set(samples(tmp_path / "out", manifest)) == {f"nuclei_{i:04d}" for i in (3, *range(6, 12))}
    assert sum(split.samples for split in manifest.splits.values()) == 7
    assert sum(split.masks for split in manifest.splits.values()) == 6
    assert any(note.startswith("1 of 12 images have no mask and are kept") for note in manifest.notes)


def test_truncated_jpeg_is_left_out(source: Path, tmp_path: Path) -> None:
    for i in range(2):
        path = source / "images" / f"nuclei_{i:04d}.png"
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()
    path = source / "images" / "nuclei_0000.jpg"
    path.write_bytes(path.read_bytes()[:-40])
    manifest = shard.write(config(source, tmp_path / "out"))
    assert list(reasons(tmp_path / "out")) == ["images/nuclei_0000.jpg"]
    assert "jpg" in samples(tmp_path / "out", manifest)["nuclei_0001"]


@pytest.mark.parametrize("changes", [{}, {"size": 32}, {"tile": 32}, {"encode": "png"}])
def test_jpeg_of_which_a_decoder_paints_the_rest_gray_is_left_out(changes: dict[str, object], tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(buffer, "JPEG")
    (tmp_path / "source").mkdir()
    (tmp_path / "source/good.jpg").write_bytes(buffer.getvalue())
    (tmp_path / "source/bad.jpg").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2] + b"\xff\xd9")
    shard.write(config(tmp_path / "source", tmp_path / "out", images="*", masks="", **changes))
    assert reasons(tmp_path / "out") == {"bad.jpg": f"truncated JPEG: its pixel data end early; {REMEDY}"}


def test_strict_stops_at_the_bad_file_and_names_it(source: Path, tmp_path: Path) -> None:
    (source / "images" / "nuclei_0003.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"images/nuclei_0003.png: empty file \(0 bytes\).*--strict"):
        shard.write(config(source, tmp_path / "out", strict=True))
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert not list((tmp_path / "out").glob("*.part"))


def test_strict_refuses_a_mask_without_an_image(source: Path, tmp_path: Path) -> None:
    (source / "images" / "nuclei_0003.png").unlink()
    with pytest.raises(ValueError, match=r"masks/nuclei_0003.png: mask without an image"):
        shard.write(config(source, tmp_path / "out", strict=True))


def test_strict_passes_where_all_is_good(source: Path, tmp_path: Path) -> None:
    assert shard.write(config(source, tmp_path / "out", strict=True)).rejected == 0


def test_source_where_every_image_is_bad_is_refused_with_the_first_reason(source: Path, tmp_path: Path) -> None:
    for path in (source / "images").iterdir():
        path.write_bytes(b"")
    Image.new("L", (32, 32)).save(source / "masks" / "a_lost_one.png")
    with pytest.raises(ValueError, match=r"none of its 12 images can be used; images/nuclei_\d+.png: empty file"):
        shard.write(config(source, tmp_path / "out"))
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_existing_output_is_refused_without_overwrite(source: Path, tmp_path: Path) -> None:
    shard.write(config(source, tmp_path / "out"))
    before = contents(tmp_path / "out")
    with pytest.raises(FileExistsError, match=r"out.* --overwrite"):
        shard.write(config(source, tmp_path / "out"))
    assert contents(tmp_path / "out") == before


def test_existing_output_is_replaced_with_overwrite(source: Path, tmp_path: Path) -> None:
    shard.write(config(source, tmp_path / "out", max_shard_bytes=20_480))
    shard.write(config(source, tmp_path / "out", size=16, overwrite=True))
    shard.write(config(source, tmp_path / "new", size=16))
    assert contents(tmp_path / "out") == contents(tmp_path / "new")


def test_output_that_is_a_file_is_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(FileExistsError, match="out"):
        shard.write(config(source, tmp_path / "out", overwrite=True))
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("name", ["notes.txt", "photos.tar", "backup.idx", "movie.mp4.part", "sub/file.txt"])
def test_folder_with_foreign_files_is_never_deleted_from(name: str, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shard.write(config(source, out))
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).write_text("mine")
    before = sorted(path.name for path in out.iterdir())
    with pytest.raises(FileExistsError, match=name.split("/")[0]):
        shard.write(config(source, out, overwrite=True))
    assert (out / name).read_text() == "mine"
    assert sorted(path.name for path in out.iterdir()) == before


@pytest.mark.parametrize("what", ["missing source", "no image", "all bad"])
def test_old_shards_stay_where_the_new_source_is_no_good(what: str, source: Path, tmp_path: Path) -> None:
    out, bad = tmp_path / "out", tmp_path / "bad"
    shard.write(config(source, out))
    before = contents(out)
    if what != "missing source":
        (bad / "images").mkdir(parents=True)
    if what == "all bad":
        (bad / "images" / "a.png").write_bytes(b"")
    with pytest.raises((ValueError, FileNotFoundError), match="bad"):
        shard.write(config(bad, out, overwrite=True, masks=""))
    assert contents(out) == before


def test_globs_with_another_recipe_are_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--images and --masks go with --recipe folder; recipe 'dsb2018' says"):
        shard.write(config(source, tmp_path / "out", recipe="dsb2018"))


def test_conversions_are_counted(source: Path, tmp_path: Path) -> None:
    for i in range(3):
        path = source / "images" / f"nuclei_{i:04d}.png"
        Image.open(path).convert("RGBA").save(path)
    assert shard.write(config(source, tmp_path / "out")).converted == {"alpha dropped": 3}


def test_odd_names_are_stored_with_their_mask(tmp_path: Path) -> None:
    names = ["a b", "it's", 'say "x"', "é", "a.b.c", "img[1]"]
    for i, name in enumerate(names):
        for kind in ("images", "masks"):
            path = tmp_path / "source" / kind / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), 40 * i + 10 if kind == "images" else 255).save(path)
    manifest = shard.write(config(tmp_path / "source", tmp_path / "out"))
    stored = samples(tmp_path / "out", manifest)
    assert manifest.rejected == 0
    by_source = {json.loads(content["json"])["source"]: decoded(content["png"])[0, 0] for content in stored.values()}
    assert by_source == {f"images/{name}.png": 40 * i + 10 for i, name in enumerate(names)}


def test_missing_dali_names_the_extra(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medsass.data.dali.importlib.util.find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"medsass\[cuda13\]"):
        shard.write(config(source, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_link_as_output_keeps_pointing_at_the_new_shards(source: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for _ in range(2):
        shard.write(config(source, tmp_path / "link", overwrite=True))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "manifest.json").is_file()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("real")) == ["real"]
