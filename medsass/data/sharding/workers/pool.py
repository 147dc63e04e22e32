"""Worker processes that may die: each task is answered, or known as the one in which its worker died.

Every worker has a connection of its own, and one thread here serves them all. So a worker that dies, at whatever moment,
takes its task with it and nothing else. Pools whose workers share a queue cannot promise that: whoever is killed while it
holds the queue's lock stops all others (concurrent.futures gives up, pebble did within seconds of random kills).
"""

import signal
from collections import deque
from collections.abc import Hashable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import Any

from medsass.data.sharding.workers import forkserver
from medsass.data.sharding.workers.forkserver import Process

_EARLY = 8  # workers at most that start before there is work
_AT_ONCE = 2  # tasks that a worker holds: while the answer to one is awaited elsewhere, it goes on with the other


class WorkerDiedError(Exception):
    """The worker died that ran a task: its exit code, the negative signal number if a signal ended it."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code

    @property
    def killed(self) -> bool:
        """True where it did not die by itself, which a decoder never does by SIGKILL: the kernel does when memory ends."""
        return self.code == -signal.SIGKILL


@dataclass(eq=False)
class Ticket:
    """A task that was handed in. Tasks of the same `home` run in the same worker as long as it lives."""

    task: Any
    home: Hashable = None
    answer: Any = None
    error: BaseException | None = None
    done: bool = False


@dataclass(eq=False)
class _Worker:
    process: Process
    tickets: deque[Ticket] = field(default_factory=deque)
    homes: set[Hashable] = field(default_factory=set)
    busy: bool = False


class Pool:
    """At most `count` workers, started when there is work for them, some before. Each first gets `setup`, as `worker.run` says."""

    def __init__(self, count: int, setup: Any) -> None:
        self._count, self._told = count, [setup]
        self._workers: list[_Worker] = []
        self._queue: deque[Ticket] = deque()
        self._paused = False
        for _ in range(min(count, _EARLY)):
            self._start()

    def tell(self, what: Any) -> None:
        """Send all workers, those to come too, what they need for their tasks beside the setup."""
        self._told.append(what)
        for worker in self._workers:
            self._send(worker, what)

    def submit(self, task: Any, home: Hashable = None, urgent: bool = False) -> Ticket:
        """Hand in a task, an urgent one before those that wait; `result` gives its answer."""
        ticket = Ticket(task, home)
        (self._queue.appendleft if urgent else self._queue.append)(ticket)
        self._hand_out()
        return ticket

    def result(self, ticket: Ticket) -> Any:
        """Return the answer to a task; raises what the worker raised, or `WorkerDiedError`."""
        self._listen(0)
        while not ticket.done:
            self._listen(None)
        if ticket.error:
            raise ticket.error
        return ticket.answer

    def alone(self, task: Any, home: Hashable = None) -> Any:
        """Return the answer to a task that runs while no other does. Raises as `result` does."""
        self._paused = True
        while any(worker.tickets for worker in self._workers):
            self._listen(None)
        waiting, self._queue, self._paused = self._queue, deque(), False
        try:
            return self.result(self.submit(task, home))
        finally:
            self._queue.extend(waiting)
            self._hand_out()

    def close(self) -> None:
        """End all workers, whatever they do, and wait until those have ended that can have done something."""
        for worker in self._workers:
            worker.process.connection.close()
        for worker in self._workers:
            with suppress(ChildProcessError):
                worker.process.wait() if worker.busy else worker.process.leave()
        self._workers = []

    def _hand_out(self) -> None:
        """Give waiting tasks to workers, in order: to the one at home, else to the one with the least to do."""
        kept: deque[Ticket] = deque()
        while self._queue and not self._paused:
            ticket = self._queue.popleft()
            homes = [worker for worker in self._workers if ticket.home is not None and ticket.home in worker.homes]
            worker = min(homes or self._workers, key=lambda worker: len(worker.tickets), default=None)
            if (worker is None or (worker.tickets and not homes)) and len(self._workers) < self._count:
                worker = self._start()
            if worker is None or len(worker.tickets) >= _AT_ONCE:
                kept.append(ticket)
                continue
            worker.tickets.append(ticket)
            worker.busy = True
            worker.homes |= {ticket.home} - {None}
            self._send(worker, ticket.task)
        self._queue = kept + self._queue

    def _start(self) -> _Worker:
        worker = _Worker(forkserver.start())
        self._workers.append(worker)
        for what in self._told:
            self._send(worker, what)
        return worker

    def _send(self, worker: _Worker, what: Any) -> None:
        with suppress(BrokenPipeError):  # it has died, as `_listen` will find
            worker.process.connection.send(what)

    def _listen(self, seconds: float | None) -> None:
        """Take the answers that are there, or wait for one, and hand out further tasks."""
        ready = wait([worker.process.connection for worker in self._workers], seconds)
        for worker in [worker for worker in self._workers if worker.process.connection in ready]:
            try:
                found: Any = worker.process.connection.recv()
            except (EOFError, ConnectionResetError):
                self._bury(worker)
                continue
            ticket = worker.tickets.popleft()
            (ticket.answer, ticket.error), ticket.done = found, True
        self._hand_out()

    def _bury(self, worker: _Worker) -> None:
        """Blame the death of a worker on its first task; others that it held are handed out again."""
        self._workers.remove(worker)
        worker.process.connection.close()
        code = worker.process.wait()
        if not worker.tickets:
            return
        ticket = worker.tickets.popleft()
        ticket.error, ticket.done = WorkerDiedError(code), True
        self._queue.extendleft(reversed(worker.tickets))
