"""Fixtures that many tests share: generated data, its shards, a small trained run, and the folder of the real data."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medsass.config import ShardConfig, TrainConfig
from medsass.data import synthetic
from medsass.data.sharding import shard
from medsass.runs.run_directory import Facts
from medsass.runs.training.train import train
from medsass.runs.training.trainer import Trainer
from tests.support import effort, networks

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of this project's tests."""
    parser.addoption("--shapes", type=int, default=500, help="random shapes that a GPU labels (default: 500)")
    parser.addoption("--all-work", action="store_true", help="what make test-all does: every count, and slow tests too")


def pytest_configure(config: pytest.Config) -> None:
    """Choose how often tests try, which decorators of the test files ask for."""
    effort.choose(config.getoption("--all-work"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip tests marked `gpu` if torch sees none, and those marked `slow` if not all work is asked for."""
    if not config.getoption("--all-work"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="takes long; make test-all runs it"))
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked:
        import torch

        if not torch.cuda.is_available():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the real datasets. Tests that need it are skipped if it is absent."""
    folder = Path(os.environ.get("MEDSASS_DATA", REAL_DATA))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set MEDSASS_DATA to where it is")
    return folder


@pytest.fixture(scope="session")
def nuclei_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 generated images of 64 x 64 pixels in images/ and their masks in masks/. Read only."""
    folder = tmp_path_factory.mktemp("nuclei")
    synthetic.generate(folder, 60, seed=1, size=64)
    return folder


@pytest.fixture(scope="session")
def shards(nuclei_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shards of `nuclei_folder`, several tar files a split. Read only."""
    out = tmp_path_factory.mktemp("shards") / "out"
    shard.write(ShardConfig(nuclei_folder, out, images="images/*.png", masks="masks/*.png", max_shard_bytes=100_000))
    return out


@pytest.fixture(scope="session")
def some_without_masks(nuclei_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 20 training images, of which those with an even number have a mask."""
    folder = tmp_path_factory.mktemp("some")
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
        for i in range(0, 20, 1 if kind == "images" else 2):
            (folder / kind / f"{i:04d}.png").hardlink_to(nuclei_folder / kind / f"nuclei_{i:04d}.png")
    text = 'name = "some"\n[[images]]\npath = "images/*"\nmasks = "masks/*"\nsplit = "train"\n'
    (folder / "some.toml").write_text(text)
    out = tmp_path_factory.mktemp("some_shards") / "out"
    shard.write(ShardConfig(folder, out, recipe=str(folder / "some.toml")))
    return out


def tiny(shards: Path, run: Path, **changes: object) -> TrainConfig:
    """Return the config of a training of a few seconds."""
    options = {"model": "unet-resnet18", "size": 32, "epochs": 2, "polarity": "bright", "device": "cpu", "threads": 1}
    return TrainConfig(shards, run, **{**options, **changes})  # type: ignore[arg-type]


def facts(**changes: Any) -> Facts:
    """Return what a run's config.json holds besides its options."""
    return Facts(
        **{
            "medsass": "0",
            "polarity": "bright",
            "device": "cpu",
            "shards_sha256": "abc",
            "labels_read": False,
            **changes,
        }
    )


def train_one_epoch(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train, and interrupt the training at the start of its second epoch."""
    original, calls = Trainer.steps, []

    def fail_second(self: Trainer) -> Iterator[tuple[int, dict[str, float]]]:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "steps", fail_second)
        with pytest.raises(KeyboardInterrupt):
            train(config)


@pytest.fixture
def light() -> Iterator[None]:
    """Networks of `tests.support.networks`, such as two convolutions in the place of unet-resnet18."""
    with networks.light():
        yield


@pytest.fixture(scope="module")
def light_file() -> Iterator[None]:
    """The same for a whole file and its fixtures."""
    with networks.light():
        yield


@pytest.fixture(scope="session")
def trained(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with two finished epochs of a light network; who loads it uses `light`. Read only."""
    run = tmp_path_factory.mktemp("run") / "run"
    with networks.light():
        train(tiny(shards, run))
    return run
