"""Starts `medsass` commands in forks of a process that has everything imported, so that tests can kill them.

Importing takes seconds, a fork milliseconds. A fork is an ordinary process, with one thread for torch. Where a new process
is needed, `python -m tests.support.forks light,paced train ...` does in it what a fork would do.
"""

import atexit
import contextlib
import functools
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
ENVIRONMENT |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "COLUMNS": "500"}
NEVER = 1 << 30


class Fork:
    """A running command. `out` and `err` hold its output once it has ended."""

    def __init__(self, server: "Server", pid: int, log: Path) -> None:
        self._server, self.pid, self._log = server, pid, log

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)

    def wait(self, seconds: float | None = None) -> int:
        """Return the exit code, the negative signal number if a signal ended it. Kills the process after `seconds`."""
        if not ended(self, seconds):
            self.kill()
        return int(self._server.ask({"wait": self.pid}))

    @property
    def out(self) -> str:
        return self._log.with_suffix(".out").read_text()

    @property
    def err(self) -> str:
        return self._log.with_suffix(".err").read_text()


def ended(fork: Fork, seconds: float | None = None) -> bool:
    """Return whether a command ends within `seconds`."""
    process = os.pidfd_open(fork.pid)
    try:
        return bool(select.select([process], [], [], seconds)[0])
    finally:
        os.close(process)


class Server:
    """The process that is forked for each command."""

    def __init__(self) -> None:
        words = [sys.executable, "-m", "tests.support.forks"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen(words, **pipes, text=True, cwd=ROOT, env=ENVIRONMENT)  # type: ignore[call-overload]
        assert self._process.stdout.readline() == "ready\n"

    def start(
        self,
        log: Path,
        words: Sequence[object],
        first: Sequence[str] = (),
        environment: dict[str, str] | None = None,
        folder: Path | None = None,
        event: int = NEVER,
    ) -> Fork:
        """Start `medsass` with `words`, after the functions of this module that `first` names.

        The process is killed before the event with the number `event`, counted from 1. Each time it opens, renames,
        removes or lists something in `folder` is an event. A command that finishes prints their number last on stderr.
        """
        job = {"log": str(log), "words": [str(word) for word in words], "first": list(first), "event": event}
        job |= {"environment": environment or {}, "folder": str(folder) if folder else ""}
        return Fork(self, int(self.ask(job)), log)

    def call(self, log: Path, function: Callable[..., object], *values: str | int) -> Fork:
        """Call a function of a module in a fork."""
        job = {"log": str(log), "first": [], "environment": {}, "folder": "", "event": NEVER}
        job["call"] = [function.__module__, function.__name__, *values]
        return Fork(self, int(self.ask(job)), log)

    def ask(self, job: dict[str, Any]) -> Any:
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


@functools.cache
def server() -> Server:
    """Return the only server of the test session."""
    made = Server()
    atexit.register(made.close)
    return made


def light(norm: bool = True) -> None:
    """Put two convolutions in the place of unet-resnet18."""
    from medsass.models import network
    from tests.support import networks

    network.build = functools.partial(networks.build, norm=norm)


def unnormed() -> None:
    """Replace the network as `light`, without batch norm, so that the images of a batch do not affect one another."""
    light(norm=False)


def full() -> None:
    """Let the disk be full for each file NAME of a run once there is a file NAME.full beside the run."""
    from medsass import files, temporary

    atomic, created = files.atomic, temporary.created

    @contextlib.contextmanager
    def limited(path: Path) -> Iterator[Any]:
        marked = (path.parent.parent / f"{path.name}.full").exists()
        temporary.created = (lambda folder: (open("/dev/full", "wb"), folder / "part")) if marked else created  # noqa: PTH123, SIM115
        with atomic(path) as file:
            yield file

    files.atomic = limited


def late() -> None:
    """Delay the first step by a second."""
    from medsass.runs.training.trainer import Trainer

    original, times = Trainer.steps, [1.0]

    def steps(self: Any) -> Any:
        time.sleep(times.pop() if times else 0)
        return original(self)

    Trainer.steps = steps  # type: ignore[method-assign]


def paced() -> None:
    """Add 20 ms to each step, so that a test can act in the middle of an epoch."""
    from medsass.runs.training.trainer import Trainer

    original = Trainer.steps

    def steps(self: Any) -> Any:
        for item in original(self):
            time.sleep(0.02)
            yield item

    Trainer.steps = steps  # type: ignore[method-assign]


def slow() -> None:
    """Make the first step take an hour."""
    from medsass.methods.segmentation import Segmentation

    Segmentation.forward = lambda *_: time.sleep(3600)  # type: ignore[method-assign, assignment]


def crowded() -> None:
    """Let memory hold five images at once."""
    import torch

    from medsass.methods.segmentation import Segmentation

    original = Segmentation.forward

    def forward(self: Any, batch: Any, progress: float) -> Any:
        if len(batch.images) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return original(self, batch, progress)

    Segmentation.forward = forward  # type: ignore[method-assign]


def cramped() -> None:
    """Let the CPU's memory run out in the third step."""
    import torch

    from medsass.methods.segmentation import Segmentation

    original, steps = Segmentation.forward, iter([1, 1, 1 << 52])

    def forward(self: Any, batch: Any, progress: float) -> Any:
        torch.empty(next(steps), dtype=torch.uint8)
        return original(self, batch, progress)

    Segmentation.forward = forward  # type: ignore[method-assign]


def _run(job: dict[str, Any]) -> None:
    """Run the command, in the fork."""
    for number, ending in enumerate((".out", ".err"), 1):
        path = Path(job["log"]).with_suffix(ending)
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ.update(job["environment"])
    for name in job["first"]:
        globals()[name]()
    if "call" in job:
        module, name, *values = job["call"]
        getattr(importlib.import_module(module), name)(*values)
        sys.exit()
    left = job["event"]

    def hook(event: str, values: tuple[Any, ...]) -> None:
        nonlocal left
        if event.startswith(("open", "os.", "shutil.", "sqlite3.connect")) and any(
            job["folder"] in str(v) for v in values
        ):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    if job["folder"]:
        sys.addaudithook(hook)
    from medsass.cli import main

    try:
        main(job["words"], prog_name="medsass")
    finally:
        if job["folder"]:
            print(job["event"] - left, file=sys.stderr)


def _become(job: dict[str, Any]) -> None:
    """Run the command and exit as a new process would, without the second that Python needs to tear down its modules."""
    code = 1
    try:
        _run(job)
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _serve() -> None:
    import torch

    torch.set_num_threads(1)
    import torch.utils.tensorboard

    from medsass.data.dali import import_dali
    from medsass.data.sharding.workers import forkserver
    from medsass.runs.training import train  # noqa: F401

    for name in ("nvidia.dali", "nvidia.dali.fn", "nvidia.dali.types"):
        import_dali(name)
    importlib.import_module("matplotlib.backends.backend_agg")
    importlib.import_module("matplotlib.figure")
    forkserver.launch()  # all forks share it
    print("ready", flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        if "wait" in job:
            answer = os.waitstatus_to_exitcode(os.waitpid(job["wait"], 0)[1])
        else:
            answer = os.fork()
            if answer == 0:
                _become(job)
        print(answer, flush=True)


def _command(first: str, *words: str) -> None:
    """Run `medsass` with `words` in this process, after the functions that `first` names between commas."""
    for name in first.split(","):
        globals()[name]()
    from medsass.cli import main

    main(words, prog_name="medsass")


if __name__ == "__main__":
    _command(*sys.argv[1:]) if sys.argv[1:] else _serve()
