"""Training on shards of 16-bit images."""

import json
from pathlib import Path

import pytest
import torch

from medsass.runs.training.train import train
from tests.conftest import tiny, train_one_epoch
from tests.support import built, trainings
from tests.support.trainings import FILES

pytestmark = pytest.mark.usefixtures("light_file")


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 16-bit images."""
    return built.build(tmp_path_factory.mktemp("deep") / "out", 16)


@pytest.fixture(scope="module")
def deep_run(deep: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of two epochs on them."""
    run = tmp_path_factory.mktemp("deep") / "run"
    train(tiny(deep, run, batch_size=4))
    return run


def test_a_16_bit_run_fills_a_run_directory_and_learns(deep_run: Path) -> None:
    assert {path.name for path in deep_run.iterdir()} == FILES
    history = trainings.history(deep_run)
    assert history[-1]["train_loss"] < history[0]["train_loss"]


def test_a_16_bit_run_that_failed_after_an_epoch_resumes_to_the_same_end(
    deep: Path, deep_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_one_epoch(tiny(deep, tmp_path / "run", batch_size=4), monkeypatch)
    torch.rand(7)
    train(tiny(deep, tmp_path / "run", batch_size=4, resume=True))
    trainings.assert_same(deep_run, tmp_path / "run")


@pytest.mark.parametrize("labels", ["adaptive-mean", "adaptive-gaussian"])
@pytest.mark.parametrize("method", ["medsass", "supervised"])
def test_adaptive_labels_of_16_bit_shards_are_refused_before_anything_is_written(
    deep: Path, tmp_path: Path, labels: str, method: str
) -> None:
    with pytest.raises(ValueError, match=rf"^--labels {labels} is for 8-bit images.*--labels otsu or ght.*--depth 8$"):
        train(tiny(deep, tmp_path / "run", labels=labels, method=method))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", ["medsass", "supervised"])
def test_steps_before_the_threshold_of_16_bit_shards_are_refused_before_anything_is_written(
    deep: Path, tmp_path: Path, method: str
) -> None:
    with pytest.raises(ValueError, match=r"^--refine vignette,blur:3 is for 8-bit images, and .*--depth 8$"):
        train(tiny(deep, tmp_path / "run", refine="vignette,blur:3,border", method=method))
    assert not (tmp_path / "run").exists()


def test_ght_labels_of_16_bit_shards_train(deep: Path, tmp_path: Path) -> None:
    assert train(tiny(deep, tmp_path / "run", labels="ght", epochs=1))["val_loss"] < 1


def test_a_run_stores_the_form_of_its_shards(deep_run: Path) -> None:
    content = json.loads((deep_run / "config.json").read_text())
    assert {name: content[name] for name in ("tile", "level", "depth", "range", "axis")} == {
        "tile": 64, "level": 1, "depth": 16, "range": "minmax", "axis": "x"
    }  # fmt: skip
