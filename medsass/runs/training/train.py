"""`medsass train`: preflight, build, create or resume the run directory, train epochs, finish."""

import shlex
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import fields, replace
from time import monotonic
from typing import Any, cast

import torch

from medsass import __version__
from medsass.config import TrainConfig, plain
from medsass.config.options import Polarity, Reading
from medsass.data.shards import remote
from medsass.data.shards.manifest import Manifest
from medsass.errors import ElsewhereError, Stopped
from medsass.methods import method
from medsass.methods.medsass import MedSASS
from medsass.methods.method import Regime
from medsass.models import checkpoint
from medsass.runs import console, device, preflight, run_directory
from medsass.runs import distributed as processes
from medsass.runs.distributed import Ranks
from medsass.runs.run_directory import Facts, Origin
from medsass.runs.scoring import linear_head
from medsass.runs.training import fit, meter, profile, report, signals
from medsass.runs.training.trainer import Trainer
from medsass.runs.training.writer import Log, Writer
from medsass.runs.tuning import warnings

_AGREE = {"cpu": 1, "cuda": 10}  # steps between agreements of several processes on whether to stop or to save
_SOON = 5.0  # seconds; where _AGREE steps take longer, they agree at each: torchrun kills half a minute after SIGTERM


def train(config: TrainConfig, dataset: Manifest | None = None) -> dict[str, Any]:
    """Train as `config` says and fill `config.run`; with `resume`, continue from the last checkpoint.

    Under torchrun this is one of its processes. Returns the line of metrics.jsonl of the epoch whose weights are kept in
    best.pt and model.safetensors: the one with the lowest validation loss, or the last where that loss ranks nothing
    (`Regime.ranks`). `dataset` is what `preflight.train` returned, if the caller has called it.

    Raises:
        Stopped: after SIGINT or SIGTERM; the run is saved.
        KeyboardInterrupt: after a second one; the text says what is kept, and how to go on.
        ValueError, OSError, FloatingPointError, OutOfMemoryError: with a text that says what is wrong and what to do.
    """
    where = device.resolve(config.device)
    with (
        processes.joined(where) as ranks,
        signals.heard() as stopping,
        console.hushed(not ranks.first),
        ExitStack() as held,
    ):
        if ranks.restarts:  # torchrun restarted all processes after a failure, with their first command
            config = ranks.gather(ranks.first_alone(lambda: _restarted(config)))[0] or config
        checked = ranks.first_alone(lambda: dataset or preflight.train(config, ranks.world))
        ranks.first_alone(lambda: held.enter_context(run_directory.locked(config.run)))
        return _Run(config, where, ranks, stopping, checked or remote.load(config.shards)).train()


def _restarted(config: TrainConfig) -> TrainConfig:
    """Resume the run that the command began before torchrun restarted it, if it did."""
    path = config.run / run_directory.CONFIG
    if config.resume or not path.is_file() or path.stat().st_mtime < processes.began():
        return config
    old, _ = run_directory.stored(config.run)
    return replace(config, resume=True, overwrite=False, accumulate=old.accumulate)


class _Run:
    """A training and its run directory."""

    def __init__(
        self, config: TrainConfig, where: device.Where, ranks: Ranks, stopping: signals.Heard, dataset: Manifest
    ) -> None:
        self.where, self.ranks, self.stopping, self.dataset = where, ranks, stopping, dataset
        self.config = preflight.resolved(config, dataset)
        self.polarity = self.dataset.recipe["polarity"] if config.polarity == "recipe" else config.polarity
        self.saved: dict[str, Any] | None = None
        self.origin: Origin | None = None  # the run that --init names
        if config.resume:
            self.origin = run_directory.stored(config.run)[1].init  # raises where it is not a run directory
            path = config.run / run_directory.LAST
            self.saved = checkpoint.load(path) if path.is_file() else None  # a run may be killed before it has one
        self.trainer = self._build()
        if config.resume:
            run_directory.check_resume(self.config, self._facts())
        else:
            if config.init:
                old, facts = run_directory.stored(config.init)
                self.origin = Origin(old.method, facts.keeps, bool(facts.labels_read))
            if config.auto_batch:
                self._raise_accumulate()
            ranks.first_alone(lambda: run_directory.create(self.config, self._facts()))
        if self.saved:
            self.trainer.load({"history": None, **self.saved})  # which is refused
        self.history: list[dict[str, Any]] = self.saved["history"] if self.saved else []
        self.checked_at, self.agree_every = monotonic(), _AGREE[where] if ranks.world > 1 else 1
        self.saved_at, self.save_at = (self.trainer.epoch, self.trainer.done), monotonic() + 60 * config.save_every

    def _build(self) -> Trainer:
        config, most = self.config, self.dataset.split("train").samples
        images = min(config.batch_size, most) // config.accumulate  # of all processes
        device.check_memory(config.size, images, device.TRAINING, self.where)
        device.seed(config.seed, self.where)
        # The weights of a checkpoint replace those of --init.
        chosen = method.make(replace(self.config, init=None) if self.saved else self.config, self.polarity)
        return Trainer(self.config, chosen, self.where, self.ranks, self.dataset)

    def _facts(self) -> Facts:
        chosen, options = self.trainer.method, self.dataset.options
        return Facts(
            medsass=__version__,
            polarity=cast(Polarity, self.polarity),
            device=self.where,
            shards_sha256=self.dataset.sha256,
            keeps=chosen.keeps,
            segments=chosen.segments,
            labels_read=chosen.needs_masks or bool(self.origin and self.origin.labels_read),
            init=self.origin,
            regime=plain(self.trainer.regime),
            precision=self.trainer.step.precision,
            tile=options.tile,
            level=options.level,
            depth=options.depth,
            range=options.range,
            **{item.name: getattr(options, item.name) for item in fields(Reading)},
        )

    def _raise_accumulate(self) -> None:
        """Raise --accumulate until a step fits."""
        count = fit.micro_batches(self.trainer)
        if count > self.config.accumulate:
            console.err.print(
                f"--auto-batch: steps of {self.config.batch_size} images in {count} micro-batches, to fit memory"
            )
            self.config = replace(self.config, accumulate=count)
            del self.trainer  # frees its memory, and what its caches were promised
            self.trainer = self._build()

    def train(self) -> dict[str, Any]:
        """Train to the end and return the line of the epoch that is kept."""
        config, trainer, first = self.config, self.trainer, self.ranks.first
        report.announce(config, trainer, self.polarity, self.origin.takes if self.origin else "")
        new = trainer.method if first and not config.resume else None
        if isinstance(new, MedSASS) and (warning := warnings.of_run(config, self.dataset, new.labeler, self.where)):
            console.err.print(f"warning: {warning}")
        left = config.epochs * trainer.steps_an_epoch - trainer.number
        folder = config.run / run_directory.PROFILE if config.profile else None
        too_large = False
        try:
            with (
                Writer(config.run, Log(config, len(self.history)) if first else None) as writer,
                profile.traced(folder, self.where, left, self.ranks) as traced,
            ):
                if not self.saved:
                    self._save(writer.checkpoint)
                    writer.wait()  # a place that cannot be written to is reported now
                while not _finished(config, trainer.regime, self.history):
                    self._epoch(writer, traced)
        except FloatingPointError as error:
            raise FloatingPointError(
                f"{error}. The last good checkpoint is {config.run / run_directory.LAST}, of "
                f"{report.place(*self.saved_at)}; look at these images, or train anew with a lower --lr (now "
                f"{trainer.regime.lr:g}) or --precision fp32"
            ) from error
        except torch.OutOfMemoryError:
            too_large = True  # handled outside of this block: until then the error keeps the memory occupied
        except Stopped:
            raise
        except KeyboardInterrupt:
            if not first:
                raise ElsewhereError("the first process says how to go on") from None
            raise KeyboardInterrupt(
                f"the last checkpoint is of {report.place(*self.saved_at)}; go on with: {self._again()}"
            ) from None
        if too_large:
            raise fit.OutOfMemoryError(self._advice())
        best = self.history[best_epoch(self.history, trainer.regime) - 1]
        report.finished(config, trainer.regime, len(self.history), best)
        report.suggest(config, self.dataset, trainer.method.keeps)
        return best

    def _epoch(self, writer: Writer, traced: Callable[[], None]) -> None:
        config, trainer, start = self.config, self.trainer, monotonic()
        number = trainer.epoch + 1
        with console.progress(f"epoch {number}/{config.epochs}", trainer.train_loader.samples) as bar:
            bar.advance(trainer.done * config.batch_size)
            for images, seen in trainer.steps():
                step = f"step {trainer.done} of {trainer.steps_an_epoch}"
                bar.advance(images, f"{step}, loss {seen['loss']:.4f}, {meter.text(seen)}" if seen else None)
                traced()
                if trainer.done < trainer.steps_an_epoch:
                    self._between_steps(writer)
            line = {"epoch": number, **trainer.finish_epoch()}
        with console.progress(f"epoch {number}/{config.epochs}, validation", trainer.val_loader.samples) as bar:
            line |= trainer.validate(bar.advance)
        line["seconds"] = monotonic() - start
        with self.stopping.held():
            report.epoch(config, line)
            self.history.append(line)
            best = best_epoch(self.history, trainer.regime)
            kept = best == len(self.history)
            self._save(lambda s: writer.epoch(s, best, trainer.method.weights() if kept else None, trainer.samples))
        if self.ranks.any(bool(self.stopping)) and not _finished(config, trainer.regime, self.history):
            self._stop(writer)

    def _between_steps(self, writer: Writer) -> None:
        """Save or stop where one process wants to; several processes agree on it every few steps."""
        if self.trainer.done % self.agree_every:
            return
        if self.agree_every > 1:
            self.agree_every = 1 if self.ranks.any(monotonic() - self.checked_at > _SOON) else self.agree_every
            self.checked_at = monotonic()
        late = self.ranks.first and self.config.save_every > 0 and monotonic() > self.save_at
        if self.ranks.any(bool(self.stopping) or late):
            self._save(writer.checkpoint)
            if self.ranks.any(bool(self.stopping)):
                self._stop(writer)

    def _save(self, write: Callable[[dict[str, Any]], None]) -> None:
        """Write the state, and note where this checkpoint stands, and when the next one is due."""
        write({**self.trainer.state(), "history": self.history})  # raises where the weights are not worth keeping
        self.saved_at = (self.trainer.epoch, self.trainer.done)
        self.save_at = monotonic() + 60 * self.config.save_every

    def _stop(self, writer: Writer) -> None:
        writer.wait()
        if not self.ranks.first:
            raise Stopped
        by = self.stopping[-1] if self.stopping else "a signal to another process"
        raise Stopped(f"stopped by {by} and saved after {report.place(*self.saved_at)}; go on with: {self._again()}")

    def _again(self) -> str:
        alone = shlex.join(("medsass", "train", str(self.config.shards), str(self.config.run)))
        return f"{alone if self.ranks.world == 1 else 'the same torchrun command and'} --resume"

    def _advice(self) -> str:
        """Say what to do about a step that does not fit: name the number of images that does, found by trying."""
        config, share = self.config, self.ranks.world * self.config.accumulate
        tried = f"{config.batch_size // share} images at once do not fit the GPU's memory"
        if self.ranks.world > 1:  # the other processes are elsewhere by now, and cannot be asked
            return f"{tried}; start again with a larger --accumulate, or with --auto-batch, which finds what fits"
        count = fit.micro_batches(self.trainer)
        images = config.batch_size // count
        return (
            f"{tried}, {images} do; start again with --batch-size {images * config.accumulate}, with --accumulate {count} "
            "for steps of as many images as now, or with --auto-batch, which finds that by itself"
        )


def best_epoch(history: list[dict[str, Any]], regime: Regime) -> int:
    """Return the epoch, counted from 1, whose weights are kept: the first with the lowest validation loss, or the last
    where that loss ranks nothing.
    """
    return linear_head.best_epoch(history) if regime.ranks else len(history)


def _finished(config: TrainConfig, regime: Regime, history: list[dict[str, Any]]) -> bool:
    stale = len(history) - linear_head.best_epoch(history) if history else 0
    return len(history) >= config.epochs or bool(regime.patience and stale >= regime.patience)
