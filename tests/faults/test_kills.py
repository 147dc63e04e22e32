"""`medsass shard` killed, at any moment and before each step: complete files stay complete."""

import json
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medsass.data import synthetic
from medsass.data.sharding import shard
from medsass.data.shards.verify import verify
from tests.support.faults import OPTIONS, config, contents, one_split, part, reasons

# One process has everything imported and forks a writer for each job. The writer is killed after some seconds,
# or before the n-th time that it opens, renames, removes or lists something in OUT or beside it.
SERVER = """
import json, os, select, signal, sys
from pathlib import Path
from medsass.config import ShardConfig
from medsass.data import dali
from medsass.data.sharding import shard
for name in ("nvidia.dali", "nvidia.dali.fn", "nvidia.dali.types"):
    dali.import_dali(name)
def write(job):
    left = [job["event"]]
    def hook(event, values):
        if event in ("open", "sqlite3.connect") or event.startswith("os."):
            if any(job["options"]["out"] in str(value) for value in values):
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    options = {**job["options"], "source": Path(job["options"]["source"]), "out": Path(job["options"]["out"])}
    try:
        shard.write(ShardConfig(**options))
    except (ValueError, OSError) as error:
        return str(error)
    return "" if left[0] <= 0 else f"done {job['event'] - left[0]}"
def start(job):
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, reader
    try:
        os.write(writer, write(job).encode())
    finally:
        os._exit(0)
def end(child, reader, seconds):
    if not select.select([reader], [], [], seconds)[0]:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        return "killed" if os.WIFSIGNALED(status) else pipe.read()
print("ready", flush=True)
for line in sys.stdin:
    jobs = json.loads(line)
    print(json.dumps([end(*one, jobs[0]["seconds"]) for one in [start(job) for job in jobs]]), flush=True)
"""


class Server:
    """Runs `medsass shard` in processes that can be killed."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout
        assert self._process.stdout.readline() == "ready\n"

    def run(self, *options: dict[str, Any], seconds: float | None = None, event: int = 1 << 30) -> list[str]:
        """Return, for each writer, "killed", "done" and the number of events, or its error."""
        assert self._process.stdin
        assert self._process.stdout
        jobs = [{"options": {**OPTIONS, **one}, "seconds": seconds, "event": event} for one in options]
        self._process.stdin.write(json.dumps(jobs) + "\n")
        self._process.stdin.flush()
        return list(json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


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


def survive(server: Server, source: Path, folder: Path, kills: int, old: Path | None = None, **options: Any) -> None:
    """Kill writers at random moments until `kills` have died, go on after each, and compare the results."""
    places = {"source": str(source), "out": str(folder / "reference")}
    start = time.monotonic()
    (answer,) = server.run({**options, **places})
    duration, expected = time.monotonic() - start, contents(folder / "reference")
    assert answer.startswith("done")
    assert verify(folder / "reference") == []
    out, rng, died = folder / "out", random.Random(kills), 0
    places["out"], first = str(out), {"overwrite": True} if old else {}
    while died < kills:
        if old:
            shutil.copytree(old, out)
        answer = "killed"
        while answer == "killed":
            limit = rng.uniform(0, duration) if died < kills else None
            (answer,) = server.run({**options, **places, **go_on(out, first)}, seconds=limit)
            died += answer == "killed"
            if old and answer == "killed":
                between = out.with_name("out.old")  # for the microseconds between two renames
                whole = out if out.is_dir() else between
                assert contents(whole) in (contents(old), expected)
                assert verify(whole) == []
        assert answer.startswith("done")
        assert contents(out) == expected
        assert not part(out).exists()
        shutil.rmtree(out)


def test_killed_at_any_moment_and_resumed_gives_the_same_bytes(server: Server, many: Path, tmp_path: Path) -> None:
    survive(server, many, tmp_path, 20)


def test_killed_runs_with_tiles_duplicates_and_bad_files_give_the_same_bytes(
    server: Server, troubled: Path, tmp_path: Path
) -> None:
    survive(server, troubled, tmp_path, 8, tile=24, min_foreground=0.05)
    kinds = {reason.split()[0] for reason in reasons(tmp_path / "reference").values()}
    assert kinds == {"empty", "not", "the"}  # empty files, no images, the same bytes as another


def test_old_dataset_stays_whole_until_the_new_one_is(server: Server, many: Path, shards: Path, tmp_path: Path) -> None:
    survive(server, many, tmp_path, 8, old=shards)


@pytest.mark.parametrize("old", [False, True], ids=["new", "overwrite"])
def test_killed_before_each_of_the_last_steps(old: bool, server: Server, source: Path, tmp_path: Path) -> None:
    out, first = tmp_path / "out", {"overwrite": True} if old else {}
    places = {"source": str(source), "out": str(out)}
    shard.write(config(source, tmp_path / "new"))
    shard.write(config(source, tmp_path / "old", recipe=one_split(tmp_path, "first"), images="", masks=""))

    def begin() -> None:
        shutil.rmtree(out, ignore_errors=True)
        if old:
            shutil.copytree(tmp_path / "old", out)

    begin()
    (answer,) = server.run({**places, **first})
    steps = int(answer.removeprefix("done "))
    for step in range(steps - (20 if old else 12), steps + 1):
        begin()
        assert server.run({**places, **first}, event=step) == ["killed"]
        whole = out if out.is_dir() else tmp_path / "out.old"
        assert not old or contents(whole) in (contents(tmp_path / "old"), contents(tmp_path / "new")), step
        (answer,) = server.run({**places, **go_on(out, first)})
        assert not answer or answer.startswith("done"), (step, answer)
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


def test_two_writers_at_once_leave_one_whole_dataset(server: Server, many: Path, tmp_path: Path) -> None:
    places = {"source": str(many), "out": str(tmp_path / "out")}
    server.run({**places, "out": str(tmp_path / "reference")})
    for _ in range(3):
        answers = server.run(places, places)
        assert sum(answer.startswith("done") for answer in answers) == 1
        (refused,) = (answer for answer in answers if not answer.startswith("done"))
        assert re.search("is being written by another medsass shard|is not empty|--resume", refused)
        assert contents(tmp_path / "out") == contents(tmp_path / "reference")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "reference"]
        shutil.rmtree(tmp_path / "out")
