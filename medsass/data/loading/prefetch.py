"""Batches in order: threads make ready what a DALI pipeline needs for the coming ones, and it works ahead of its consumer.

The memory of outputs is theirs alone: DALI hands it over and never writes to it again.
"""

import weakref
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, Protocol, TypeVar

import torch

from medsass.data.loading.pipeline import Source

_THREADS = 4


class Work(Protocol):
    """What a pipeline is fed with for one batch: data by the input's name."""

    @property
    def feeds(self) -> Mapping[str, Any]:
        """Of each input what DALI takes for it."""
        ...


W = TypeVar("W", bound=Work)


class Feed(Generic[W]):
    """Batches by number, cheap where each is the one after the last.

    make: what to feed for batch `number`; called in other threads. build: a pipeline upon a `Source`. end: how many
    batches there are, None if they do not end. ahead: batches that are made ready before DALI asks for them.
    """

    def __init__(
        self, make: Callable[[int], W], build: Callable[[Source], Any], end: int | None = None, ahead: int = 6
    ) -> None:
        self._make, self._build, self._end, self._ahead = make, build, end, ahead
        self._line: _Line[W] | None = None
        self._next = 0

    def get(self, number: int, cuda: bool) -> tuple[W, list[Any]]:
        """Batch `number`: what the pipeline was fed with, and its outputs as DALI's tensor lists, on torch's current
        stream where the pipeline is a GPU's. Raises what `make` raised, and `FailedError` where the pipeline fails.
        """
        try:
            if self._line is None or number != self._next:
                self._line = self._started(number)
            found = self._line.next(torch.cuda.current_stream() if cuda else None)
        except BaseException:
            self.close()
            raise
        self._next = number + 1
        return found

    def close(self) -> None:
        """Stop all that is under way; `get` would start anew."""
        if self._line:
            self._end_line.detach()
            self._line.close()
        self._line = None

    def _started(self, number: int) -> "_Line[W]":
        """What comes from `number` on; of what was under way the pipeline is used again, if it can be."""
        if self._line and not self._line.drain():
            self.close()
        if not self._line:
            self._line = _Line(_Queue(self._make, self._end, self._ahead), self._build)
            self._end_line = weakref.finalize(self, self._line.close, wait=False)
        self._line.start(number)
        return self._line


class _Line(Generic[W]):
    """A pipeline and what it is fed from."""

    def __init__(self, queue: "_Queue[W]", build: Callable[[Source], Any]) -> None:
        self._queue = queue
        self._pipeline = build(queue.source)

    def start(self, number: int) -> None:
        """Batches come from `number` on."""
        self._queue.start(number)
        self._pipeline.schedule_run()

    def next(self, stream: Any) -> tuple[W, list[Any]]:
        """The next batch, on a CUDA stream if there is one."""
        try:
            outputs = list(self._pipeline.outputs(stream))
        except StopIteration:
            raise self._queue.error or IndexError("there is no such batch") from None
        except RuntimeError as error:
            raise FailedError(list(self._queue.fed)) from error
        self._pipeline.schedule_run()
        return self._queue.fed.popleft(), outputs

    def drain(self) -> bool:
        """Let what is under way come to its end, because DALI cannot drop it; whether the pipeline may be used again."""
        self._queue.stop()
        try:
            while self._queue.fed:
                self.next(None)
            self._pipeline.schedule_run()  # by which it learns that no more comes
        except FailedError:
            return False
        self._pipeline.reset()
        return True

    def close(self, wait: bool = True) -> None:
        """End threads and pipeline."""
        self._queue.close(wait)
        self._pipeline = None


class FailedError(RuntimeError):
    """The pipeline failed on one of these batches."""

    def __init__(self, works: list[Any]) -> None:
        super().__init__("DALI cannot go on")
        self.works = works


class _Queue(Generic[W]):
    """What stands between the threads and the pipeline's inputs, which ask for their parts of a batch one by one.

    fed: what the pipeline was fed with and has not given outputs of. error: why it gets no more.
    """

    def __init__(self, make: Callable[[int], W], end: int | None, ahead: int) -> None:
        self._make, self._end, self._ahead = make, end, ahead
        self._pool = ThreadPoolExecutor(_THREADS, "medsass-reader")
        self._coming: deque[Future[W]] = deque()
        self._parts: list[deque[W]] = []
        self._number, self._stopped = 0, False
        self.fed: deque[W] = deque()
        self.error: Exception | None = None

    def start(self, number: int) -> None:
        """Batches come from `number` on."""
        self._number, self._stopped, self.error = number, False, None
        self._submit()

    def stop(self) -> None:
        """No more batches come."""
        for future in self._coming:
            future.cancel()
        self._coming.clear()
        self._stopped = True

    def close(self, wait: bool) -> None:
        """End the threads."""
        self._pool.shutdown(wait, cancel_futures=True)

    def source(self, name: str) -> Callable[[], Any]:
        """What DALI calls for the input of that name."""
        mine: deque[W] = deque()
        self._parts.append(mine)

        def take() -> Any:
            if not mine:
                self._fetch()
            return mine.popleft().feeds[name]

        return take

    def _submit(self) -> None:
        while len(self._coming) < self._ahead and (self._end is None or self._number < self._end):
            self._coming.append(self._pool.submit(self._make, self._number))
            self._number += 1

    def _fetch(self) -> None:
        """Hand the next batch to all inputs. Raises `StopIteration` where there is none, by which DALI stops asking."""
        if self._stopped or not self._coming:
            raise StopIteration
        try:
            work = self._coming.popleft().result()
        except Exception as error:
            self._stopped, self.error = True, error
            raise StopIteration from None
        self._submit()
        self.fed.append(work)
        for part in self._parts:
            part.append(work)
