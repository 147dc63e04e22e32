"""Recipes of ISIC 2017 and the drone dataset, on the real dataset if it is there, else on generated images."""

import csv
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from benchmarks.support import layouts
from medsass.config import ShardConfig
from medsass.data.sharding import shard
from tests.support.datasets import counts, pixels, planned, pretend, rejected, written


def test_isic2017_has_the_papers_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layouts.isic_labels(tmp_path)
    also = [f"ISIC-2017_Training_Data/{name}" for name in ("ISIC_0000000_superpixels.png", "metadata.csv")]
    pretend(monkeypatch, [*layouts.isic_files(), *also])
    assert planned(tmp_path, "isic2017") == {"train": 2000, "val": 150, "test": 600}


def test_isic2017_real(real_data: Path, tmp_path: Path) -> None:
    real = real_data / "isic2017"
    manifest, stored = written(real, tmp_path / "out", "isic2017")
    assert counts(stored) == {"train": 2000, "val": 149}
    twins = [real / f"ISIC-2017_{name}.jpg" for name in ("Training_Data/ISIC_0012970", "Validation_Data/ISIC_0012127")]
    assert twins[0].read_bytes() == twins[1].read_bytes()
    assert list(rejected(tmp_path / "out")) == [twins[1].relative_to(real).as_posix()]
    assert "ISIC_0012970" in rejected(tmp_path / "out")["ISIC-2017_Validation_Data/ISIC_0012127.jpg"]
    for part, split in (("Training", "train"), ("Validation", "val")):
        labels: dict[str, str] = {}
        with (real / f"ISIC-2017_{part}_Part3_GroundTruth.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                kinds = [kind for kind in ("melanoma", "seborrheic_keratosis") if row[kind] == "1.0"]
                labels[row["image_id"]] = kinds[0] if kinds else "nevus"
        labels.pop("ISIC_0012127", None)
        found = {key: sample for key, sample in stored.items() if sample["split"] == split}
        assert {key: sample["meta"]["class"] for key, sample in found.items()} == labels
        assert manifest.splits[split].classes == Counter(labels.values())
        for key in sorted(found)[::150]:
            assert found[key]["jpg"] == (real / f"ISIC-2017_{part}_Data" / f"{key}.jpg").read_bytes()
            mask = real / f"ISIC-2017_{part}_Part1_GroundTruth" / f"{key}_segmentation.png"
            truth = np.asarray(cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE))
            np.testing.assert_array_equal(pixels(found[key]["mask.png"]), np.where(truth > 127, 255, 0))


def test_drone_of_true_size(tmp_path: Path) -> None:
    layouts.drone(tmp_path / "source", 1)
    _, stored = written(tmp_path / "source", tmp_path / "out", "drone")
    base = tmp_path / "source" / "dataset" / "semantic_drone_dataset"
    sample = stored["000"]
    assert (sample["meta"]["width"], sample["meta"]["height"]) == (6000, 4000)
    assert sample["jpg"] == (base / "original_images" / "000.jpg").read_bytes()
    labels = np.asarray(cv2.imread(str(base / "label_images_semantic" / "000.png"), cv2.IMREAD_UNCHANGED))
    assert labels.max() == 23
    np.testing.assert_array_equal(pixels(sample["mask.png"]), np.where(labels > 0, 255, 0))


@pytest.mark.parametrize("above", ["", "semantic_drone_dataset/"])
def test_drone_in_colours_of_the_official_layout(above: str, tmp_path: Path) -> None:
    colours = np.array([(0, 0, 0), (128, 64, 128), (0, 50, 89), (0, 0, 1), (2, 135, 115), (255, 0, 0)], np.uint8)
    base, generator, truth = tmp_path / "source" / above / "training_set", np.random.default_rng(5), {}
    for folder in ("images", "gt/semantic/label_images", "gt/semantic/label_me_xml"):
        (base / folder).mkdir(parents=True)
    (base / "gt/semantic/class_dict.csv").write_text("name, r, g, b\nunlabeled, 0, 0, 0\n")
    for number in range(10):
        classes = generator.integers(0, len(colours), (40, 60))
        truth[f"{number:03d}"] = classes > 0
        Image.fromarray(colours[classes]).save(base / f"gt/semantic/label_images/{number:03d}.png")
        Image.fromarray(generator.integers(0, 256, (40, 60, 3), np.uint8)).save(base / f"images/{number:03d}.jpg")
    manifest, stored = written(tmp_path / "source", tmp_path / "out", "drone")
    assert (manifest.rejected, counts(stored)) == (0, {"train": 7, "val": 1, "test": 2})
    for key, mask in truth.items():
        np.testing.assert_array_equal(pixels(stored[key]["mask.png"]) > 0, mask)


def test_drone_of_one_image_is_not_told_to_set_what_is_set(tmp_path: Path) -> None:
    layouts.drone(tmp_path, 1, 20, 30)
    notes = shard.plan(ShardConfig(tmp_path, tmp_path / "out", recipe="drone"))[0].notes
    assert sum("got no image" in note for note in notes) == 2
    assert not any("exact_splits = true" in note for note in notes)
