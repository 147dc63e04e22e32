"""Where a training is written down as it goes: metrics.jsonl, TensorBoard, and Weights & Biases where that is asked for."""

import hashlib
import importlib.util
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medsass.config import TrainConfig, plain
from medsass.runs import run_directory


class Log:
    """What an epoch brought, to all of the places."""

    def __init__(self, config: TrainConfig, done: int) -> None:
        """Begin, or go on after `done` epochs."""
        self._run = config.run
        self._wandb = _wandb(config) if config.wandb else None
        folder = config.run / run_directory.TENSORBOARD
        if not done:
            shutil.rmtree(folder, ignore_errors=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from torch.utils.tensorboard import SummaryWriter
        self._board: Any = SummaryWriter(str(folder), purge_step=done + 1 if done else None)

    def epoch(self, history: list[dict[str, Any]]) -> None:
        """Write down the last of these lines, one an epoch."""
        line = history[-1]
        run_directory.write_metrics(self._run, history)
        for name, value in line.items():
            self._board.add_scalar(name, value, line["epoch"])
        self._board.flush()
        if self._wandb:
            self._wandb.log(line, step=line["epoch"])

    def samples(self, path: Path, epoch: int) -> None:
        """Show the picture at `path`, where there is one."""
        if not path.is_file():
            return
        with Image.open(path) as picture:
            self._board.add_image("samples", np.asarray(picture.convert("RGB")), epoch, dataformats="HWC")
        if self._wandb:
            import wandb

            self._wandb.log({"samples": wandb.Image(str(path))}, step=epoch)

    def close(self) -> None:
        """Finish what is still to be written."""
        self._board.close()
        if self._wandb:
            self._wandb.finish()


class Quiet(Log):
    """Of processes that write nothing."""

    def __init__(self) -> None:
        pass

    def epoch(self, history: list[dict[str, Any]]) -> None:
        """Nothing."""

    def samples(self, path: Path, epoch: int) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


@contextmanager
def kept(config: TrainConfig, done: int, writes: bool) -> Iterator[Log]:
    """The log of a run that has `done` epochs; of a process that does not write one that does nothing."""
    log = Log(config, done) if writes else Quiet()
    try:
        yield log
    finally:
        log.close()


def check(config: TrainConfig) -> None:
    """Raise `ImportError` where `config` asks for what is not installed."""
    if config.wandb and importlib.util.find_spec("wandb") is None:
        raise ImportError("--wandb needs the wandb package: pip install 'medsass[wandb]'")


def _wandb(config: TrainConfig) -> Any:
    import wandb

    name = hashlib.sha256(str(config.run.resolve()).encode()).hexdigest()[:16]  # the same when the run is resumed
    return wandb.init(
        project=config.wandb, id=name, name=config.run.name, dir=str(config.run), config=plain(config), resume="allow"
    )
