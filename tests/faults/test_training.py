"""`medsass train` killed, interrupted, out of room, with damaged shards and numbers that overflow: nothing is lost."""

import json
import random
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from medsass.models import checkpoint
from tests.support import built, forked
from tests.support.forked import Fork
from tests.support.trainings import assert_same, assert_whole, command, until


def _train(run: Path, *words: object, log: str = "log", **options: object) -> Fork:
    return forked.server().start(run.with_name(log), words, **options)  # type: ignore[arg-type]


def _again(run: Path) -> list[str]:
    """How a user goes on."""
    return ["--resume"] if (run / "config.json").is_file() else []


@pytest.fixture(scope="module")
def reference(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float, int]:
    """A run without a break, the seconds that it took, and how often it touched a file."""
    run = tmp_path_factory.mktemp("reference") / "run"
    forked.server()
    start = time.monotonic()
    fork = _train(run, *command(shards, run), first=["light"], folder=run)
    assert fork.wait() == 0, fork.err
    return run, time.monotonic() - start, int(fork.err.splitlines()[-1])


def test_killed_at_any_moment_and_gone_on_with_ends_in_the_same_bits(
    shards: Path, reference: tuple[Path, float, int], tmp_path: Path
) -> None:
    whole, duration, _ = reference
    run, rng, places = tmp_path / "run", random.Random(3), list[str]()
    while len(places) < 20:
        code = -signal.SIGKILL
        while code == -signal.SIGKILL:
            fork = _train(run, *command(shards, run, *_again(run)), first=["light"])
            limit = duration * (0.2 if len(places) % 4 == 0 else 1)  # each fourth within its start
            code = fork.wait(rng.uniform(0, limit) if len(places) < 20 else None)
            assert_whole(run)
            if code == -signal.SIGKILL:
                places.append(_place(run))
        assert code == 0, fork.err
        assert_same(run, whole)
        shutil.rmtree(run)
    assert "middle" in places


def _place(run: Path) -> str:
    if not (run / "last.pt").is_file():
        return "start"
    return "middle" if checkpoint.load(run / "last.pt")["done"] else "between"


def test_killed_before_any_step_on_the_disk_and_gone_on_with_ends_in_the_same_bits(
    shards: Path, reference: tuple[Path, float, int], tmp_path: Path
) -> None:
    whole, _, events = reference
    chosen = [*range(1, 5), *random.Random(4).sample(range(5, events - 3), 10), *range(events - 3, events)]
    for event in chosen:
        run = tmp_path / str(event)
        fork = _train(run, *command(shards, run), first=["light"], folder=run, event=event)
        assert fork.wait() == -signal.SIGKILL, event
        assert_whole(run)
        fork = _train(run, *command(shards, run, *_again(run)), first=["light"])
        assert fork.wait() == 0, (event, fork.err)
        assert_same(run, whole)


def test_killed_while_it_replaces_a_run_and_started_again_ends_in_the_same_bits(
    shards: Path, reference: tuple[Path, float, int], tmp_path: Path
) -> None:
    whole, _, _ = reference
    run = tmp_path / "run"
    for event in range(1, 24, 2):
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(whole, run)
        fork = _train(run, *command(shards, run, "--overwrite", seed=1), first=["light"], folder=run, event=event)
        assert fork.wait() == -signal.SIGKILL, event
        assert_whole(run)
        left = {path.name for path in run.iterdir()}
        if "config.json" in left and json.loads((run / "config.json").read_text())["train"]["seed"] == 0:
            assert left == {path.name for path in whole.iterdir()}  # the old run, all of it
        else:
            assert not {"best.pt", "metrics.jsonl"} & left or "config.json" not in left
    fork = _train(run, *command(shards, run, "--overwrite"), first=["light"])
    assert fork.wait() == 0, fork.err
    assert_same(run, whole)


def test_signals_save_in_mid_epoch_and_the_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    options = {"size": 32, "batch_size": 2, "save_every": 0.002}
    shards = built.build(tmp_path / "many", splits={"train": 80, "val": 6})  # 40 steps an epoch
    whole = tmp_path / "whole"
    without = _train(whole, *command(shards, whole, **options), log="without")
    runs = [tmp_path / "SIGTERM", tmp_path / "SIGINT"]
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "medsass", *map(str, command(shards, run, **options))],
            stderr=subprocess.PIPE,
            text=True,
            env=forked.ENVIRONMENT,
            cwd=tmp_path,
        )
        for run in runs
    ]
    for run, process in zip(runs, started, strict=True):
        until(lambda run=run: (run / "last.pt").is_file() and 0 < checkpoint.load(run / "last.pt")["done"] < 20)
        process.send_signal(getattr(signal, run.name))
    for run, process in zip(runs, started, strict=True):
        _, error = process.communicate(timeout=60)
        assert process.returncode == 0, error
        saved = checkpoint.load(run / "last.pt")
        assert saved["done"] > 0
        place = f"step {saved['done']} of epoch {saved['epoch'] + 1}"
        last = f"stopped by {run.name} and saved after {place}; go on with: medsass train {shards} {run} --resume"
        assert error.splitlines()[-1] == last
        (words,) = re.findall("go on with: medsass (.*)", error)
        again = _train(run, *words.split(), log=f"again-{run.name}")
        assert again.wait() == 0, again.err
        assert f"resumed after {place}" in again.err
    assert without.wait() == 0, without.err
    for run in runs:
        assert_same(run, whole)


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 1), ("SIGTERM", -signal.SIGTERM)])
def test_the_second_signal_ends_at_once(name: str, code: int, shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    fork = _train(run, *command(shards, run), first=["light", "slow"])
    until((run / "last.pt").is_file)
    for _ in range(2):
        time.sleep(0.5)
        fork.kill(getattr(signal, name))
    assert fork.wait(30) == code
    assert "Traceback" not in fork.err


def _interrupted(shards: Path, run: Path, events: int) -> None:
    """A run that was killed in the middle of an epoch."""
    fork = _train(run, *command(shards, run), first=["light"], folder=run, event=events // 2)
    assert fork.wait() == -signal.SIGKILL
    assert checkpoint.load(run / "last.pt")["done"] > 0


def test_full_disk_is_one_line_and_room_brings_the_same_bits(
    shards: Path, reference: tuple[Path, float, int], tmp_path: Path
) -> None:
    whole, _, events = reference
    run = tmp_path / "run"
    _interrupted(shards, run, events)
    before = (run / "last.pt").read_bytes()
    (run / "last.pt.part").unlink(missing_ok=True)
    (run / "last.pt.part").symlink_to("/dev/full")
    fork = _train(run, *command(shards, run, "--resume"), first=["light"])
    assert fork.wait() == 2
    assert fork.err.splitlines()[-1] == f"medsass: {run}/last.pt: No space left on device"
    assert "Traceback" not in fork.err
    assert (run / "last.pt").read_bytes() == before
    assert_whole(run)
    assert not (run / "last.pt.part").is_symlink()
    fork = _train(run, *command(shards, run, "--resume"), first=["light"])
    assert fork.wait() == 0, fork.err
    assert_same(run, whole)


@pytest.mark.parametrize("name", ["progress.png", "samples.png", "metrics.jsonl", "model.safetensors", "best.pt"])
def test_full_disk_names_every_file(name: str, shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    fork = _train(run, *command(shards, run), first=["light", "late"])
    until((run / "last.pt").is_file)
    (run / f"{name}.part").symlink_to("/dev/full")
    assert fork.wait(60) == 2
    assert fork.err.splitlines()[-1] == f"medsass: {run}/{name}: No space left on device"
    assert "Traceback" not in fork.err
    assert_whole(run)


@pytest.fixture
def copied(shards: Path, tmp_path: Path) -> Path:
    """Shards to be damaged."""
    return Path(shutil.copytree(shards, tmp_path / "shards"))


def _truncate(path: Path) -> set[str]:
    """Cut a tar file within the image of its third sample; keys of the samples that this harms, first the first."""
    return _harm(path, lambda data, start, _: data[: start + 100])


def _overwrite(path: Path) -> set[str]:
    """Write over the image of its third sample."""
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
    found = re.match(rf"medsass: {tar}: .*sample ([^ :;)]+).*; run: medsass verify {tar.parent}$", last)
    assert found, fork.err
    assert found[1] in keys


def test_shard_that_was_cut_off_before_training(copied: Path, tmp_path: Path) -> None:
    tar, run = copied / "train-000000.tar", tmp_path / "run"
    keys = _truncate(tar)
    fork = _train(run, *command(copied, run), first=["light"])
    assert fork.wait() == 2
    _assert_named(fork, tar, keys)
    assert not run.exists()


def test_shard_that_was_overwritten_before_training(copied: Path, tmp_path: Path) -> None:
    tar, run = copied / "train-000000.tar", tmp_path / "run"
    keys = _overwrite(tar)
    assert len(keys) == 1
    fork = _train(run, *command(copied, run), first=["light"])
    assert fork.wait() == 2
    _assert_named(fork, tar, keys)
    assert_whole(run)


@pytest.mark.parametrize("harm", [_truncate, _overwrite])
def test_shard_that_is_damaged_during_training(harm: Callable[[Path], set[str]], copied: Path, tmp_path: Path) -> None:
    tar, run = copied / "train-000000.tar", tmp_path / "run"
    fork = _train(run, *command(copied, run, epochs=100_000, patience=0), first=["light"])
    until((run / "metrics.jsonl").is_file)
    keys = harm(tar)
    assert fork.wait(60) == 2
    _assert_named(fork, tar, keys)
    assert_whole(run)


@pytest.mark.parametrize("loss", ["cross-entropy", "focal-tversky"])
def test_numbers_that_overflow_name_step_images_and_the_last_good_checkpoint(
    loss: str, shards: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    fork = _train(run, *command(shards, run, lr=1e30, loss=loss, warmup=0.0), first=["light"])
    assert fork.wait() == 2
    assert "Traceback" not in fork.err
    saved = checkpoint.load(run / "last.pt")
    for name, value in saved["model"].items():
        assert value.isfinite().all(), name
    place = f"step {saved['done']} of epoch {saved['epoch'] + 1}"
    last = fork.err.splitlines()[-1]
    assert re.match(
        r"medsass: (the training loss of|a weight after) step \d+ of epoch \d+ is not finite; its 4 images: (\w+, )+\w+"
        r"(; the step before, which may have spoilt the weights, had (\w+, )+\w+)?\. ",
        last,
    )
    assert f"The last good checkpoint is {run}/last.pt, of {place};" in last
    assert "train anew with a lower --lr (now 1e+30)" in last


def test_too_little_memory_names_what_fits_and_auto_batch_takes_it(shards: Path, tmp_path: Path) -> None:
    crowded = ["light", "crowded"]
    first, auto, by_hand = (tmp_path / name for name in ("first", "auto", "by_hand"))
    fork = _train(first, *command(shards, first, batch_size=16), first=crowded)
    assert fork.wait() == 2
    last = fork.err.splitlines()[-1]
    assert last.startswith(
        "medsass: 16 images at once do not fit the GPU's memory, 4 do; start again with --batch-size 4,"
    )
    assert "--accumulate 4" in last
    assert "--auto-batch" in last
    fork = _train(auto, *command(shards, auto, "--auto-batch", batch_size=16), first=crowded)
    assert fork.wait() == 0, fork.err
    assert "--auto-batch: steps of 16 images in 4 micro-batches" in fork.err
    assert json.loads((auto / "config.json").read_text())["train"]["accumulate"] == 4
    fork = _train(by_hand, *command(shards, by_hand, accumulate=4, batch_size=16), first=crowded)
    assert fork.wait() == 0, fork.err
    assert_same(auto, by_hand)
