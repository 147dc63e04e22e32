"""The process that worker processes are forked from. It has imported what they need and runs a single thread, so that a
fork takes milliseconds and is safe, which it is not of a process that runs threads.

It outlives the command that started it as long as that process does, so that the next one finds it. multiprocessing's own
would run the user's main module again in every worker, and can be set up once for all users in a process only.
"""

import gc
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

_PROGRAM = "import sys; from medsass.data.sharding.workers import forkserver; forkserver.serve(int(sys.argv[1]))"
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # or NumPy starts some as it is imported
_STATUS = struct.Struct("i")

_server: tuple[socket.socket, "subprocess.Popen[bytes]"] | None = None


@dataclass(frozen=True)
class Process:
    """A worker process: the connection to it, and the pipe in which its exit code comes."""

    connection: "Connection[Any, Any]"
    status: int

    def wait(self) -> int:
        """Return the exit code when it has ended; the negative signal number if a signal ended it.

        Raises `ChildProcessError` where the server has ended too, so that nobody knows.
        """
        answer = os.read(self.status, _STATUS.size)
        self.leave()
        if not answer:
            raise ChildProcessError(
                "the server of the worker processes was ended, perhaps for want of memory, of which fewer --workers need less; its last "
                "words, if any, are above"
            )
        return os.waitstatus_to_exitcode(*_STATUS.unpack(answer))

    def leave(self) -> None:
        """Do without the exit code."""
        os.close(self.status)


def launch() -> None:
    """Start the server, unless it runs, so that it imports what it needs while this process does something else."""
    global _server
    _server = _server or _launch()


def start() -> Process:
    """Start a process that runs `worker.run` on a connection, with stderr where this process has it.

    It ends when its connection does, so it never outlives this process.
    """
    global _server
    ours, theirs = socket.socketpair()
    status, report = os.pipe()
    with theirs:
        message = [b"fork"], [theirs.fileno(), report, 2]
        try:
            launch()
            socket.send_fds(_server[0], *message)  # type: ignore[index]
        except (BrokenPipeError, ConnectionResetError):  # it was killed
            _server = _launch()
            socket.send_fds(_server[0], *message)
        finally:
            os.close(report)
    return Process(Connection(ours.detach()), status)


def _launch() -> tuple[socket.socket, "subprocess.Popen[bytes]"]:
    """Start the server. Interrupts are blocked in it and its workers: this process alone decides what Ctrl-C does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # each request arrives in one piece
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with theirs:
            words = [sys.executable, "-P", "-c", _PROGRAM, str(theirs.fileno())]
            environment = {**os.environ, **_ONE_THREAD, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            null = subprocess.DEVNULL
            process = subprocess.Popen(words, pass_fds=[theirs.fileno()], stdin=null, stdout=null, env=environment)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return ours, process


def serve(control: int) -> None:
    """Fork a worker for each request until all processes that could ask have ended, and report how workers end."""
    from medsass.data.sharding.workers import worker

    gc.freeze()  # what is imported need not be looked through, and so copied, in every worker
    requests, ready = socket.socket(fileno=control), selectors.DefaultSelector()
    ready.register(requests, selectors.EVENT_READ)
    while True:
        for key, _ in ready.select():
            if key.fileobj is not requests:  # the end of a worker
                ready.unregister(key.fileobj)
                os.close(key.fd)
                pid, report = key.data
                with suppress(BrokenPipeError):  # nobody waits for it
                    os.write(report, _STATUS.pack(os.waitpid(pid, 0)[1]))
                os.close(report)
                continue
            _, descriptors, *_ = socket.recv_fds(requests, 16, 3)
            if not descriptors:
                os._exit(0)
            connection, report, stderr = descriptors
            pid = os.fork()
            if pid == 0:
                os.dup2(stderr, 2)
                others = [number for each in ready.get_map().values() for number in (each.fd, *(each.data or ())[1:])]
                for number in (*others, report, stderr):
                    os.close(number)
                worker.run(Connection(connection))
            os.close(connection)
            os.close(stderr)
            ready.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, report))
