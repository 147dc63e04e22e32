"""Two processes that train together, as torchrun starts them: they learn what one does, and survive the loss of one."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from medsass.models import checkpoint
from tests.support import built, forks
from tests.support.forks import Fork
from tests.support.trainings import assert_same, assert_whole, command, history, start, until

FILES = ["best.pt", "config.json", "last.pt", "metrics.jsonl", "model.safetensors", "progress.png", "samples.png"]
FILES += ["tensorboard"]
LONG: dict[str, Any] = {"batch_size": 2, "save_every": 0.002}  # forty steps an epoch on `many`


def _pair(run: Path, words: Sequence[object], first: Sequence[str] = (), **environment: str) -> list[Fork]:
    """Start two processes with the environment that torchrun gives them, but without torchrun."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, **environment}
    ranks = [(f"{run.name}-{rank}", {**shared, "RANK": rank, "LOCAL_RANK": rank}) for rank in "01"]
    return [start(run, *words, log=log, first=first, environment=variables) for log, variables in ranks]


def _assert_well(forks: list[Fork]) -> None:
    assert [fork.wait(60) for fork in forks] == [0, 0], "".join(fork.err for fork in forks)


def _alone(run: Path, words: Sequence[object], first: Sequence[str] = ()) -> None:
    fork = start(run, *words, log=f"{run.name}-alone", first=first)
    assert fork.wait() == 0, fork.err


def _losses(run: Path, name: str = "train_loss") -> list[float]:
    return [line[name] for line in history(run)]


def test_two_processes_learn_the_same_as_one_with_two_micro_batches(shards: Path, tmp_path: Path) -> None:
    two, one = tmp_path / "two", tmp_path / "one"
    options = {"size": 32, "batch_size": 8, "loss": "cross-entropy"}
    _assert_well(_pair(two, command(shards, two, **options)))
    _alone(one, command(shards, one, accumulate=2, **options))
    assert _losses(two) == pytest.approx(_losses(one), rel=1e-4)
    assert _losses(two)[-1] < 0.9 * _losses(two)[0]


def test_two_processes_learn_the_same_as_one_without_batch_norm(shards: Path, tmp_path: Path) -> None:
    two, one = tmp_path / "two", tmp_path / "one"
    _assert_well(_pair(two, command(shards, two, batch_size=8), ["unnormed"]))
    _alone(one, command(shards, one, batch_size=8), ["unnormed"])
    for name in ("train_loss", "val_loss", "val_iou_target"):
        assert _losses(two, name) == pytest.approx(_losses(one, name), rel=1e-4), name


def test_two_processes_stay_close_to_one_whose_batch_statistics_are_of_more_images(
    shards: Path, tmp_path: Path
) -> None:
    two, one = tmp_path / "two", tmp_path / "one"
    _assert_well(_pair(two, command(shards, two, batch_size=16), ["light"]))
    _alone(one, command(shards, one, batch_size=16), ["light"])
    assert _losses(two) != _losses(one)
    assert _losses(two) == pytest.approx(_losses(one), rel=0.05)


def test_a_validation_that_does_not_come_out_even_ends(tmp_path: Path) -> None:
    """In the last step one process has an image and the other none."""
    shards = built.build(tmp_path / "odd", splits={"train": 8, "val": 5})
    two, one = tmp_path / "two", tmp_path / "one"
    _assert_well(_pair(two, command(shards, two, epochs=1, lr=0.0), ["unnormed"]))
    _alone(one, command(shards, one, epochs=1, lr=0.0), ["unnormed"])
    assert _losses(two, "val_iou_target") == pytest.approx(_losses(one, "val_iou_target"), rel=1e-4)


def test_batch_that_cannot_be_dealt_out_is_one_line(shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    forks = _pair(run, command(shards, run, batch_size=7), ["light"])
    assert [fork.wait(60) for fork in forks] == [2, 2]
    (line,) = "".join(fork.err for fork in forks).splitlines()
    assert line.startswith("medsass: --batch-size 7 ")
    assert "2 processes" in line
    assert not run.exists()


def test_a_run_that_is_there_is_refused_in_one_line(shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    _alone(run, command(shards, run, epochs=1), ["light"])
    before = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    os.utime(run / "config.json", (0, 0))  # older than the process that starts the two
    for restarts in "01":
        words = command(shards, run, epochs=1)
        forks = _pair(run, words, ["light"], TORCHELASTIC_RESTART_COUNT=restarts)
        assert [fork.wait(60) for fork in forks] == [2, 2], restarts
        (line,) = "".join(fork.err for fork in forks).splitlines()
        assert line.startswith(f"medsass: {run} already holds a run")
    assert {path: path.read_bytes() for path in run.iterdir() if path.is_file()} == before


class Torchrun:
    """A torchrun of two processes. `out` and `err` hold all output so far."""

    def __init__(self, folder: Path, words: Sequence[object], *options: str) -> None:
        self._log = folder / "torchrun.err"
        line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *options]
        line += ["-m", "tests.support.forks", "light,paced", *map(str, words)]
        environment = {**forks.ENVIRONMENT, "PYTHONPATH": str(forks.ROOT)}
        with self._log.open("w") as err, self._log.with_suffix(".out").open("w") as out:
            self.process = subprocess.Popen(line, stderr=err, stdout=out, env=environment, cwd=folder)

    @property
    def err(self) -> str:
        return self._log.read_text()

    @property
    def out(self) -> str:
        return self._log.with_suffix(".out").read_text()

    def wait(self, seconds: float) -> int:
        return self.process.wait(seconds)

    def terminate(self) -> None:
        self.process.terminate()

    def kill(self, rank: int) -> None:
        """Kill one of its processes."""
        for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            if f"\0RANK={rank}\0" in Path(f"/proc/{pid}/environ").read_text():
                os.kill(int(pid), signal.SIGKILL)
                return
        raise ProcessLookupError(rank)


class Pair:
    """Two forks with the interface of `Torchrun`, which takes the time of three imports."""

    def __init__(self, folder: Path, words: Sequence[object]) -> None:
        self._forks = _pair(folder / "pair", words, ["light", "paced"])

    @property
    def err(self) -> str:
        return "".join(fork.err for fork in self._forks)

    @property
    def out(self) -> str:
        return "".join(fork.out for fork in self._forks)

    def wait(self, seconds: float) -> int:
        return max(map(abs, [fork.wait(seconds) for fork in self._forks]))

    def terminate(self) -> None:
        for fork in self._forks:
            fork.kill(signal.SIGTERM)


@pytest.fixture
def torchrun(tmp_path: Path) -> Iterator[Callable[..., Torchrun]]:
    """A function that starts a torchrun, which ends with the test."""
    made: list[Torchrun] = []

    def start_one(*values: Any) -> Torchrun:
        made.append(Torchrun(tmp_path, *values))
        return made[-1]

    yield start_one
    for one in made:
        one.process.terminate()
        one.process.wait()


@pytest.fixture(params=["forks", pytest.param("torchrun", marks=pytest.mark.slow)])
def two(request: pytest.FixtureRequest, torchrun: Callable[..., Torchrun], tmp_path: Path) -> Callable[..., Any]:
    """A function that starts two processes, by torchrun or without it."""
    return torchrun if request.param == "torchrun" else partial(Pair, tmp_path)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards for 40 steps an epoch. Read only."""
    return built.build(tmp_path_factory.mktemp("many"), splits={"train": 80, "val": 6})


@pytest.fixture(scope="module")
def whole(many: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of two processes."""
    run = tmp_path_factory.mktemp("whole") / "run"
    _assert_well(_pair(run, command(many, run, **LONG), ["light"]))
    return run


def test_two_processes_give_one_run_directory_and_one_voice(
    many: Path, whole: Path, two: Callable[..., Any], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    started = two(command(many, run, **LONG))
    assert started.wait(100) == 0, started.err
    assert sorted(path.name for path in run.iterdir()) == FILES
    assert [line["epoch"] for line in history(run)] == [1, 2]
    assert started.out.count(f"Run directory: {run}") == 1
    assert started.err.count("\nepoch 1/2") == 1
    assert started.err.count("on 2 processes, the first cpu") == 1
    assert_same(run, whole)


def _middle(run: Path, at_least: tuple[int, int] = (0, 0)) -> bool:
    """Return whether a run is in the middle of an epoch and past (epoch, step)."""
    if not (run / "last.pt").is_file():
        return False
    saved = checkpoint.load(run / "last.pt")
    return 0 < saved["done"] < 12 and (saved["epoch"], saved["done"]) > at_least


def _lost(err: str, rank: int) -> list[str]:
    return re.findall(rf"^medsass: process {rank} of 2 lost another one .*--resume$", err, re.MULTILINE)


@pytest.mark.slow
def test_a_lost_process_ends_or_restarts_all_and_nothing_is_lost(
    many: Path, whole: Path, torchrun: Callable[..., Torchrun], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    started = torchrun(command(many, run, **LONG), "--max-restarts", "1")
    until(lambda: _middle(run))
    started.kill(rank=1)
    until(lambda: "resumed after" in started.err)
    assert len(_lost(started.err, 0)) == 1
    (epochs, done) = (int(n) for n in re.findall(r"resumed after step (\d+) of epoch (\d+)", started.err)[0][::-1])
    until(lambda: _middle(run, (epochs - 1, done + 1)))
    started.kill(rank=0)
    assert started.process.wait(30) != 0
    assert len(_lost(started.err, 1)) == 1
    assert_whole(run)
    assert checkpoint.load(run / "last.pt")["done"] > 0
    assert json.loads((run / "config.json").read_text())["train"]["resume"] is False
    _assert_well(_pair(run, command(many, run, "--resume"), ["light"]))
    assert_same(run, whole)


def test_sigterm_saves_and_the_run_goes_on_to_the_same_bits(
    many: Path, whole: Path, two: Callable[..., Any], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    started = two(command(many, run, **LONG))
    until(lambda: _middle(run))
    started.terminate()
    started.wait(30)
    saved = checkpoint.load(run / "last.pt")
    place = f"step {saved['done']} of epoch {saved['epoch'] + 1}"
    stops = re.findall("^stopped by .*--resume$", started.err, re.MULTILINE)
    assert stops == [
        f"stopped by SIGTERM and saved after {place}; go on with: the same torchrun command and --resume"
    ], started.err
    assert saved["done"] > 0
    _assert_well(_pair(run, command(many, run, "--resume"), ["light"]))
    assert_same(run, whole)
