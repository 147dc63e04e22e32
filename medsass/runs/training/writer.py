"""Writes a run directory while training goes on: checkpoints, weights, pictures, metrics.jsonl, TensorBoard and, where
that is asked for, Weights & Biases.
"""

import hashlib
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from medsass import files, temporary
from medsass.config import TrainConfig, plain
from medsass.models import checkpoint
from medsass.runs import console, figures, run_directory

_SAMPLES = 6


class Log:
    """The metrics of a training, in metrics.jsonl, TensorBoard and Weights & Biases."""

    def __init__(self, config: TrainConfig, done: int) -> None:
        """Start anew, or after `done` epochs."""
        self._run = run = config.run
        self._wandb = _wandb(config) if config.wandb else None
        folder = run / run_directory.TENSORBOARD
        if not done:
            with suppress(OSError):
                temporary.remove(folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from torch.utils.tensorboard import SummaryWriter
        self._board: Any = SummaryWriter(str(folder), purge_step=done + 1 if done else None)

    def epoch(self, history: list[dict[str, Any]]) -> None:
        """Write metrics.jsonl, and send the last of its lines, one per epoch, to the others."""
        line = history[-1]
        run_directory.write_metrics(self._run, history)
        for name, value in line.items():
            self._board.add_scalar(name, value, line["epoch"])
        self._board.flush()
        self._send(lambda wandb: wandb.log(line, step=line["epoch"]))

    def samples(self, path: Path, epoch: int) -> None:
        """Show the picture at `path`, if it exists."""
        if not path.is_file():
            return
        with Image.open(path) as picture:
            self._board.add_image("samples", np.asarray(picture.convert("RGB")), epoch, dataformats="HWC")
        if self._wandb:
            import wandb

            self._send(lambda to: to.log({"samples": wandb.Image(str(path))}, step=epoch))

    def close(self) -> None:
        """Write what is pending."""
        self._board.close()
        self._send(lambda wandb: wandb.finish())

    def _send(self, what: Callable[[Any], object]) -> None:
        """Send something to Weights & Biases; where that fails, the training goes on without."""
        try:
            if self._wandb:
                what(self._wandb)
        except Exception as error:  # of the network, the server, the account
            self._wandb = None
            console.err.print(f"warning: --wandb: nothing more is sent ({_reason(error)}); the training goes on")


def _wandb(config: TrainConfig) -> Any:
    """Begin a run of Weights & Biases. Raises `ValueError` with the remedy for any error of theirs."""
    import wandb

    run = config.run
    name = hashlib.sha256(str(run.resolve()).encode()).hexdigest()[:16]  # the same when it is resumed
    try:
        return wandb.init(
            project=config.wandb, id=name, name=run.name, dir=str(run), config=plain(config), resume="allow"
        )
    except Exception as error:
        raise ValueError(
            f"--wandb {config.wandb}: Weights & Biases did not begin ({_reason(error)}); log in with: wandb login, check the "
            "project's name and the network, set WANDB_MODE=offline, or drop --wandb; then go on with --resume"
        ) from error


def _reason(error: Exception) -> str:
    return f"{' '.join(str(error).split()) or type(error).__name__:.200}"


class Writer(AbstractContextManager["Writer"]):
    """Writes into `run` in a thread of its own, one job after the other, each from a copy of what it is given.

    A new job waits for the one before, and raises its error, such as `OSError` where the disk is full. A `with` block
    ends when everything is written, and closes the log, which is None in processes that write nothing.
    """

    def __init__(self, run: Path, log: Log | None) -> None:
        self._run, self._log = run, log
        self._thread = ThreadPoolExecutor(1, "medsass-writer")
        self._pending: Future[None] | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with suppress(Exception) if error else nullcontext():  # the error that is already raised says more
                self.wait()
        finally:
            self._thread.shutdown()
            if self._log:
                self._log.close()

    def checkpoint(self, state: dict[str, Any]) -> None:
        """Write last.pt, from which a training is resumed."""
        if self._log:
            self._start(partial(checkpoint.save, self._run / run_directory.LAST, copied(state)))

    def epoch(
        self, state: dict[str, Any], best: int, weights: dict[str, torch.Tensor] | None, samples: Sequence[NDArray[Any]]
    ) -> None:
        """Write everything about a finished epoch.

        Args:
            state: as for `checkpoint`, with the `history` of all epochs.
            best: number of the epoch whose weights are kept.
            weights: this epoch's, where it is that one, else None.
            samples: as for `draw_samples`.
        """
        log = self._log
        if not log:
            return
        run, state, weights = self._run, copied(state), copied(weights)

        def write() -> None:
            if weights is not None:
                checkpoint.save(run / run_directory.BEST, {"model": weights, "epoch": best})
                files.write(run / run_directory.WEIGHTS, checkpoint.to_bytes(weights))
                if samples:
                    draw_samples(samples, run / run_directory.SAMPLES)
                log.samples(run / run_directory.SAMPLES, best)
            figures.curve(state["history"], best, run / run_directory.PROGRESS)
            log.epoch(state["history"])
            # Last, so that a run that is killed earlier repeats the end of this epoch.
            checkpoint.save(run / run_directory.LAST, state)

        self._start(write)

    def wait(self) -> None:
        """Wait until everything is written. Raises the error of the pending job."""
        pending, self._pending = self._pending, None
        if pending:
            pending.result()

    def _start(self, job: Callable[[], None]) -> None:
        """Do `job` in the thread; where CUDA is in use, on a stream of its own, which starts at this point of the current one,
        so that it waits for no later step.
        """
        self.wait()
        if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            self._pending = self._thread.submit(job)
            return
        device, now = torch.cuda.current_device(), torch.cuda.Event()  # type: ignore[no-untyped-call]
        now.record()

        def on_own_stream() -> None:
            stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            stream.wait_event(now)
            with torch.cuda.stream(stream):
                job()

        self._pending = self._thread.submit(on_own_stream)


def copied(value: Any) -> Any:
    """Copy dicts, lists and the tensors in them, detached; a GPU copies in the order of its current stream."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    return [copied(item) for item in value] if isinstance(value, list) else value


def draw_samples(samples: Sequence[NDArray[Any]], path: Path) -> None:
    """Draw the first images, targets and predictions of `Trainer.samples` into a PNG file."""
    rows: list[list[figures.Tile]] = []
    for image, target, guess in list(zip(*samples, strict=True))[:_SAMPLES]:
        rows.append([(image, ""), (target, ""), (guess, ""), (figures.outlined(image, guess), "")])
    figures.sheet(rows, path, ["image", "target", "prediction", "outline"])
