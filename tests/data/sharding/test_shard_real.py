"""`medsass shard` on real datasets, against OpenCV and the files themselves."""

import csv
import io
import json
import random
from pathlib import Path

import cv2
import numpy as np

from medsass.config import ShardConfig
from medsass.data.sharding import shard
from tests.support.faults import decoded, samples


def test_real_dsb2018_masks_are_the_union_by_opencv(real_data: Path, tmp_path: Path) -> None:
    cases = random.Random(0).sample(sorted((real_data / "dsb2018" / "stage1_train").iterdir()), 10)
    (tmp_path / "source" / "stage1_train").mkdir(parents=True)
    for case in cases:
        (tmp_path / "source" / "stage1_train" / case.name).symlink_to(case)
    manifest = shard.write(ShardConfig(tmp_path / "source", tmp_path / "out", recipe="dsb2018", follow_links=True))
    stored = {json.loads(c["json"])["source"].split("/")[1]: c for c in samples(tmp_path / "out", manifest).values()}
    assert set(stored) == {case.name for case in cases}
    for case in cases:
        parts = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 0 for path in (case / "masks").iterdir()]
        np.testing.assert_array_equal(decoded(stored[case.name]["mask.png"]) > 0, np.logical_or.reduce(parts))
        image = cv2.imread(str(case / "images" / f"{case.name}.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(decoded(stored[case.name]["png"])[..., :3], image[..., :3])


def test_real_isic2017_labels_masks_and_bytes(real_data: Path, tmp_path: Path) -> None:
    real, source = real_data / "isic2017", tmp_path / "source"
    expected = {}
    for part, split in (("Training", "train"), ("Validation", "val")):
        table = real / f"ISIC-2017_{part}_Part3_GroundTruth.csv"
        for folder in ("Data", "Part1_GroundTruth"):
            (source / f"ISIC-2017_{part}_{folder}").mkdir(parents=True)
        (source / table.name).symlink_to(table)
        for row in list(csv.DictReader(io.StringIO(table.read_text("utf-8-sig"))))[:8]:
            image = f"ISIC-2017_{part}_Data/{row['image_id']}.jpg"
            mask = f"ISIC-2017_{part}_Part1_GroundTruth/{row['image_id']}_segmentation.png"
            for name in (image, mask):
                (source / name).symlink_to(real / name)
            kinds = [kind for kind in ("melanoma", "seborrheic_keratosis") if float(row[kind]) == 1]
            expected[row["image_id"]] = (split, (kinds or ["nevus"])[0], image, mask)
    manifest = shard.write(ShardConfig(source, tmp_path / "out", recipe="isic2017", follow_links=True))
    stored = samples(tmp_path / "out", manifest)
    assert {name: split.samples for name, split in manifest.splits.items()} == {"train": 8, "val": 8}
    assert set(stored) == set(expected)
    for key, (_, label, image, mask) in expected.items():
        assert json.loads(stored[key]["json"])["class"] == label
        assert stored[key]["jpg"] == (real / image).read_bytes()
        truth = cv2.imread(str(real / mask), cv2.IMREAD_GRAYSCALE)
        np.testing.assert_array_equal(decoded(stored[key]["mask.png"]) > 0, truth > 127)
