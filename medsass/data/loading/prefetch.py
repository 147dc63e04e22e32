"""Prefetching: threads prepare the inputs of coming batches, and a DALI pipeline works ahead of its consumer.

An output's memory belongs to its batch: DALI hands it over and never writes to it again.
"""

import weakref
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import torch

from medsass.data.loading.pipeline import Source

_THREADS = 4


class HasFeeds(Protocol):
    """The inputs of one batch."""

    @property
    def feeds(self) -> Mapping[str, Any]:
        """DALI's batch of each pipeline input, by the input's name."""
        ...


T = TypeVar("T", bound=HasFeeds)


class PipelineError(RuntimeError):
    """The pipeline failed on one of `batches`, the inputs of batches that had no outputs yet."""

    def __init__(self, batches: list[Any]) -> None:
        super().__init__("DALI cannot go on")
        self.batches = batches


class Prefetcher(Generic[T]):
    """Batches of a pipeline by number, cheap where each number is the one after the last.

    Args:
        make: Returns the inputs of batch `number`; called in other threads.
        build: Builds a pipeline that takes its inputs from a `Source`.
        end: Number of batches; None for endless ones.
        ahead: Batches that are prepared before DALI asks for them.
    """

    def __init__(
        self, make: Callable[[int], T], build: Callable[[Source], Any], end: int | None = None, ahead: int = 6
    ) -> None:
        self._new = partial(_Run[T], make, build, end, ahead)
        self._run: _Run[T] | None = None

    def get(self, number: int, cuda: bool) -> tuple[T, list[Any]]:
        """Return the inputs of batch `number` and the pipeline's outputs, as DALI's tensor lists.

        A GPU's outputs are on torch's current stream. After any number but the next one the pipeline is used again, if
        it can be. Raises what `make` raised, and `PipelineError` where the pipeline fails.
        """
        try:
            if self._run and not self._run.seek(number):
                self.close()
            if not self._run:
                self._run = self._new()
                self._finalizer = weakref.finalize(self, self._run.close, wait=False)
                self._run.seek(number)
            return self._run.get(torch.cuda.current_stream() if cuda else None)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop threads and pipeline; a later `get` starts them again."""
        if self._run:
            self._finalizer.detach()
            self._run.close()
        self._run = None


class _Run(Generic[T]):
    """A pipeline, the threads that prepare its inputs, and what lies between them."""

    def __init__(self, make: Callable[[int], T], build: Callable[[Source], Any], end: int | None, ahead: int) -> None:
        self._next: int | None = None  # number of the batch that `get` returns next
        self._make, self._end, self._ahead = make, end, ahead
        self._pool = ThreadPoolExecutor(_THREADS, "medsass-reader")
        self._submitted = 0  # number of the batch to be prepared next
        self._preparing: deque[Future[T]] = deque()
        self._waiting: dict[str, deque[Any]] = {}  # by input: what DALI, which asks input by input, has not taken yet
        self._running: deque[T] = deque()  # the inputs of batches in the pipeline, which it reads without a copy
        self._error: Exception | None = None  # why no more batches come
        self._pipeline = build(self._source)

    def seek(self, number: int) -> bool:
        """Go to batch `number`. Return False where the pipeline has failed and cannot be used again."""
        if number == self._next:
            return True
        if self._next is not None:  # DALI cannot drop the batches in the pipeline: finish them
            self._cancel()
            try:
                while self._running:
                    self.get(None)
                self._pipeline.schedule_run()  # tells DALI that no more come
            except PipelineError:
                return False
            self._pipeline.reset()
        self._next = self._submitted = number
        self._error = None
        self._submit()
        self._pipeline.schedule_run()
        return True

    def get(self, stream: Any) -> tuple[T, list[Any]]:
        """Return the inputs and outputs of the next batch, on a CUDA stream if there is one."""
        try:
            outputs = list(self._pipeline.outputs(stream))
        except StopIteration:
            raise self._error or IndexError("there is no such batch") from None
        except RuntimeError as error:
            raise PipelineError(list(self._running)) from error
        self._pipeline.schedule_run()
        assert self._next is not None
        self._next += 1
        return self._running.popleft(), outputs

    def close(self, wait: bool = True) -> None:
        """End threads and pipeline."""
        self._pool.shutdown(wait, cancel_futures=True)
        self._pipeline = None

    def _source(self, name: str) -> Callable[[], Any]:
        """Return the function that DALI calls for each batch of the input `name`."""
        waiting = self._waiting[name] = deque()

        def take() -> Any:
            if not waiting:  # give the next batch to all inputs
                if not self._preparing:
                    raise StopIteration  # then DALI stops asking
                try:
                    inputs = self._preparing.popleft().result()
                except Exception as error:
                    self._error = error
                    self._cancel()
                    raise StopIteration from None
                self._submit()
                self._running.append(inputs)
                for each, others in self._waiting.items():
                    others.append(inputs.feeds[each])
            return waiting.popleft()

        return take

    def _submit(self) -> None:
        while len(self._preparing) < self._ahead and (self._end is None or self._submitted < self._end):
            self._preparing.append(self._pool.submit(self._make, self._submitted))
            self._submitted += 1

    def _cancel(self) -> None:
        """Prepare no further batches."""
        for future in self._preparing:
            future.cancel()
        self._preparing.clear()
