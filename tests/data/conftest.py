"""Shards that several test files share."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from medsass.config import ShardConfig
from medsass.data.sharding import shard
from tests.support.damaged import build


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An intact dataset, which no test may change."""
    folder = tmp_path_factory.mktemp("whole")
    build(folder)
    return folder


@pytest.fixture
def broken(whole: Path, tmp_path: Path) -> Path:
    """A copy of `whole`, to be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "shards"))


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards whose images are their masks times 255: three blobs each, not symmetric."""
    folder = tmp_path_factory.mktemp("twins")
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    rng = np.random.default_rng(0)
    for i in range(24):
        mask = np.zeros((96, 128), np.uint8)
        for _ in range(3):
            centre = (int(rng.integers(15, 113)), int(rng.integers(15, 81)))
            cv2.circle(mask, centre, int(rng.integers(8, 20)), 255, -1)
        for kind in ("images", "masks"):
            cv2.imwrite(str(folder / kind / f"{i}.png"), mask)
    out = tmp_path_factory.mktemp("twin_shards") / "out"
    shard.write(ShardConfig(folder, out, images="images/*", masks="masks/*"))
    return out
