"""`medsass shard` by one worker or many, fast or slow: the same bytes."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medsass.data.sharding import shard
from medsass.data.sharding.prepare import Preparation
from tests.support.faults import config, contents, decoded, one_split, stored


def test_bytes_of_tiles_do_not_depend_on_the_workers(source: Path, tmp_path: Path) -> None:
    for workers in (1, 2, 7):
        shard.write(config(source, tmp_path / f"{workers}", workers=workers, tile=20, stride=10, min_foreground=0.1))
    assert contents(tmp_path / "1") == contents(tmp_path / "2") == contents(tmp_path / "7")


def test_bytes_of_frames_do_not_depend_on_the_workers(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    rng = np.random.default_rng(5)
    for i in range(6):
        pages = [Image.fromarray(rng.integers(0, 256, (32, 32), np.uint8)) for _ in range(1 + i)]
        pages[0].save(tmp_path / "source" / f"{i}.tif", save_all=True, append_images=pages[1:])
    recipe = one_split(tmp_path)
    for workers in (1, 2, 7):
        shard.write(
            config(tmp_path / "source", tmp_path / f"{workers}", recipe=recipe, images="", masks="", workers=workers)
        )
    assert len(stored(tmp_path / "1")) == 21
    assert contents(tmp_path / "1") == contents(tmp_path / "2") == contents(tmp_path / "7")


def test_a_file_stays_open_until_its_slowest_tile_is_done(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first tile of each file starts only after the last one is done."""
    for path in (source / "images").iterdir():
        np.save(path.with_suffix(".npy"), decoded(path.read_bytes()))
        path.unlink()
    real, done = Preparation._make, {f"images/{path.name}": threading.Event() for path in (source / "images").iterdir()}

    def slow(line: Any, item: Any) -> Any:
        if item.index == 0:
            assert done[item.entry.image].wait(20)
        made = real(line, item)
        if item.last:
            done[item.entry.image].set()
        return made

    shard.write(config(source, tmp_path / "expected", tile=16))
    monkeypatch.setattr(Preparation, "_make", slow)
    shard.write(config(source, tmp_path / "out", tile=16, workers=4))
    assert contents(tmp_path / "out") == contents(tmp_path / "expected")
