"""Warnings of labels of little use: when they appear, and that they name the signs."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from medsass.config import ShardConfig
from medsass.data.sharding import shard
from medsass.data.shards import manifest
from medsass.labels import Labeler
from medsass.runs.training.train import train
from medsass.runs.tuning import score, warnings
from tests.conftest import tiny

pytestmark = pytest.mark.usefixtures("light_file")


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of images in which there is nothing: each a smooth ramp with noise upon it."""
    folder = tmp_path_factory.mktemp("noise")
    rng = np.random.default_rng(0)
    ramp = np.linspace(60, 190, 64)
    (folder / "images").mkdir()
    for i in range(16):
        pixels = np.rot90(np.tile(ramp, (64, 1)), i) + rng.normal(0, 30, (64, 64))
        cv2.imwrite(str(folder / "images" / f"{i}.png"), pixels.clip(0, 255).astype(np.uint8))
    shard.write(ShardConfig(folder, folder / "shards", images="images/*.png"))
    return folder / "shards"


def test_a_choice_is_doubted_by_its_own_values_of_the_criteria_that_vote() -> None:
    assert set(warnings.SIGNS) == set(score.VOTES)
    values = {name: np.array([1.0, least - 0.1]) for name, (least, _) in warnings.SIGNS.items()}
    assert warnings.of_choice(values, 0) == ""
    line = warnings.of_choice(values, 1)
    assert all(name in line for name in warnings.SIGNS)
    assert "--method supervised" in line


def test_a_ring_at_the_frame_is_doubted(tmp_path: Path) -> None:
    """Bare Otsu's labels of X-rays are like this: the dark margin is a class of its own."""
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for i in range(16):
        pixels = np.full((64, 64), 20.0)
        pixels[8:-8, 8:-8] = 150
        cv2.circle(pixels, (24, 32), 8, 110, -1)
        cv2.imwrite(
            str(tmp_path / f"images/{i}.png"), (pixels + rng.normal(0, 5, (64, 64))).clip(0, 255).astype(np.uint8)
        )
    shards = tmp_path / "shards"
    shard.write(ShardConfig(tmp_path, shards, images="images/*.png"))
    config = replace(tiny(shards, tmp_path / "run"), size=64)
    bare, refined = (
        warnings.of_run(config, manifest.load(config.shards), Labeler("otsu", "dark", refine=r), "cpu")
        for r in ("", "vignette,blur:3,border")
    )
    assert "frame" in bare
    assert "crop" in bare
    assert refined == ""


def test_labels_of_nothing_are_doubted_before_they_are_learnt(
    noise: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(replace(tiny(noise, tmp_path / "run"), epochs=1))
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: these labels")]
    assert "contrast" in line


def test_labels_of_nuclei_are_not_doubted_but_those_that_cover_nearly_all(shards: Path, tmp_path: Path) -> None:
    config, dataset = tiny(shards, tmp_path), manifest.load(shards)
    assert warnings.of_run(config, dataset, Labeler("otsu", "bright"), "cpu") == ""
    assert "size" in warnings.of_run(config, dataset, Labeler("otsu", "dark"), "cpu")


def test_training_with_the_truth_is_not_warned(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(replace(tiny(shards, tmp_path / "run"), epochs=1, method="supervised", polarity="dark"))
    assert "warning" not in capsys.readouterr().err
