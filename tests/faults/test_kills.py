"""`medsass shard` killed, at any moment and before each step: complete files stay complete."""

import random
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from medsass.data import synthetic
from medsass.data.sharding import shard
from medsass.data.shards.verify import verify
from tests.support import forks
from tests.support.effort import counted
from tests.support.faults import OPTIONS, config, contents, one_split, part, reasons


class Writers:
    """Runs `medsass shard` in forks that can be killed."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs

    def run(self, *options: dict[str, Any], seconds: float | None = None, event: int = forks.NEVER) -> list[str]:
        """Return, for each writer, "killed", "done" and the number of events, or its error.

        Each is killed after `seconds`, or before the event with that number, as `forks.Server.start` counts them in OUT.
        """
        return [self._end(fork, seconds) for fork in [self._start(one, event) for one in options]]

    def _start(self, options: dict[str, Any], event: int) -> forks.Fork:
        named = {**OPTIONS, **options}
        words = ["shard", named.pop("source"), out := named.pop("out")]
        for name, value in named.items():
            words += [f"--{name.replace('_', '-')}"] + ([] if value is True else [value])
        log = self._logs / str(len(list(self._logs.iterdir())))
        return forks.server().start(log, words, folder=Path(out), event=event)

    def _end(self, fork: forks.Fork, seconds: float | None) -> str:
        code = fork.wait(seconds)
        if code == -signal.SIGKILL:
            return "killed"
        *lines, events = fork.err.splitlines()
        return f"done {events}" if code == 0 else lines[-1]


@pytest.fixture(scope="module")
def writers(tmp_path_factory: pytest.TempPathFactory) -> Writers:
    forks.server()  # so that no writer's time holds its start
    return Writers(tmp_path_factory.mktemp("logs"))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 pairs that fill 22 tar files. Read only."""
    folder = tmp_path_factory.mktemp("many")
    synthetic.generate(folder, 100, seed=3, size=32)
    return folder


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 pairs, copies of six of them, and four files that are no images. Read only."""
    folder = tmp_path_factory.mktemp("troubled")
    synthetic.generate(folder, 40, seed=4, size=64)
    for i in range(6):
        for kind in ("images", "masks"):
            shutil.copy(folder / kind / f"nuclei_{i:04d}.png", folder / kind / f"copy_{i}.png")
    for i in range(4):
        (folder / "images" / f"bad_{i}.png").write_bytes(b"no image" * i)
        shutil.copy(folder / "masks" / "nuclei_0009.png", folder / "masks" / f"bad_{i}.png")
    return folder


def go_on(out: Path, first: dict[str, Any]) -> dict[str, Any]:
    """Return the options of the next run: --resume after the first written byte, also where the killed run was complete."""
    begun = part(out).is_dir() and any(part(out).iterdir())
    complete = not first and (out / "manifest.json").is_file()  # killed between its last step and its end
    return {"resume": True} if begun or complete else first


def survive(writers: Writers, source: Path, folder: Path, kills: int, old: Path | None = None, **options: Any) -> None:
    """Kill writers at random moments until `kills` have died, go on after each, and compare the results."""
    places = {"source": str(source), "out": str(folder / "reference")}
    start = time.monotonic()
    (answer,) = writers.run({**options, **places})
    duration, expected = time.monotonic() - start, contents(folder / "reference")
    assert answer.startswith("done")
    assert verify(folder / "reference", trusting=False) == []
    out, rng, died = folder / "out", random.Random(kills), 0
    places["out"], first = str(out), {"overwrite": True} if old else {}
    while died < kills:
        if old:
            shutil.copytree(old, out)
        answer = "killed"
        while answer == "killed":
            limit = rng.uniform(0, duration) if died < kills else None
            (answer,) = writers.run({**options, **places, **go_on(out, first)}, seconds=limit)
            died += answer == "killed"
            if old and answer == "killed":
                between = out.with_name("out.old")  # for the microseconds between two renames
                whole = out if out.is_dir() else between
                assert contents(whole) in (contents(old), expected)
                assert verify(whole, trusting=False) == []
        assert answer.startswith("done")
        assert contents(out) == expected
        assert not part(out).exists()
        shutil.rmtree(out)


def test_killed_at_any_moment_and_resumed_gives_the_same_bytes(writers: Writers, many: Path, tmp_path: Path) -> None:
    survive(writers, many, tmp_path, counted(5, 20))


def test_killed_runs_with_tiles_duplicates_and_bad_files_give_the_same_bytes(
    writers: Writers, troubled: Path, tmp_path: Path
) -> None:
    survive(writers, troubled, tmp_path, counted(3, 8), tile=24, min_foreground=0.05)
    kinds = {reason.split()[0] for reason in reasons(tmp_path / "reference").values()}
    assert kinds == {"empty", "not", "the"}  # empty files, no images, the same bytes as another


def test_old_dataset_stays_whole_until_the_new_one_is(
    writers: Writers, many: Path, shards: Path, tmp_path: Path
) -> None:
    survive(writers, many, tmp_path, counted(3, 8), old=shards)


@pytest.mark.parametrize("old", [False, True], ids=["new", "overwrite"])
def test_killed_before_each_of_the_last_steps(old: bool, writers: Writers, source: Path, tmp_path: Path) -> None:
    out, first = tmp_path / "out", {"overwrite": True} if old else {}
    places = {"source": str(source), "out": str(out)}
    shard.write(config(source, tmp_path / "new"))
    shard.write(config(source, tmp_path / "old", recipe=one_split(tmp_path, "first"), images="", masks=""))

    def begin() -> None:
        shutil.rmtree(out, ignore_errors=True)
        if old:
            shutil.copytree(tmp_path / "old", out)

    begin()
    (answer,) = writers.run({**places, **first})
    steps = int(answer.removeprefix("done "))
    for step in range(steps - (20 if old else 12), steps + 1, counted(4, 1)):
        begin()
        assert writers.run({**places, **first}, event=step) == ["killed"]
        whole = out if out.is_dir() else tmp_path / "out.old"
        assert not old or contents(whole) in (contents(tmp_path / "old"), contents(tmp_path / "new")), step
        (answer,) = writers.run({**places, **go_on(out, first)})
        assert answer.startswith("done"), (step, answer)
        assert contents(out) == contents(tmp_path / "new"), step
        assert sorted(path.name for path in tmp_path.glob("out*")) == ["out"], step


def test_overwrite_after_a_kill_between_the_two_renames_brings_the_old_dataset_back_first(
    source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shard.write(config(source, out, size=16))
    before = contents(out)
    out.rename(tmp_path / "out.old")
    shard.write(config(source, part(out)))
    for path in (source / "images").iterdir():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="none of its 12 images can be used"):
        shard.write(config(source, out, overwrite=True))
    assert contents(out) == before


def test_two_writers_at_once_leave_one_whole_dataset(writers: Writers, many: Path, tmp_path: Path) -> None:
    places = {"source": str(many), "out": str(tmp_path / "out")}
    writers.run({**places, "out": str(tmp_path / "reference")})
    for _ in range(3):
        answers = writers.run(places, places)
        assert sum(answer.startswith("done") for answer in answers) == 1
        (refused,) = (answer for answer in answers if not answer.startswith("done"))
        assert re.search("is being written by another medsass shard|is not empty|--resume", refused)
        assert contents(tmp_path / "out") == contents(tmp_path / "reference")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "reference"]
        shutil.rmtree(tmp_path / "out")
