"""The recipe of COVID-19 Radiography, on the real dataset if it is there, else on generated images."""

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.support import layouts
from medsass.config import ShardConfig
from medsass.data.sharding import shard
from tests.support.datasets import linked, pixels, pretend, rejected, written


def test_covid19_radiography_shares_of_all_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test split is as large as the paper's. Its 14,730 and 2,202 are an 80/20 and then an 87/13 split of the rest,
    not 70/10/20, which gives 14,816 and 2,116.
    """
    assert len(set(layouts.xray_files())) == 2 * 21165
    pretend(monkeypatch, layouts.xray_files())
    found = shard.plan(ShardConfig(tmp_path, tmp_path / "out", recipe="covid19_radiography"))[0]
    assert {name: split.samples for name, split in found.splits.items()} == {"train": 14816, "val": 2116, "test": 4233}
    assert (found.rejected, found.notes) == (0, [])


def xray(folder: Path) -> None:
    """Three images of each class, 299 x 299, with masks of 256 x 256 in RGB, as in the release."""
    generator = np.random.default_rng(3)
    for name in layouts.XRAY:
        for number in range(1, 4):
            below = folder / "COVID-19_Radiography_Dataset" / name
            for kind, array in (
                ("images", generator.integers(0, 256, (299, 299), np.uint8)),
                ("masks", np.kron(generator.integers(0, 2, (8, 8, 1), np.uint8) * 255, np.ones((32, 32, 3), np.uint8))),
            ):
                (below / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(array.astype(np.uint8)).save(below / kind / f"{name}-{number}.png")


def test_covid19_radiography_classes_and_masks(tmp_path: Path) -> None:
    xray(tmp_path / "source")
    _, stored = written(tmp_path / "source", tmp_path / "out", "covid19_radiography")
    assert Counter(sample["meta"]["class"] for sample in stored.values()) == dict.fromkeys(layouts.XRAY, 3)
    assert "Viral_Pneumonia-2" in stored
    for sample in stored.values():
        image = tmp_path / "source" / sample["meta"]["source"]
        assert sample["png"] == image.read_bytes()
        mask = (
            Image.open(image.parents[1] / "masks" / image.name)
            .convert("L")
            .resize((299, 299), Image.Resampling.NEAREST)
        )
        np.testing.assert_array_equal(pixels(sample["mask.png"]), np.asarray(mask))


def test_covid19_radiography_real_pairs_never_meet_across_splits(real_data: Path, tmp_path: Path) -> None:
    real, below = real_data / "covid19_radiography", "COVID-19_Radiography_Dataset/Viral Pneumonia"
    pairs = [(74, 75), (117, 118), (249, 250), (294, 295), (595, 596)]
    numbers = [number for pair in pairs for number in pair] + list(range(1, 31))
    names = [f"{below}/{kind}/Viral Pneumonia-{i}.png" for i in numbers for kind in ("images", "masks")]
    manifest, stored = written(linked(real, tmp_path / "source", names), tmp_path / "out", "covid19_radiography")
    out = rejected(tmp_path / "out")
    digests: dict[str, set[str]] = {}
    for sample in stored.values():
        digest = hashlib.sha256((real / sample["meta"]["source"]).read_bytes()).hexdigest()
        assert sample["meta"]["sha256"] == digest
        digests.setdefault(digest, set()).add(sample["split"])
    assert all(len(splits) == 1 for splits in digests.values())
    assert len(stored) + len(out) == len(numbers)
    together = 0
    for one, other in pairs:
        left_out = [name for name in out if name in [f"{below}/images/Viral Pneumonia-{i}.png" for i in (one, other)]]
        together += not left_out
        assert len(left_out) <= 1
    assert len(pairs) - together == len(out)
    assert (together > 0) == any("more than once, byte for byte" in note for note in manifest.notes)
