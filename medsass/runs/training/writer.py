"""What a run directory holds, written in a thread of its own: training goes on while disk and pictures take their time."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from numpy.typing import NDArray

from medsass.models import checkpoint
from medsass.runs import figures, run_directory
from medsass.runs.training.log import Log

_SAMPLES = 6


class Keeper:
    """Writes one thing after the other into `run`, in the order in which they come; of what it is given it takes a copy.

    A new thing waits until the one before is written, and raises what that one raised, such as `OSError` where the disk
    is full. At the end of a `with` block all is written. writes: False in processes that write nothing.
    """

    def __init__(self, run: Path, log: Log, writes: bool) -> None:
        self._run, self._log, self._writes = run, log, writes
        self._thread = ThreadPoolExecutor(1, "medsass-keeper")
        self._under_way: Future[None] | None = None

    def __enter__(self) -> "Keeper":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with suppress(Exception) if error else nullcontext():  # what is already on its way says more
                self.wait()
        finally:
            self._thread.shutdown()

    def checkpoint(self, state: dict[str, Any]) -> None:
        """Write what a training needs to go on."""
        if self._writes:
            self._do(partial(checkpoint.save, self._run / run_directory.LAST, copied(state)))

    def epoch(
        self, state: dict[str, Any], best: int, weights: dict[str, torch.Tensor] | None, samples: Sequence[NDArray[Any]]
    ) -> None:
        """Write all that an epoch brought. state: as for `checkpoint`, with the `history` of all epochs. best: the epoch
        whose weights are kept; where it is the last one these are its `weights`, else None. samples: see `draw_samples`.
        """
        if not self._writes:
            return
        run, state, weights = self._run, copied(state), copied(weights)

        def write() -> None:
            if weights is not None:
                checkpoint.save(run / run_directory.BEST, {"model": weights, "epoch": best})
                checkpoint.save_weights(run / run_directory.WEIGHTS, weights)
                if samples:
                    draw_samples(samples, run / run_directory.SAMPLES)
                self._log.samples(run / run_directory.SAMPLES, best)
            figures.curve(state["history"], best, run / run_directory.PROGRESS)
            self._log.epoch(state["history"])
            checkpoint.save(
                run / run_directory.LAST, state
            )  # last: a run that is killed before does this epoch's end again

        self._do(write)

    def wait(self) -> None:
        """Until all is written. Raises what went wrong."""
        under_way, self._under_way = self._under_way, None
        if under_way:
            under_way.result()

    def _do(self, work: Callable[[], None]) -> None:
        self.wait()
        self._under_way = self._thread.submit(_aside(work))


def copied(value: Any) -> Any:
    """Dicts, lists and tensors within them, anew; a GPU copies its tensors in the order of its current stream."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    return [copied(item) for item in value] if isinstance(value, list) else value


def _aside(work: Callable[[], None]) -> Callable[[], None]:
    """`work` on a CUDA stream of its own, which begins where the current one is now: so it does not wait for later steps."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return work
    device, now = torch.cuda.current_device(), torch.cuda.Event()  # type: ignore[no-untyped-call]
    now.record()

    def run() -> None:
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        stream.wait_event(now)
        with torch.cuda.stream(stream):
            work()

    return run


def draw_samples(samples: Sequence[NDArray[Any]], path: Path) -> None:
    """Draw the first of images, targets and predictions, as `Trainer.samples` has them."""
    rows: list[list[figures.Tile]] = []
    for image, target, guess in list(zip(*samples, strict=True))[:_SAMPLES]:
        rows.append([(image, ""), (target, ""), (guess, ""), (figures.outlined(image, guess), "")])
    figures.sheet(rows, path, ["image", "target", "prediction", "outline"])
