"""`medsass train` killed, interrupted, on a full disk, out of memory and with numbers that overflow: nothing is lost."""

import json
import random
import re
import shutil
import signal
import time
from pathlib import Path

import pytest

from medsass import temporary
from medsass.models import checkpoint
from tests.support import built, forks
from tests.support.effort import counted
from tests.support.trainings import assert_same, assert_whole, command, start, until


def _again(run: Path) -> list[str]:
    """Return the option by which a user goes on."""
    return ["--resume"] if (run / "config.json").is_file() else []


@pytest.fixture(scope="module")
def reference(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float, int]:
    """An uninterrupted run, its seconds, and the number of its file events."""
    run = tmp_path_factory.mktemp("reference") / "run"
    forks.server()
    begin = time.monotonic()
    fork = start(run, *command(shards, run), first=["light"], folder=run)
    assert fork.wait() == 0, fork.err
    return run, time.monotonic() - begin, int(fork.err.splitlines()[-1])


def test_killed_at_any_moment_and_resumed_ends_in_the_same_bits(
    shards: Path, reference: tuple[Path, float, int], tmp_path: Path
) -> None:
    whole, duration, _ = reference
    run, rng, places = tmp_path / "run", random.Random(3), list[str]()
    kills = counted(5, 20)
    while len(places) < kills or "middle" not in places:
        code = -signal.SIGKILL
        while code == -signal.SIGKILL:
            fork = start(run, *command(shards, run, *_again(run)), first=["light"])
            limit = duration * (0.2 if len(places) % 4 == 0 else 1)  # each fourth within its start
            code = fork.wait(rng.uniform(0, limit) if len(places) < kills else None)
            assert_whole(run)
            if code == -signal.SIGKILL:
                places.append(_place(run))
        assert code == 0, fork.err
        assert_same(run, whole)
        shutil.rmtree(run)


def _place(run: Path) -> str:
    if not (run / "last.pt").is_file():
        return "start"
    return "middle" if checkpoint.load(run / "last.pt")["done"] else "between"


def test_killed_before_any_step_on_the_disk_and_resumed_ends_in_the_same_bits(
    shards: Path, reference: tuple[Path, float, int], tmp_path: Path
) -> None:
    whole, _, events = reference
    rng = random.Random(4)
    chosen = [*range(1, 5), *rng.sample(range(5, events - 3), 10), *range(events - 3, events)]
    for event in rng.sample(chosen, counted(5, len(chosen))):
        run = tmp_path / str(event)
        fork = start(run, *command(shards, run), first=["light"], folder=run, event=event)
        assert fork.wait() == -signal.SIGKILL, event
        assert_whole(run)
        fork = start(run, *command(shards, run, *_again(run)), first=["light"])
        assert fork.wait() == 0, (event, fork.err)
        assert_same(run, whole)


def test_killed_while_it_replaces_a_run_and_started_again_ends_in_the_same_bits(
    shards: Path, reference: tuple[Path, float, int], tmp_path: Path
) -> None:
    whole, _, _ = reference
    run = tmp_path / "run"
    for event in range(1, 24, counted(5, 2)):
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(whole, run)
        fork = start(run, *command(shards, run, "--overwrite", seed=1), first=["light"], folder=run, event=event)
        assert fork.wait() == -signal.SIGKILL, event
        assert_whole(run)
        left = {path.name for path in run.iterdir() if path.name != temporary.LOCK}
        if "config.json" in left and json.loads((run / "config.json").read_text())["train"]["seed"] == 0:
            assert left == {path.name for path in whole.iterdir()}  # the old run, all of it
        else:
            assert not {"best.pt", "metrics.jsonl"} & left or "config.json" not in left
    fork = start(run, *command(shards, run, "--overwrite"), first=["light"])
    assert fork.wait() == 0, fork.err
    assert_same(run, whole)


def test_signals_save_in_mid_epoch_and_the_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    options = {"batch_size": 2, "save_every": 0.002}
    shards = built.build(tmp_path / "many", splits={"train": 80, "val": 6})  # 40 steps an epoch
    whole = tmp_path / "whole"
    without = start(whole, *command(shards, whole, **options), log="without", first=["light"])
    runs = [tmp_path / "SIGTERM", tmp_path / "SIGINT"]
    lines = [command(shards, run, **options) for run in runs]
    started = [start(run, *line, log=run.name, first=["light", "paced"]) for run, line in zip(runs, lines, strict=True)]
    for run, fork in zip(runs, started, strict=True):
        until(lambda run=run: (run / "last.pt").is_file() and 0 < checkpoint.load(run / "last.pt")["done"] < 20)
        fork.kill(getattr(signal, run.name))
    for run, fork in zip(runs, started, strict=True):
        assert fork.wait(60) == 0, fork.err
        error = fork.err
        saved = checkpoint.load(run / "last.pt")
        assert saved["done"] > 0
        place = f"step {saved['done']} of epoch {saved['epoch'] + 1}"
        last = f"stopped by {run.name} and saved after {place}; go on with: medsass train {shards} {run} --resume"
        assert error.splitlines()[-1] == last
        (words,) = re.findall("go on with: medsass (.*)", error)
        again = start(run, *words.split(), log=f"again-{run.name}", first=["light"])
        assert again.wait() == 0, again.err
        assert f"resumed after {place}" in again.err
    assert without.wait() == 0, without.err
    for run in runs:
        assert_same(run, whole)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_the_second_signal_ends_at_once_and_its_command_goes_on_to_the_same_bits(
    name: str, shards: Path, reference: tuple[Path, float, int], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    fork = start(run, *command(shards, run), first=["light", "slow"])
    until((run / "last.pt").is_file)
    fork.kill(getattr(signal, name))
    until(lambda: f"{name}: saves and stops after this step; a second one stops at once" in fork.err)
    fork.kill(getattr(signal, name))
    assert fork.wait(30) == 130
    again = f"medsass train {shards} {run} --resume"
    said = f"medsass: interrupted; the last checkpoint is of step 0 of epoch 1; go on with: {again}"
    assert fork.err.splitlines()[-1] == said
    assert "Traceback" not in fork.err
    fork = start(run, *again.split()[1:], first=["light"])
    assert fork.wait() == 0, fork.err
    assert_same(run, reference[0])


def _interrupted(shards: Path, run: Path, events: int) -> None:
    """Kill a run in the middle of an epoch."""
    fork = start(run, *command(shards, run), first=["light"], folder=run, event=events // 2)
    assert fork.wait() == -signal.SIGKILL
    assert checkpoint.load(run / "last.pt")["done"] > 0


def test_full_disk_is_one_line_and_room_brings_the_same_bits(
    shards: Path, reference: tuple[Path, float, int], tmp_path: Path
) -> None:
    whole, _, events = reference
    run = tmp_path / "run"
    _interrupted(shards, run, events)
    before = (run / "last.pt").read_bytes()
    (tmp_path / "last.pt.full").touch()
    fork = start(run, *command(shards, run, "--resume"), first=["light", "full"])
    assert fork.wait() == 2
    assert fork.err.splitlines()[-1] == f"medsass: {run}/last.pt: No space left on device"
    assert "Traceback" not in fork.err
    assert (run / "last.pt").read_bytes() == before
    assert_whole(run)
    fork = start(run, *command(shards, run, "--resume"), first=["light"])
    assert fork.wait() == 0, fork.err
    assert_same(run, whole)


@pytest.mark.parametrize("name", ["progress.png", "samples.png", "metrics.jsonl", "model.safetensors", "best.pt"])
def test_full_disk_names_every_file(name: str, shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    fork = start(run, *command(shards, run), first=["light", "late", "full"])
    until((run / "last.pt").is_file)
    (tmp_path / f"{name}.full").touch()
    assert fork.wait(60) == 2
    assert fork.err.splitlines()[-1] == f"medsass: {run}/{name}: No space left on device"
    assert "Traceback" not in fork.err
    assert_whole(run)


@pytest.mark.parametrize("loss", ["cross-entropy", "focal-tversky"])
def test_numbers_that_overflow_name_step_images_and_the_last_good_checkpoint(
    loss: str, shards: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    fork = start(run, *command(shards, run, lr=1e30, loss=loss, warmup=0.0), first=["light"])
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
    fork = start(first, *command(shards, first, batch_size=16), first=crowded)
    assert fork.wait() == 2
    last = fork.err.splitlines()[-1]
    assert last.startswith(
        "medsass: 16 images at once do not fit the GPU's memory, 4 do; start again with --batch-size 4,"
    )
    assert "--accumulate 4" in last
    assert "--auto-batch" in last
    fork = start(auto, *command(shards, auto, "--auto-batch", batch_size=16), first=crowded)
    assert fork.wait() == 0, fork.err
    assert "--auto-batch: steps of 16 images in 4 micro-batches" in fork.err
    assert json.loads((auto / "config.json").read_text())["train"]["accumulate"] == 4
    fork = start(by_hand, *command(shards, by_hand, accumulate=4, batch_size=16), first=crowded)
    assert fork.wait() == 0, fork.err
    assert_same(auto, by_hand)


def test_too_little_memory_of_a_cpu_is_one_line_and_loses_nothing(
    shards: Path, reference: tuple[Path, float, int], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    fork = start(run, *command(shards, run), first=["light", "cramped"])
    assert fork.wait() == 2
    last = fork.err.splitlines()[-1]
    assert last.startswith("medsass: memory ran out (")
    assert "can't allocate memory" in last
    assert "start again with a smaller --batch-size or --size, or with more --accumulate" in last
    assert "Traceback" not in fork.err
    assert checkpoint.load(run / "last.pt")["done"] == 2
    fork = start(run, *command(shards, run, "--resume"), first=["light"])
    assert fork.wait() == 0, fork.err
    assert_same(run, reference[0])
