"""Options that some files of a source cannot follow, and what `medsass shard` says of them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medsass.config import ShardConfig
from medsass.data.sharding import shard
from medsass.data.shards import tar
from tests.data.sharding.test_shard_volumes import samples
from tests.support.packed import encoded, pack

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp"])
@pytest.mark.parametrize(("option", "reason"), [({"level": 1}, "level"), ({"frames": "3"}, "frame 3")])
def test_a_level_or_frame_that_a_file_does_not_have_is_refused(
    name: str, option: dict[str, object], reason: str, tmp_path: Path
) -> None:
    """Whether or not its bytes could be stored as they are."""
    (tmp_path / "source").mkdir()
    Image.fromarray(RNG.integers(0, 256, (20, 30, 3), np.uint8)).save(tmp_path / "source" / name)
    with pytest.raises(ValueError, match=reason):
        shard.write(ShardConfig(tmp_path / "source", tmp_path / "out", images="*", **option))  # type: ignore[arg-type]


def test_all_frames_of_an_animated_png_have_their_numbers(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    pages = [Image.fromarray(RNG.integers(0, 256, (20, 30, 3), np.uint8)) for _ in range(3)]
    pages[0].save(tmp_path / "source" / "a.png", save_all=True, append_images=pages[1:])
    shard.write(ShardConfig(tmp_path / "source", tmp_path / "out", images="*", frames="all"))
    assert sorted(samples(tmp_path / "out")) == [f"a-f{frame:06d}" for frame in range(3)]


def test_tiles_that_all_have_too_little_foreground_are_told(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    Image.fromarray(np.pad(np.full((2, 2), 255, np.uint8), 40)).save(tmp_path / "source" / "a.png")
    config = ShardConfig(tmp_path / "source", tmp_path / "out", images="*", tile=41, min_foreground=0.5)
    with pytest.raises(ValueError, match=r"all tiles have less foreground than --min-foreground 0\.5; lower it"):
        shard.write(config)


def test_a_plan_counts_no_tar_file_of_the_dataset_itself(tmp_path: Path) -> None:
    pack(tmp_path / "a.tar", {f"{i}.png": encoded("PNG") for i in range(6)})
    config = ShardConfig(tmp_path, tmp_path / "out", recipe="webdataset", overwrite=True)
    written = {name: split.samples for name, split in shard.write(config).splits.items()}
    planned, _ = shard.plan(config)
    assert {name: split.samples for name, split in planned.splits.items()} == written
    planned, _ = shard.plan(ShardConfig(tmp_path, tmp_path, recipe="webdataset"))  # with OUT, of which it makes nothing
    assert sum(split.samples for split in planned.splits.values()) == 12


def test_a_split_that_lost_all_its_images_is_warned_of(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    for name in "abc":
        Image.fromarray(RNG.integers(0, 256, (20, 30, 3), np.uint8)).save(tmp_path / "source" / f"{name}.png")
    config = ShardConfig(tmp_path / "source", tmp_path / "out", images="*", overwrite=True)
    whole = shard.write(config)
    ((alone, _),) = tar.read(tmp_path / "out" / whole.splits["val"].shards[0].file)
    path = tmp_path / "source" / f"{alone}.png"
    path.write_bytes(path.read_bytes()[:200])
    cut = shard.write(config)
    warning = "WARNING: split 'val' is empty, because its images were left out; mend them, or share anew without them"
    assert (warning in cut.notes, warning in whole.notes) == (True, False)
    assert set(cut.splits) == {"train", "test"}
