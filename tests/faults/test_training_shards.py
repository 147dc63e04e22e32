"""`medsass train` on shards that are damaged before or during training: one line that names the sample."""

import random
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.forks import Fork
from tests.support.trainings import assert_whole, command, start, until


@pytest.fixture
def damageable(shards: Path, tmp_path: Path) -> Path:
    """A copy of the shards, to be damaged."""
    return Path(shutil.copytree(shards, tmp_path / "shards"))


def _truncate(path: Path) -> set[str]:
    """Cut off a tar file within the image of its third sample. Return the keys of the harmed samples, the third first."""
    return _harm(path, lambda data, start, _: data[: start + 100])


def _overwrite(path: Path) -> set[str]:
    """Overwrite the image of the third sample. Return its key."""
    noise = random.Random(5).randbytes(1 << 20)
    return _harm(path, lambda data, start, end: data[: start + 20] + noise[: end - start - 20] + data[end:])


def _harm(path: Path, change: Callable[[bytes, int, int], bytes]) -> set[str]:
    with tarfile.open(path) as opened:
        images = [item for item in opened if item.name.endswith(".png") and not item.name.endswith(".mask.png")]
    start, end = images[2].offset_data, images[2].offset_data + images[2].size
    before = path.read_bytes()
    after = change(before, start, end)
    with path.open("r+b") as file:  # the same file for those who have it open
        file.write(after)
        file.truncate()
    gone = [
        item.name
        for item in images
        if before[item.offset_data :][: item.size] != after[item.offset_data :][: item.size]
    ]
    assert gone[0] == images[2].name
    return {name.removesuffix(".png") for name in gone}


def _assert_named(fork: Fork, tar: Path, keys: set[str]) -> None:
    assert "Traceback" not in fork.err
    last = fork.err.splitlines()[-1]
    found = re.match(rf"medsass: {tar}: .*?sample ([^ :;)]+).*; run: medsass verify {tar.parent}$", last)
    assert found, fork.err
    assert found[1] in keys


def test_shard_truncated_before_training(damageable: Path, tmp_path: Path) -> None:
    tar, run = damageable / "train-000000.tar", tmp_path / "run"
    keys = _truncate(tar)
    fork = start(run, *command(damageable, run), first=["light"])
    assert fork.wait() == 2
    _assert_named(fork, tar, keys)
    assert not run.exists()


def test_shard_overwritten_before_training(damageable: Path, tmp_path: Path) -> None:
    tar, run = damageable / "train-000000.tar", tmp_path / "run"
    keys = _overwrite(tar)
    assert len(keys) == 1
    fork = start(run, *command(damageable, run), first=["light"])
    assert fork.wait() == 2
    _assert_named(fork, tar, keys)
    assert_whole(run)


@pytest.mark.parametrize("harm", [_truncate, _overwrite])
def test_shard_damaged_during_training(harm: Callable[[Path], set[str]], damageable: Path, tmp_path: Path) -> None:
    tar, run = damageable / "train-000000.tar", tmp_path / "run"
    fork = start(run, *command(damageable, run, epochs=100_000, patience=0), first=["light"])
    until((run / "metrics.jsonl").is_file)
    keys = harm(tar)
    assert fork.wait(60) == 2
    _assert_named(fork, tar, keys)
    assert_whole(run)
