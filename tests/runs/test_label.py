"""`medsass label` against OpenCV, on folders and on shards."""

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage import filters, measure, segmentation

from medsass.config import LabelConfig
from medsass.data.formats.damage import REMEDY
from medsass.runs.label import label
from tests.support import built


def _rows(out: Path) -> list[dict[str, str]]:
    with (out / "labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _otsu(path: Path) -> tuple[float, np.ndarray]:
    return cv2.threshold(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)


def test_masks_and_thresholds_of_a_folder_are_opencvs(nuclei_folder: Path, tmp_path: Path) -> None:
    assert label(LabelConfig(nuclei_folder / "images", tmp_path / "out", polarity="bright", device="cpu")) == []
    rows = _rows(tmp_path / "out")
    assert len(rows) == 60
    for row in rows:
        level, mask = _otsu(nuclei_folder / "images" / row["source"])
        assert float(row["threshold"]) == level
        assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / row["mask"])), mask)
        assert float(row["foreground"]) == pytest.approx((mask > 0).mean(), abs=1e-6)


def test_shards_give_the_masks_of_their_folder(nuclei_folder: Path, shards: Path, tmp_path: Path) -> None:
    label(LabelConfig(shards, tmp_path / "out", polarity="dark", device="cpu"))
    rows = _rows(tmp_path / "out")
    assert sorted(Path(row["mask"]).stem for row in rows) == sorted(
        path.stem for path in (nuclei_folder / "images").iterdir()
    )
    for row in rows[:10]:
        _, mask = _otsu(nuclei_folder / "images" / f"{Path(row['mask']).stem}.png")
        assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / row["mask"])), 255 - mask)


def test_shards_are_labelled_by_their_recipes_polarity(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    label(LabelConfig(shards, tmp_path / "out", device="cpu"))
    assert "foreground auto" in capsys.readouterr().out


def test_sub_folders_are_kept_and_bad_images_reported(tmp_path: Path) -> None:
    source = tmp_path / "in"
    (source / "a").mkdir(parents=True)
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(source / "a" / "good.png")
    (source / "bad.png").write_bytes(b"no image")
    failed = label(LabelConfig(source, tmp_path / "out", device="cpu"))
    assert [path for path, _ in failed] == [source / "bad.png"]
    assert (tmp_path / "out" / "a" / "good.png").is_file()
    assert not (tmp_path / "out" / "bad.png").exists()


def test_existing_masks_are_kept_unless_overwritten(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(source / "x.png")
    config = LabelConfig(source, tmp_path / "out", device="cpu")
    label(config)
    with pytest.raises(FileExistsError, match=r"exists; .*--overwrite"):
        label(config)
    label(LabelConfig(source, tmp_path / "out", device="cpu", overwrite=True))


def test_two_images_with_one_mask_are_refused(tmp_path: Path) -> None:
    for name in ("x.png", "x.bmp"):
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / name)
    with pytest.raises(ValueError, match=r"would both write .*x\.png"):
        label(LabelConfig(tmp_path, tmp_path / "out", device="cpu"))


def test_a_source_that_writes_onto_itself_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "x.png")
    with pytest.raises(ValueError, match="is an input image"):
        label(LabelConfig(tmp_path, tmp_path, device="cpu", overwrite=True))


@pytest.mark.parametrize("make", [False, True], ids=["missing", "empty"])
def test_a_source_without_images_is_refused(tmp_path: Path, make: bool) -> None:
    source = tmp_path / "nothing"
    if make:
        source.mkdir()
    with pytest.raises(FileNotFoundError, match="nothing: no "):
        label(LabelConfig(source, tmp_path / "out", device="cpu"))


def test_16_bit_images_are_labelled_in_their_own_levels(tmp_path: Path) -> None:
    deep = np.where(np.arange(64).reshape(8, 8) % 8 < 4, 1000, 40_000).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "x.png")
    label(LabelConfig(tmp_path, tmp_path / "out", polarity="bright", device="cpu"))
    (row,) = _rows(tmp_path / "out")
    assert 1000 <= float(row["threshold"]) < 40_000
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "x.png")) > 0, deep == 40_000)


def test_a_csv_of_the_users_own_is_not_replaced(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "x.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "labels.csv").write_text("mine")
    with pytest.raises(FileExistsError, match=r"labels\.csv exists; .*--overwrite"):
        label(LabelConfig(tmp_path, tmp_path / "out", device="cpu"))
    assert (tmp_path / "out" / "labels.csv").read_text() == "mine"


def test_a_folder_of_bad_images_alone_reports_each(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no image")
    failed = label(LabelConfig(tmp_path, tmp_path / "out", device="cpu"))
    assert [path.name for path, _ in failed] == ["x.png"]
    assert _rows(tmp_path / "out") == []


def test_ght_takes_its_parameters_from_the_option(nuclei_folder: Path, tmp_path: Path) -> None:
    label(LabelConfig(nuclei_folder / "images", tmp_path / "out", method="ght", ght="1e60,1e-15,0,0", device="cpu"))
    for row in _rows(tmp_path / "out")[:10]:  # the limit in which GHT is Otsu, up to ties over empty levels
        level, mask = _otsu(nuclei_folder / "images" / row["source"])
        assert np.isin(np.asarray(Image.open(tmp_path / "out" / row["mask"])), [0, 255]).all()
        assert abs(float(row["threshold"]) - level) <= 1
        assert mask.any()


def test_ght_wants_numbers(nuclei_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--ght must be numbers separated by commas; got 'a,b'"):
        label(LabelConfig(nuclei_folder / "images", tmp_path / "out", method="ght", ght="a,b", device="cpu"))


@pytest.mark.parametrize("extension", ["png", "jp2"])
def test_16_bit_shards_are_labelled_in_their_own_levels(tmp_path: Path, extension: str) -> None:
    shards = built.build(tmp_path / "shards", 16, extension)
    assert label(LabelConfig(shards, tmp_path / "out", device="cpu")) == []
    rows = _rows(tmp_path / "out")
    assert len(rows) == sum(built.SPLITS.values())
    for row in rows:
        image, truth = built.sample(Path(row["mask"]).stem, 16)
        bins = filters.threshold_otsu(
            np.floor((image - image.min()) * (256 / (int(image.max()) - image.min() + 1))), 256
        )
        width = (int(image.max()) - int(image.min())) / 256
        assert float(row["threshold"]) == pytest.approx(int(image.min()) + bins * width, abs=2 * width)
        mask = np.asarray(Image.open(tmp_path / "out" / row["mask"]))
        assert np.array_equal(mask > 0, image > float(row["threshold"]))
        assert np.mean((mask > 0) == truth) > 0.99


def test_16_bit_shards_are_labelled_by_adaptive_methods_in_8_bits(tmp_path: Path) -> None:
    shards = built.build(tmp_path / "shards", 16, splits={"train": 3})
    config = LabelConfig(shards, tmp_path / "out", method="adaptive-mean", block_size=31, device="cpu")
    assert label(config) == []
    assert len(_rows(tmp_path / "out")) == 3


def test_labels_of_shards_that_are_there_are_refused_before_a_tar_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = built.build(tmp_path / "shards", splits={"train": 3})
    (tmp_path / "out" / "train").mkdir(parents=True)
    (tmp_path / "out" / "train" / "train_002.png").write_bytes(b"mine")
    monkeypatch.setattr("medsass.data.shards.tar.read", lambda _: pytest.fail("read"))
    with pytest.raises(FileExistsError, match=r"train_002\.png exists; .*--overwrite"):
        label(LabelConfig(shards, tmp_path / "out", device="cpu"))


def test_masks_are_refined_as_asked_for(nuclei_folder: Path, tmp_path: Path) -> None:
    label(LabelConfig(nuclei_folder / "images", tmp_path, polarity="bright", refine="border,holes", device="cpu"))
    for row in _rows(tmp_path)[:10]:
        _, mask = _otsu(nuclei_folder / "images" / row["source"])
        cleared = segmentation.clear_border(measure.label(mask > 0, connectivity=2)) > 0
        expected = cleared if cleared.sum() * 16 >= (mask > 0).sum() else mask > 0
        assert np.array_equal(np.asarray(Image.open(tmp_path / row["mask"])) > 0, ndimage.binary_fill_holes(expected))


def test_a_step_before_the_threshold_reads_16_bit_images_in_8_bits(tmp_path: Path) -> None:
    deep = np.where(np.indices((40, 40)).sum(0) < 40, 1000, 40_000).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "x.png")
    config = LabelConfig(tmp_path, tmp_path / "out", polarity="bright", refine="blur:6", device="cpu")
    assert label(config) == []
    (row,) = _rows(tmp_path / "out")
    assert float(row["threshold"]) < 256
    assert np.mean((np.asarray(Image.open(tmp_path / "out" / "x.png")) > 0) == (deep == 40_000)) > 0.9


def test_steps_that_are_none_are_refused_before_anything_is_written(nuclei_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^refine: blur takes a length"):
        label(LabelConfig(nuclei_folder / "images", tmp_path / "out", refine="blur:wide", device="cpu"))
    assert not (tmp_path / "out").exists()


def test_broken_files_and_links_are_reported_and_not_labelled(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    data = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8))[1].tobytes()
    (tmp_path / "in/good.jpg").write_bytes(data)
    (tmp_path / "in/bad.jpg").write_bytes(data[: len(data) // 2] + b"\xff\xd9")
    (tmp_path / "in/lost.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "in/loop.jpg").symlink_to("loop.jpg")
    bad, loop, lost = label(LabelConfig(tmp_path / "in", tmp_path / "out", device="cpu"))
    assert bad == (tmp_path / "in/bad.jpg", f"truncated JPEG: its pixel data end early; {REMEDY}")
    assert loop[0].name == "loop.jpg"
    assert "symbolic links" in loop[1]
    assert lost[0].name == "lost.jpg"
    assert "No such file" in lost[1]
    assert [row["source"] for row in _rows(tmp_path / "out")] == ["good.jpg"]


def test_names_that_a_spreadsheet_would_compute_stand_behind_an_apostrophe(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "in" / "=1+1.png")
    label(LabelConfig(tmp_path / "in", tmp_path / "out", device="cpu"))
    (row,) = _rows(tmp_path / "out")
    assert (row["mask"], row["source"], row["width"]) == ("'=1+1.png", "'=1+1.png", "8")
