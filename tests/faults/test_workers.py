"""`medsass shard` by one worker or many, fast or slow: the same bytes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medsass.data.sharding import shard
from tests.support.faults import config, contents, one_split, stored


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


@pytest.mark.parametrize("suffix", [".npy", ".png"])
def test_parts_of_a_file_come_in_order_whoever_makes_them(suffix: str, tmp_path: Path) -> None:
    """A file with more tiles than one worker makes at once: an array is read in parts, a PNG is decoded whole."""
    rng = np.random.default_rng(6)
    (tmp_path / "large").mkdir()
    for number in range(2):
        array = rng.integers(0, 256, (300, 310), np.uint8)
        path = tmp_path / "large" / f"{number}{suffix}"
        np.save(path, array) if suffix == ".npy" else Image.fromarray(array).save(path)
    for workers in (1, 3):
        out = tmp_path / f"{workers}"
        shard.write(config(tmp_path / "large", out, images="*", masks="", workers=workers, tile=16))
    assert len(stored(tmp_path / "1")) == 2 * 19 * 20
    assert contents(tmp_path / "1") == contents(tmp_path / "3")
