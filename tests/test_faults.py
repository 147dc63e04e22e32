"""`medsass shard` where things go wrong: kills, full disks, sources that change, odd files. What is whole stays whole."""

import json
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import webdataset
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image

from medsass.cli import main
from medsass.config import ShardConfig
from medsass.data import journal, nuclei, shard, tar
from medsass.data.intake import Intake
from medsass.data.manifest import REJECTED, load
from medsass.data.verify import verify

OPTIONS: dict[str, Any] = {"images": "images/*", "masks": "masks/*", "max_shard_bytes": 20_480}


def config(source: Path, out: Path, **changes: object) -> ShardConfig:
    return ShardConfig(source, out, **{**OPTIONS, **changes})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def stored(folder: Path) -> dict[str, dict[str, bytes]]:
    """Samples by key, as the webdataset library reads them."""
    paths = [str(folder / item.file) for split in load(folder).splits.values() for item in split.shards]
    dataset = webdataset.WebDataset(paths, shardshuffle=False, empty_check=False)
    return {sample["__key__"]: {k: v for k, v in sample.items() if k[0] != "_"} for sample in dataset}


def by_source(folder: Path) -> dict[str, str]:
    """Key by the file that it came from."""
    return {json.loads(content["json"])["source"]: key for key, content in stored(folder).items()}


def decoded(data: bytes) -> NDArray[Any]:
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED))


def reasons(folder: Path) -> dict[str, str]:
    """Reason by file of rejected.jsonl, which names each file once."""
    lines = [json.loads(line) for line in (folder / REJECTED).read_text("utf-8").splitlines()]
    assert load(folder).rejected == len(lines) == len({item["file"] for item in lines})
    return {item["file"]: item["reason"] for item in lines}


def command(*words: object) -> tuple[int, str]:
    """Exit code and error output of `medsass shard`, which is one line or nothing."""
    done = CliRunner().invoke(main, ["shard", *map(str, words)])
    assert not done.exception or isinstance(done.exception, SystemExit), done.exc_info
    assert done.stderr.count("\n") <= 1
    return done.exit_code, done.stderr


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """12 good pairs, to be changed."""
    nuclei.generate(tmp_path / "source", 12, seed=2, size=32)
    return tmp_path / "source"


# Kills. One process has everything imported and forks a writer for each line; the writer is killed after some seconds,
# or before the n-th time that it opens, renames, removes or lists something in OUT or beside it.
SERVER = """
import json, os, select, signal, sys
from pathlib import Path
from medsass.config import ShardConfig
from medsass.data import decoder, shard
for name in ("nvidia.dali", "nvidia.dali.fn", "nvidia.dali.types"):
    decoder.import_dali(name)
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
        """For each writer "killed", "done" and the number of events, or its error."""
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
    """100 pairs: 22 tar files. Read it, never change it."""
    folder = tmp_path_factory.mktemp("many")
    nuclei.generate(folder, 100, seed=3, size=32)
    return folder


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 pairs, six of them copies of others, and four files that are no images. Read it, never change it."""
    folder = tmp_path_factory.mktemp("troubled")
    nuclei.generate(folder, 40, seed=4, size=64)
    for i in range(6):
        for kind in ("images", "masks"):
            shutil.copy(folder / kind / f"nuclei_{i:04d}.png", folder / kind / f"copy_{i}.png")
    for i in range(4):
        (folder / "images" / f"bad_{i}.png").write_bytes(b"no image" * i)
        shutil.copy(folder / "masks" / "nuclei_0009.png", folder / "masks" / f"bad_{i}.png")
    return folder


def part(out: Path) -> Path:
    return out.with_name(f"{out.name}.part")


def go_on(out: Path, first: dict[str, Any]) -> dict[str, Any]:
    """The options of the next run: as the message of an interrupted one says."""
    return {"resume": True} if part(out).is_dir() and any(part(out).iterdir()) else first


def survive(server: Server, source: Path, folder: Path, kills: int, old: Path | None = None, **options: Any) -> None:
    """Kill writers at random moments until `kills` have died, go on after each, and compare what comes out of it."""
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


def test_killed_at_any_moment_and_gone_on_with_gives_the_same_bytes(server: Server, many: Path, tmp_path: Path) -> None:
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
        done = (out / "manifest.json").is_file() and not old
        (answer,) = server.run({**places, **({"resume": True} if done else go_on(out, first))})
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


# Fills a file system of some kilobytes, then makes room and goes on; prints what was seen for each size
FULL = """
import json, shutil, subprocess, sys
from pathlib import Path
from click.testing import CliRunner
from medsass.cli import main
from medsass.config import ShardConfig
from medsass.data import shard
from medsass.data.verify import verify
source, disk, sizes = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
out, part = disk / "out", disk / "out.part"
options = {"images": "images/*.png", "masks": "masks/*.png", "max_shard_bytes": 100_000}
words = [word for name, value in options.items() for word in ("--" + name.replace("_", "-"), str(value))]
def contents(folder):
    return {path.name: path.read_bytes().hex() for path in folder.iterdir()}
def resize(size):
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)
shard.write(ShardConfig(source, disk / "first", **{**options, "images": "images/nuclei_000*.png"}, size=16))
for size in sizes:
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(disk / "first", out)
    resize(size)
    done = CliRunner().invoke(main, ["shard", str(source), str(out), "--overwrite", *words])
    seen = {"code": done.exit_code, "error": done.stderr, "bug": repr(done.exception), "old": verify(out) == [] and
            contents(out) == contents(disk / "first"), "tars": len(list(part.glob("*.tar"))), "part": part.exists()}
    resize("64m")
    again = {"resume": True} if part.exists() else {"overwrite": True}
    shard.write(ShardConfig(source, out, **options, **again))
    print(json.dumps({**seen, "new": contents(out)}))
"""


def test_full_disk_is_one_line_and_room_brings_the_same_bytes(
    nuclei_folder: Path, shards: Path, tmp_path: Path
) -> None:
    mount = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=64m none "$0" && exec "$@"', str(tmp_path)]
    try:
        subprocess.run([*mount, "true"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no small file system can be mounted here")
    sizes = [f"{size}k" for size in range(240, 640, 44)]
    words = [*mount, sys.executable, "-c", FULL, str(nuclei_folder), str(tmp_path), *sizes]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    seen = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(seen) == len(sizes), done.stderr
    expected = {name: data.hex() for name, data in contents(shards).items()}
    for size, one in zip(sizes, seen, strict=True):
        assert one["new"] == expected, size
        if one["code"] == 0:
            continue
        assert one["code"] == 2, one
        assert re.fullmatch(rf"medsass: {tmp_path}/out.part.*(No space left on device|disk is full).*\n", one["error"])
        assert one["old"], size
        assert one["part"] == (one["tars"] > 0) == ("go on with --resume" in one["error"]), one["error"]
    assert {one["tars"] > 0 for one in seen if one["code"]} == {True, False}


# Sources that change
def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def shrink(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def alter(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)


TAMPER: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "grown": ("images", grow, "the file changed after the run began; run medsass shard again"),
    "shrunk": ("images", shrink, "the file changed after the run began; run medsass shard again"),
    "altered": ("images", alter, "the file changed after the run began; run medsass shard again"),
    "gone": ("images", Path.unlink, "the file is gone since the run began; run medsass shard again"),
    "mask altered": ("masks", alter, "mask {}: the file changed after the run began; run medsass shard again"),
    "mask gone": ("masks", Path.unlink, "mask {}: the file is gone since the run began; run medsass shard again"),
}


@pytest.fixture
def copied(nuclei_folder: Path, tmp_path: Path) -> Path:
    """60 pairs, to be changed."""
    return Path(shutil.copytree(nuclei_folder, tmp_path / "source"))


@pytest.fixture
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images are read a few ahead of what is written, not all sixty."""
    monkeypatch.setattr("medsass.data.intake._GROUP", 1)


@pytest.mark.parametrize("tile", [0, 40])
@pytest.mark.usefixtures("one_at_a_time")
def test_files_that_change_during_the_run_are_left_out(tile: int, copied: Path, shards: Path, tmp_path: Path) -> None:
    paths = [shards / item.file for split in load(shards).splits.values() for item in split.shards]
    last = [key for path in paths for key, _ in tar.read(path)][-len(TAMPER) :]
    expected = {
        f"images/{key}.png": reason.format(f"{key}.png")
        for key, (_, _, reason) in zip(last, TAMPER.values(), strict=True)
    }

    def tamper(done: int, _total: int) -> None:
        if done < 50 and not tampered:
            tampered.append(done)
            for key, (kind, change, _) in zip(last, TAMPER.values(), strict=True):
                change(copied / kind / f"{key}.png")

    tampered: list[int] = []
    shard.write(config(copied, tmp_path / "out", workers=1, tile=tile), tamper)
    assert tampered
    assert reasons(tmp_path / "out") == expected
    whole = {f"images/{path.name}" for path in (copied / "images").iterdir()}
    assert set(by_source(tmp_path / "out")) == whole - set(expected)
    assert verify(tmp_path / "out") == []


@pytest.mark.usefixtures("one_at_a_time")
def test_strict_stops_at_a_file_that_changes(copied: Path, tmp_path: Path) -> None:
    def tamper(_done: int, _total: int) -> None:
        for path in (copied / "images").iterdir():
            alter(path)

    with pytest.raises(ValueError, match=r"images/nuclei_\d+.png: the file changed after the run began.*\(--strict\)"):
        shard.write(config(copied, tmp_path / "out", workers=1, strict=True), tamper)
    assert not (tmp_path / "out").exists()


def interrupt(source: Path, out: Path, **changes: object) -> None:
    """Stop a run, as Ctrl-C does, after its first batch."""

    def stop(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shard.write(config(source, out, **changes), stop)
    assert list(part(out).glob("*.tar"))


@pytest.mark.parametrize("change", ["altered", "gone", "mask altered", "new"])
def test_source_that_changed_since_the_interruption_is_refused(change: str, copied: Path, tmp_path: Path) -> None:
    interrupt(copied, tmp_path / "out")
    kind, act, _ = TAMPER.get(change, ("images", lambda path: path.write_bytes(b"new"), ""))
    name = "another.png" if change == "new" else "nuclei_0007.png"
    act(copied / kind / name)
    before = contents(part(tmp_path / "out"))
    with pytest.raises(ValueError, match=rf"changed since .*\({kind}/{name}\); start again with --overwrite$"):
        shard.write(config(copied, tmp_path / "out", resume=True))
    assert contents(part(tmp_path / "out")) == before


OTHERS = {"size": 16, "tile": 16, "encode": "png", "depth": 16, "range": "type", "near_duplicates": True,
          "max_shard_bytes": 30_000, "group_by": "image", "level": 1}  # fmt: skip


def test_resume_with_other_options_is_refused_by_name_and_harms_nothing(
    copied: Path, shards: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    interrupt(copied, out, max_shard_bytes=100_000, images="images/*.png", masks="masks/*.png")
    same = {"max_shard_bytes": 100_000, "images": "images/*.png", "masks": "masks/*.png", "resume": True}
    for name, value in OTHERS.items():
        pattern = (
            rf"^--{name.replace('_', '-')} differs from the interrupted run's: it was .* and is {value}; .*--overwrite$"
        )
        with pytest.raises(ValueError, match=pattern):
            shard.write(config(copied, out, **{**same, name: value}))
    for changed in ({"masks": ""}, {"foreground": "half"}):
        with pytest.raises(ValueError, match=r"^recipe differs from the interrupted run's"):
            shard.write(config(copied, out, **{**same, **changed}))
    shard.write(config(copied, out, **same))
    assert contents(out) == contents(shards)


def test_resume_of_a_finished_dataset_with_other_options_is_refused(source: Path, tmp_path: Path) -> None:
    made = shard.write(config(source, tmp_path / "out"))
    before = contents(tmp_path / "out")
    assert shard.write(config(source, tmp_path / "out", resume=True)).splits == made.splits
    with pytest.raises(ValueError, match=r"^--size differs from the interrupted run's: it was 0 and is 16"):
        shard.write(config(source, tmp_path / "out", resume=True, size=16))
    assert contents(tmp_path / "out") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


def test_the_command_goes_on_with_resume(copied: Path, shards: Path, tmp_path: Path) -> None:
    words = ["--images", "images/*.png", "--masks", "masks/*.png", "--max-shard-bytes", 100_000]
    interrupt(copied, tmp_path / "out", max_shard_bytes=100_000, images="images/*.png", masks="masks/*.png")
    code, error = command(copied, tmp_path / "out", *words)
    assert code == 2
    assert "--resume" in error
    assert command(copied, tmp_path / "out", *words, "--resume") == (0, "")
    assert contents(tmp_path / "out") == contents(shards)


def test_output_within_the_source_is_no_part_of_it(copied: Path, tmp_path: Path) -> None:
    shard.write(config(copied, tmp_path / "apart"))
    out = copied / "out"
    interrupt(copied, out)
    shard.write(config(copied, out, resume=True))
    assert contents(out) == contents(tmp_path / "apart")
    shard.write(config(copied, out, overwrite=True))
    assert contents(out) == contents(tmp_path / "apart")


def test_unreadable_journal_is_one_line_with_the_remedy(copied: Path, tmp_path: Path) -> None:
    interrupt(copied, tmp_path / "out")
    (part(tmp_path / "out") / journal.NAME).write_bytes(b"no database" * 1000)
    with pytest.raises(OSError, match=r"out.part/journal.sqlite: .*; start again with --overwrite"):
        shard.write(config(copied, tmp_path / "out", resume=True))
    shard.write(config(copied, tmp_path / "out", overwrite=True))
    assert verify(tmp_path / "out") == []


def test_too_many_open_files_stop_the_run_instead_of_leaving_files_out(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(24, os.strerror(24))

    monkeypatch.setattr("medsass.data.parts.sources.open_picture", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        shard.write(config(copied, tmp_path / "out"))
    assert not part(tmp_path / "out").exists()


# Odd names and bad files
def save(folder: Path, name: str | bytes, gray: int) -> None:
    """An 8 x 8 image of one gray level, as PNG, whatever its name says."""
    folder.mkdir(parents=True, exist_ok=True)
    _, data = cv2.imencode(".png", np.full((8, 8), gray, np.uint8))
    with open(os.path.join(os.fsencode(folder), os.fsencode(name)), "wb") as file:  # noqa: PTH118, PTH123 - a name in bytes
        file.write(data.tobytes())


NAMES = ["a b.png", "it's.png", 'say "x".png', "é日本.png", "a.b.c.png", "new\nline.png", "-rf.png", "a..b.png", "~.png",
         "$(touch x).png", "%00.png", "C:\\x.png", "n" * 251 + ".png", "m" * 251 + ".png", "png.png", "a_b.png",
         "*.png", "[a].png", "a-y000000-x000000.png", "x.PNG", "COM1.png"]  # fmt: skip


def test_odd_names_are_stored_once_under_safe_keys(tmp_path: Path) -> None:
    folder = tmp_path / "in" / "source"
    for i, name in enumerate(NAMES):
        save(folder, name, 2 * i + 1)
    save(tmp_path / "in" / "far", "away.png", 201)
    save(tmp_path / "in", "alone.png", 203)
    (folder / "link.png").symlink_to(tmp_path / "in" / "alone.png")
    (folder / "linked").symlink_to(tmp_path / "in" / "far")
    save(folder, "..png", 211)  # hidden, and passed over
    for bad in (b"\xff\xfe.png", b"\xff\xff.png"):
        save(folder, bad, 221)
    os.mkfifo(folder / "pipe.png")
    before = {path: path.lstat().st_mtime_ns for path in (tmp_path / "in").rglob("*")}
    shard.write(config(folder, tmp_path / "out", images="**/*", masks=""))
    keys = by_source(tmp_path / "out")
    samples = stored(tmp_path / "out")
    assert {name: int(decoded(samples[key]["png"])[0, 0]) for name, key in keys.items()} == {
        **{name: 2 * i + 1 for i, name in enumerate(NAMES)}, "link.png": 203, "linked/away.png": 201}  # fmt: skip
    assert len(set(keys.values())) == len(keys)
    for path in (tmp_path / "out").glob("*.tar"):
        with tarfile.open(path) as opened:
            assert all(re.fullmatch(r"[A-Za-z0-9_-]+\.(png|json)", name) for name in opened.getnames())
            assert all(len(name) <= 100 for name in opened.getnames())
    assert reasons(tmp_path / "out") == dict.fromkeys(
        ("\\udcff\\udcfe.png", "\\udcff\\udcff.png"), "its name is not UTF-8; rename it"
    )
    assert before == {path: path.lstat().st_mtime_ns for path in (tmp_path / "in").rglob("*")}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_a_frame_and_an_image_of_its_name_get_different_keys(tmp_path: Path) -> None:
    pages = [Image.new("L", (8, 8), gray) for gray in (10, 20)]
    (tmp_path / "source").mkdir()
    pages[0].save(tmp_path / "source" / "a.tif", save_all=True, append_images=pages[1:])
    save(tmp_path / "source", "a-f000001.png", 30)
    shard.write(config(tmp_path / "source", tmp_path / "out", recipe=one_split(tmp_path), images="", masks=""))
    values = [decoded(one["png"])[0, 0] for one in stored(tmp_path / "out").values()]
    assert sorted(values) == [10, 20, 30]


def one_split(folder: Path, frames: str = "all") -> str:
    """A recipe that takes all files."""
    path = folder / "all.toml"
    path.write_text(f'name = "all"\n[[images]]\npath = "**/*"\nframes = "{frames}"\n[splits]\ntrain = 1.0\n')
    return str(path)


def good(folder: Path) -> None:
    """One image of noise in every format that can be written here."""
    folder.mkdir()
    array = np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)
    for suffix in ("jpg", "png", "tif", "bmp", "webp", "jp2"):
        Image.fromarray(array).save(folder / f"{suffix}.{suffix}")
    np.save(folder / "npy.npy", array)
    np.savez(folder / "npz.npz", array)
    pydicom = pytest.importorskip("pydicom")
    header = pydicom.Dataset()
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = "1.2.3"
    header.Rows, header.Columns, header.SamplesPerPixel, header.PixelRepresentation = 40, 40, 1, 0
    header.BitsAllocated = header.BitsStored = 8
    header.HighBit, header.PhotometricInterpretation, header.PixelData = 7, "MONOCHROME2", array.tobytes()
    header.save_as(folder / "dcm.dcm", enforce_file_format=True)


def test_truncated_files_of_every_format_are_left_out_with_a_reason(tmp_path: Path) -> None:
    source = tmp_path / "source"
    good(source)
    bad: list[str] = []
    for path in sorted(source.iterdir()):
        data = path.read_bytes()
        for size in (0, 1, 6, 60, len(data) // 2, len(data) - 30):
            name = f"{path.stem}_{size}{path.suffix}"
            (source / name).write_bytes(data[:size])
            bad.append(name)
    shard.write(config(source, tmp_path / "out", images="*", masks=""))
    found = reasons(tmp_path / "out")
    assert sorted(found) == sorted(bad)
    assert all(len(reason) > 8 and "\n" not in reason and str(tmp_path) not in reason for reason in found.values())
    assert {found[name] for name in bad if "_0." in name} == {"empty file (0 bytes)"}
    assert set(by_source(tmp_path / "out")) == {
        f"{kind}.{kind}" for kind in ("jpg", "png", "tif", "bmp", "webp", "jp2", "npy", "npz", "dcm")
    }


def test_what_a_file_is_goes_by_its_content_not_its_name(tmp_path: Path) -> None:
    source = tmp_path / "source"
    good(source)
    for path, name in (("png.png", "a.jpg"), ("jpg.jpg", "b.tif"), ("tif.tif", "c.png"), ("npy.npy", "d.png")):
        shutil.copy(source / path, source / name)
    (source / "e.png").write_text("I am text")
    (source / "f.jpg").write_text("<!DOCTYPE html><html><title>404 Not Found</title></html>")
    (source / "g.tif").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    (source / "h.npy").write_text("text")
    (source / "i.dcm").write_bytes(b"\0" * 200)
    (source / "j.png").mkdir()
    shard.write(config(source, tmp_path / "out", recipe=one_split(tmp_path, "first"), images="", masks=""))
    assert set(reasons(tmp_path / "out")) == {"e.png", "f.jpg", "g.tif", "h.npy", "i.dcm"}
    keys, samples = by_source(tmp_path / "out"), stored(tmp_path / "out")
    assert set(samples[keys["a.jpg"]]) == {"png", "json"}
    assert samples[keys["a.jpg"]]["png"] == (source / "png.png").read_bytes()
    assert samples[keys["b.tif"]]["jpg"] == (source / "jpg.jpg").read_bytes()
    for name in ("c.png", "d.png"):
        array = decoded(samples[keys[name]]["png"])
        np.testing.assert_array_equal(array, np.load(source / "npy.npy"))


# Images of 60,000 x 60,000 pixels in small files
SIDE = 60_000


def zeros(count: int) -> bytes:
    """A zlib stream of `count` zero bytes, made of one deflated block many times over."""
    size = 6_000_000
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(size)) + packer.flush(zlib.Z_FULL_FLUSH)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    rest = packer.compress(bytes(count % size)) + packer.flush()
    return b"\x78\xda" + block * (count // size) + rest + struct.pack(">HH", count % 65521, 1)


def png(depth: int, data: bytes) -> bytes:
    """A gray PNG file of `depth` bits."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", SIDE, SIDE, depth, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def bombs(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "bomb.png").write_bytes(png(8, zeros(SIDE * (SIDE + 1))))
    strip = zeros(SIDE * SIDE)
    tags = {256: SIDE, 257: SIDE, 258: 8, 259: 8, 262: 1, 273: 8, 277: 1, 278: SIDE, 279: len(strip)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    tiff = struct.pack("<4sI", b"II*\0", 8 + len(strip)) + strip
    (folder / "bomb.tif").write_bytes(tiff + struct.pack("<H", len(tags)) + entries + bytes(4))
    info = struct.pack("<IiiHHIIiiII", 40, SIDE, SIDE, 1, 8, 0, 0, 0, 0, 256, 0)
    (folder / "bomb.bmp").write_bytes(struct.pack("<2sIII", b"BM", 54 + 1024, 0, 54 + 1024) + info + bytes(1024))
    _, data = cv2.imencode(".jpg", np.zeros((8, 8), np.uint8))
    jpeg = bytearray(data.tobytes())
    struct.pack_into(">HH", jpeg, jpeg.index(b"\xff\xc0") + 5, SIDE, SIDE)
    (folder / "bomb.jpg").write_bytes(jpeg)


# Writes shards of one folder, then of another, and prints how much more memory in KiB the second took at most
MEMORY = """
import resource, sys
from pathlib import Path
from medsass.config import ShardConfig
from medsass.data import shard
peaks = []
for source in sys.argv[1:]:
    shard.write(ShardConfig(Path(source), Path(source + "-out"), images="images/*", masks="masks/*"))
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(peaks[1] - peaks[0])
"""


def test_decompression_bombs_are_refused_by_their_size_before_they_are_decoded(source: Path, tmp_path: Path) -> None:
    both = Path(shutil.copytree(source, tmp_path / "both"))
    bombs(tmp_path / "bombs")
    for path in (tmp_path / "bombs").iterdir():
        shutil.copy(path, both / "images" / f"{path.suffix[1:]}{path.suffix}")
        shutil.copy(source / "masks" / "nuclei_0000.png", both / "masks" / f"{path.suffix[1:]}.png")
    shutil.copy(tmp_path / "bombs" / "bomb.png", both / "masks" / "nuclei_0003.png")
    words = [sys.executable, "-c", MEMORY, str(source), str(both)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    assert int(done.stdout) < 200 << 10  # each bomb has 3.6 GB
    found = reasons(tmp_path / "both-out")
    size = f"{SIDE}x{SIDE} pixels are more than the 178,956,970 that medsass decodes at once; store it as a tiled TIFF"
    assert all(size in reason and "--tile" in reason for reason in found.values()), found
    assert set(found) == {"images/nuclei_0003.png", *(f"images/{kind}.{kind}" for kind in ("png", "tif", "bmp", "jpg"))}
    assert found["images/nuclei_0003.png"].startswith("mask nuclei_0003.png: ")


def test_16_bit_bombs_are_refused_too(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8)).save(tmp_path / "source" / "good.png")
    (tmp_path / "source" / "bomb.png").write_bytes(png(16, zeros(60)))
    shard.write(config(tmp_path / "source", tmp_path / "out", images="*", masks="", depth=16))
    assert reasons(tmp_path / "out")["bomb.png"].startswith(f"{SIDE}x{SIDE} pixels are more than")
    assert list(by_source(tmp_path / "out")) == ["good.png"]


# Recipes and options
def recipe_file(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(f'name = "mine"\n{text}[[images]]\npath = "images/*.png"\nmasks = "masks/*.png"\n')
    return path


SPLITS = "[splits]\ntrain = 1.0\n"


def test_wrong_recipes_and_options_are_one_line_and_exit_code_2(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def error(*words: object, text: str = SPLITS, more: str = "") -> str:
        path = recipe_file(tmp_path, text)
        path.write_text(path.read_text() + more)
        code, line = command(source, out, "--recipe", path, *words)
        assert code == 2
        assert not list(tmp_path.glob("out*"))
        return line

    assert "mine.toml: not a recipe: unknown field 'polarty'" in error(text=f'polarty = "dark"\n{SPLITS}')
    assert "unknown field 'mask' in [[images]]" in error(more='mask = "x"\n')
    assert "mine.toml: not a recipe: " in error(text="[splits\n")
    assert "no image matches 'images/*.png', 'lost/*.png'" in command(
        tmp_path / "source" / "masks",
        out,
        "--recipe",
        recipe_file(tmp_path, SPLITS + '[[images]]\npath = "lost/*.png"\n'),
    )[1].replace("'lost/*.png', 'images/*.png'", "'images/*.png', 'lost/*.png'")
    table = '[classes]\nkey = "id"\ncolumns = ["a"]\n'
    assert "source/labels.csv is missing: it holds the class labels of 'images/*.png'" in error(
        text=SPLITS + table, more='classes = "labels.csv"\n'
    )
    (source / "labels.csv").write_bytes(b"id,a\n\xff,1\n")
    assert "utf-8" in error(text=SPLITS + table, more='classes = "labels.csv"\n')
    assert "it has no variant 'x'; variants: none" in error("--variant", "x")
    assert "--group-by must be one of image for recipe 'mine'; got 'patient'" in error("--group-by", "patient")
    assert "--foreground must be binary, nonzero, half or levels such as 1,3; got 'red'" in error("--foreground", "red")
    assert "recipe 'dsb2081' does not exist; did you mean 'dsb2018'?" in command(source, out, "--recipe", "dsb2081")[1]
    assert "no such folder; SOURCE is the folder" in command(tmp_path / "nowhere", out)[1]


def test_glob_that_matches_nothing_beside_one_that_does_is_noted(source: Path, tmp_path: Path) -> None:
    text = '[[images]]\npath = "images/*.png"\nsplit = "train"\n[[images]]\npath = "late/*.png"\nsplit = "test"\n'
    (tmp_path / "two.toml").write_text(f'name = "two"\n{text}')
    made = shard.write(config(source, tmp_path / "out", recipe=str(tmp_path / "two.toml"), images="", masks=""))
    assert made.notes == ["no file matches 'late/*.png': split 'test' left out"]


# Masks
def test_masks_of_more_than_two_levels_need_a_word(source: Path, tmp_path: Path) -> None:
    levels = np.repeat(np.array([0, 1, 2, 3, 127, 128, 200, 255], np.uint8), 4)[None].repeat(32, 0)
    for path in (source / "masks").iterdir():
        Image.fromarray(levels).save(path)
    words = [source, tmp_path / "out", "--images", "images/*", "--masks", "masks/*"]
    code, error = command(*words)
    assert code == 2
    assert "8 levels in a mask that should have two; say what is foreground: nonzero" in error
    masks = {"nonzero": levels > 0, "half": levels > 127, "1,3": (levels == 1) | (levels == 3)}
    for word, expected in masks.items():
        assert command(*words, "--foreground", word, "--overwrite") == (0, "")
        for sample in stored(tmp_path / "out").values():
            array = decoded(sample["mask.png"])
            np.testing.assert_array_equal(array, expected * np.uint8(255))


# What does not depend on how it is run
def test_dry_run_writes_nothing_and_counts_as_the_run(copied: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} | {tmp_path: tmp_path.stat().st_mtime_ns}
    words = ["--images", "images/*", "--masks", "masks/*"]
    assert command(copied, tmp_path / "out", *words, "--dry-run") == (0, "")
    planned = shard.plan(config(copied, tmp_path / "out"))
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path, *tmp_path.rglob("*"))}
    made = shard.write(config(copied, tmp_path / "out"))
    assert {name: split.samples for name, split in planned.splits.items()} == {
        name: split.samples for name, split in made.splits.items()
    }
    assert (planned.recipe, planned.options) == (made.recipe, made.options)


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
    """The first tile of each file is begun when the last one is done."""
    for path in (source / "images").iterdir():
        np.save(path.with_suffix(".npy"), decoded(path.read_bytes()))
        path.unlink()
    real, done = Intake._outcome, {f"images/{path.name}": threading.Event() for path in (source / "images").iterdir()}

    def slow(line: Any, job: Any) -> Any:
        if job.index == 0:
            assert done[job.sample.image].wait(20)
        made = real(line, job)
        if job.last:
            done[job.sample.image].set()
        return made

    shard.write(config(source, tmp_path / "expected", tile=16))
    monkeypatch.setattr(Intake, "_outcome", slow)
    shard.write(config(source, tmp_path / "out", tile=16, workers=4))
    assert contents(tmp_path / "out") == contents(tmp_path / "expected")


def test_recompressed_copies_are_kept_out_of_later_splits(real_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("imagehash")
    for kind in ("train", "val"):
        (tmp_path / "source" / kind).mkdir(parents=True)
    paths = sorted((real_data / "isic2017" / "ISIC-2017_Validation_Data").glob("*.jpg"))[:4]
    for path in paths:
        shutil.copy(path, tmp_path / "source" / "train")
    Image.open(paths[0]).save(tmp_path / "source" / "val" / "again.jpg", quality=70)
    shutil.copy(paths[1], tmp_path / "source" / "val" / "same.jpg")
    text = "".join(f'[[images]]\npath = "{kind}/*.jpg"\nsplit = "{kind}"\n' for kind in ("train", "val"))
    (tmp_path / "two.toml").write_text(f'name = "two"\n{text}')
    options = {"recipe": str(tmp_path / "two.toml"), "images": "", "masks": ""}
    shard.write(config(tmp_path / "source", tmp_path / "out", near_duplicates=True, **options))
    found = reasons(tmp_path / "out")
    assert re.fullmatch(
        rf"looks like train/{paths[0].stem} \([0-2] of 64 bits differ\), which is in another split",
        found["val/again.jpg"],
    )
    assert found["val/same.jpg"] == f"the same bytes as train/{paths[1].stem}, which is in another split"
    shard.write(config(tmp_path / "source", tmp_path / "bare", **options))
    assert list(reasons(tmp_path / "bare")) == ["val/same.jpg"]
