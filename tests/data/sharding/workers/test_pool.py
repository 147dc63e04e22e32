"""Worker processes: those that are killed, at whatever moment, take one task with them, and none outlives its parent."""

import os
import random
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from medsass.config import ShardConfig
from medsass.data import synthetic
from medsass.data.sharding import shard
from medsass.data.sharding.catalog.entry import Entry
from medsass.data.sharding.catalog.listing import Stat
from medsass.data.sharding.workers import forkserver
from medsass.data.sharding.workers.pool import Pool, WorkerDiedError
from medsass.data.sharding.workers.tasks import Answer, Setup, Task, WorkItem
from tests.support import forks
from tests.support.effort import counted


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    synthetic.generate(folder, 12, seed=0, size=64)
    return folder


@pytest.fixture
def pool(source: Path, tmp_path: Path) -> Iterator[Pool]:
    chosen, config = shard.resolve(ShardConfig(source, tmp_path / "out"))
    made = Pool(2, Setup(config, tmp_path / "copies", False, str(tmp_path), dict(os.environ)))
    made.tell(chosen)
    yield made
    made.close()


def task(source: Path, *names: str) -> Task:
    items = []
    for name in names:
        path = source / "images" / name
        stat = Stat(path.stat().st_size, str(path.stat().st_mtime_ns)) if path.exists() else Stat(1, "1")
        items.append(WorkItem(len(items), Entry(path.stem, f"images/{name}", (), "train", None, "a"), (stat,)))
    return Task(tuple(items))


def test_each_task_is_answered_or_known_to_have_killed_while_workers_are_killed(pool: Pool, source: Path) -> None:
    rng, names = random.Random(0), sorted(path.name for path in (source / "images").iterdir())
    answered, codes = 0, list[int]()
    waiting = [pool.submit(task(source, *names)) for _ in range(counted(30, 600))]
    for number, ticket in enumerate(waiting):
        if number % 5 == 0:
            assert forkserver._server
            for pid in rng.sample(alive := _descendants(forkserver._server[1].pid), min(1, len(alive))):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        try:
            answer = pool.result(ticket)
        except WorkerDiedError as death:
            codes.append(death.code)
            continue
        assert isinstance(answer, Answer)
        assert [made.result.key for made in answer.made] == [Path(name).stem for name in names]
        answered += 1
    assert answered + len(codes) == len(waiting)
    assert len(codes) <= len(waiting) // 5
    assert set(codes) <= {-signal.SIGKILL}


def test_tasks_of_a_home_go_to_one_worker_and_errors_come_back(pool: Pool, source: Path) -> None:
    name = "nuclei_0000.png"
    for _ in range(6):
        pool.submit(task(source, name), home=1)
    assert sum(worker.busy for worker in pool._workers) == 1
    (rejected,) = pool.result(pool.submit(task(source, "missing.png"))).made
    assert rejected.result.reason == "the file is gone since the run began; run medsass shard again"
    with pytest.raises(AttributeError) as caught:
        pool.result(pool.submit(None))
    assert any("Traceback" in note and "worker.py" in note for note in caught.value.__notes__)
    assert pool.result(pool.submit(task(source, name))).made[0].result.key == "nuclei_0000"


ENDING = """
import os, signal, sys, time
from pathlib import Path
from medsass.config import ShardConfig
from medsass.data.sharding import shard
from medsass.data.sharding.workers import prepare
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a suite in the background of a shell ignores
def stop(done, total):
    print("ready", flush=True)
    time.sleep(60)
shard.write(ShardConfig(Path(sys.argv[1]), Path(sys.argv[2]), images="images/*", workers=3), stop)
"""


def _descendants(pid: int) -> list[int]:
    """Return the processes that descend from one, as far as they have not ended meanwhile."""
    children: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for path in Path(f"/proc/{pid}/task").iterdir():
            children += map(int, (path / "children").read_text().split())
    return children + [one for child in children for one in _descendants(child)]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_outlives_the_command_that_started_it(number: int, source: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(forks.ROOT)}
    words = [sys.executable, "-c", ENDING, str(source), str(tmp_path / "out")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "start_new_session": True}
    with subprocess.Popen(words, text=True, env=environment, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == "ready\n"
        server, *others = _descendants(process.pid)
        assert others
        assert len(list(Path(f"/proc/{server}/task").iterdir())) == 1  # so that it may be forked
        alive = [os.pidfd_open(pid) for pid in (server, *others)]
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does, to all of them
        else:
            process.send_signal(number)
        process.wait()
        for one in alive:
            assert select.select([one], [], [], 20)[0]
            os.close(one)
        said = process.stderr.read()
        assert ("KeyboardInterrupt" in said) == (number == signal.SIGINT)
        assert "worker.py" not in said  # they end without a word
        assert "forkserver.py" not in said
