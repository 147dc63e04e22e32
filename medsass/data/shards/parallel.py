"""Damage of many tar files, found in a process for each core where one cannot keep up with the disk.

The processes are other interpreters that answer through pipes. multiprocessing would fork a process that runs threads, or run
the user's script again in each.
"""

import os
import queue
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter, process_time
from typing import cast

from medsass import files
from medsass.data.shards import damage
from medsass.data.shards.contents import Tally
from medsass.data.shards.damage import Problem
from medsass.data.shards.tar import Shard

_LONG = 1.0  # seconds of work that are worth the start of processes
_BUSY = 0.5  # seconds of processor time a second, from which on the processor sets the pace and not the disk
_PROGRAM = "from medsass.data.shards import parallel; parallel.serve()"

_Found = tuple[list[Problem], Tally | None]


def find(
    folder: Path, shards: Sequence[Shard], tick: Callable[[int], None], *, sealed: bool = False
) -> Iterator[_Found]:
    """Yield of each tar file what `damage.find` does: at first here, then, where the processor sets the pace and much is left,
    in several processes.

    Args:
        folder: the shard folder or its address, which is read here alone.
        shards: the tar files of the dataset.
        tick: is called with the number of bytes that were read since the last time.
        sealed: as in `damage.find`.
    """
    look = partial(damage.find, sealed=sealed)
    others, rest, done = {shard.sha256: shard.file for shard in shards}, list(shards), 0
    started, used = perf_counter(), process_time()
    alone = not files.is_local(folder)
    while rest:
        if done and not alone and _worth(perf_counter() - started, process_time() - used, done, rest):
            alone = True
            with suppress(EOFError, OSError):  # one was killed, or none can be started
                yield from _find_apart(look, folder, rest, others, tick)
            continue
        done += rest[0].bytes
        yield look(folder, rest.pop(0), others, tick)


def _worth(seconds: float, busy: float, done: int, rest: Sequence[Shard]) -> bool:
    """Return whether to start processes for the rest, after some time for a number of bytes."""
    left = seconds * sum(shard.bytes for shard in rest) / done
    return len(rest) > 1 and left > _LONG and busy > _BUSY * seconds


def _find_apart(
    look: Callable[..., _Found], folder: Path, rest: list[Shard], others: Mapping[str, str], tick: Callable[[int], None]
) -> Iterator[_Found]:
    """Yield of each tar file what `damage.find` does, here and in processes, and take it from `rest`."""
    count = min(os.cpu_count() or 1, len(rest))
    with ThreadPoolExecutor(count) as threads, _processes(count - 1) as free:
        free.put(None)  # this process, which need not start

        def ask(shard: Shard) -> _Found:
            process = free.get()
            try:
                if process is None:
                    return look(folder, shard, others, _tell_nobody)
                process.send((look, folder, shard, others))
                return cast(_Found, process.recv())
            finally:
                free.put(process)

        try:
            for found in threads.map(ask, list(rest)):
                tick(rest.pop(0).bytes)
                yield found
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _processes(count: int) -> Iterator["queue.SimpleQueue[Connection | None]"]:
    """Start processes that run `serve`, in sessions of their own: Ctrl-C reaches this one alone, which ends them."""
    words, null = [sys.executable, "-P", "-c", _PROGRAM], subprocess.DEVNULL
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    free, started = queue.SimpleQueue["Connection | None"](), []
    try:
        for _ in range(count):
            own, there = Pipe()
            with there:
                process = subprocess.Popen(
                    [*words, str(there.fileno())], stdin=null, stdout=null, stderr=null, start_new_session=True,
                    env=environment, pass_fds=[there.fileno()],
                )  # fmt: skip
            started.append((process, own))
            free.put(own)
        yield free
    finally:
        for process, own in started:
            process.kill()
            own.close()
        for process, _ in started:
            process.wait()


def _tell_nobody(_bytes: int) -> None: ...


def serve() -> None:
    """Answer what `find` asks, until it ends."""
    with suppress(EOFError, OSError), Connection(int(sys.argv[1])) as asked:
        while True:
            look, folder, shard, others = asked.recv()
            asked.send(look(folder, shard, others, _tell_nobody))
