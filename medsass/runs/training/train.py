"""`medsass train`: epochs, early stopping, and all that a run directory holds."""

from collections.abc import Callable
from dataclasses import replace
from time import monotonic
from typing import Any

import torch

from medsass.config import TrainConfig, plain
from medsass.data.shards import manifest, remote
from medsass.data.shards.manifest import Manifest
from medsass.methods import method
from medsass.methods.medsass import MedSASS
from medsass.methods.method import Regime
from medsass.models import checkpoint
from medsass.runs import console, device, run_directory
from medsass.runs import distributed as processes
from medsass.runs.distributed import Ranks
from medsass.runs.scoring import linear_head
from medsass.runs.training import log, preflight, profile, report, signals
from medsass.runs.training.signals import Stop
from medsass.runs.training.trainer import Trainer
from medsass.runs.training.writer import Keeper
from medsass.runs.tuning import warnings

_AGREE = {"cpu": 1, "cuda": 10}  # steps between agreements of several processes on whether to stop or to save
_SOON = 5.0  # seconds; where as many steps take longer, they agree at each: torchrun kills half a minute after SIGTERM


class OutOfMemoryError(torch.OutOfMemoryError, MemoryError):
    """A step does not fit the GPU's memory; says what would."""


def train(config: TrainConfig) -> dict[str, Any]:
    """Train as `config` says and fill `config.run`; with `resume`, go on from the last checkpoint. Under torchrun, as one
    of its processes.

    Returns the line of metrics.jsonl of the epoch whose weights are kept in best.pt and model.safetensors: the one with
    the lowest validation loss, or the last where that loss ranks nothing (`Regime.ranks`).
    On SIGINT or SIGTERM the run is saved and the process ends: `SystemExit` with code 0.
    Raises `ValueError`, `OSError`, `FloatingPointError` or `OutOfMemoryError` that say what is wrong and what to do.
    """
    where = device.resolve(config.device)
    with processes.joined(where) as ranks, signals.heard() as stopping, console.hushed(not ranks.first):
        if ranks.restarts:  # torchrun started all anew after a failure, with the command of the first time
            config = ranks.gather(ranks.first_alone(lambda: _restarted(config)))[0] or config
        return _Run(config, where, ranks, stopping).go()


def _restarted(config: TrainConfig) -> TrainConfig:
    """What the command of the first time asks for now: to go on, where it has begun a run."""
    path = config.run / run_directory.CONFIG
    if config.resume or not path.is_file() or path.stat().st_mtime < processes.began():
        return config
    old, _ = run_directory.stored(config.run)
    return replace(config, resume=True, overwrite=False, accumulate=old.accumulate)


class _Run:
    """A training and its run directory."""

    def __init__(self, config: TrainConfig, where: str, ranks: Ranks, stopping: Stop) -> None:
        dataset = ranks.first_alone(lambda: preflight.checked(config, ranks)) or remote.load(config.shards)
        config = preflight.resolved(config, dataset)
        self.config, self.where, self.ranks, self.stopping, self.dataset = config, where, ranks, stopping, dataset
        self.polarity = dataset.polarity if config.polarity == "recipe" else config.polarity
        last = config.run / run_directory.LAST
        if config.resume:
            run_directory.stored(config.run)  # which says so where it is no run
        # A run that was killed before its first checkpoint begins anew.
        self.saved = checkpoint.load(last) if config.resume and last.is_file() else None
        self.trainer = self._trainer()
        facts = self._facts()
        if config.resume:
            run_directory.check_resume(config, facts)
            if self.saved:
                self.trainer.load(self.saved)
        elif config.auto_batch:
            self._fit()
        if not config.resume:
            ranks.first_alone(lambda: run_directory.create(self.config, facts))
        self.history: list[dict[str, Any]] = self.saved["history"] if self.saved else []
        self.kept = (self.trainer.epoch, self.trainer.done)  # where the last checkpoint stands
        self.due = monotonic() + 60 * config.save_every
        self.asked, self.every = monotonic(), _AGREE[where] if ranks.world > 1 else 1

    def _trainer(self) -> Trainer:
        config = self.config
        device.seed(config.seed, self.where)
        chosen = method.make(replace(config, init=None) if self.saved else config, self.polarity)
        return Trainer(config, chosen, self.where, self.ranks, self.dataset)

    def _facts(self) -> dict[str, Any]:
        """What a run directory says of its run beside the options."""
        config, chosen = self.config, self.trainer.method
        origin = run_directory.stored(config.run)[1]["init"] if config.resume else _origin(config)
        return {
            "polarity": self.polarity,
            "device": self.where,
            "shards_sha256": manifest.digest(config.shards),
            "keeps": chosen.keeps,
            "segments": chosen.segments,
            "labels_read": chosen.needs_masks or bool(origin and origin["labels_read"]),
            "init": origin,
            "regime": plain(self.trainer.regime),
            "precision": self.trainer.step.precision,
            **_form(self.dataset),
        }

    def _fit(self) -> None:
        """Raise --accumulate until a step fits."""
        parts = self.trainer.parts_that_fit()
        if not parts:
            raise OutOfMemoryError(_not_even_one(self.config))
        if parts > self.config.accumulate:
            console.err.print(f"--auto-batch: steps of {self.config.batch_size} images in {parts} parts, to fit memory")
            self.config = replace(self.config, accumulate=parts)
            del self.trainer  # its memory, and what its caches were promised
            self.trainer = self._trainer()

    def go(self) -> dict[str, Any]:
        """Train to the end."""
        config, trainer, regime = self.config, self.trainer, self.trainer.regime
        report.announce(config, trainer, self.polarity)
        if isinstance(trainer.method, MedSASS) and not config.resume and self.ranks.first:
            warnings.say(warnings.of_run(config, self.dataset, trainer.method.labeler, self.where))
        left = config.epochs * trainer.steps_an_epoch - trainer.number
        folder = config.run / run_directory.PROFILE if config.profile else None
        too_large = False
        try:
            with (
                log.kept(config, len(self.history), self.ranks.first) as writer,
                Keeper(config.run, writer, self.ranks.first) as keeper,
                profile.traced(folder, self.where, left, self.ranks) as traced,
            ):
                if not self.saved:
                    self._save(keeper)
                    keeper.wait()  # where it cannot be written to is better known now
                while not _finished(config, regime, self.history):
                    self._epoch(keeper, traced)
        except FloatingPointError as error:
            raise FloatingPointError(f"{error}. {self._last_good()}") from error
        except torch.OutOfMemoryError:
            too_large = True  # asked outside of this block: until then the error keeps what does not fit in memory
        if too_large:
            raise OutOfMemoryError(self._fitting())
        return self._close()

    def _epoch(self, keeper: Keeper, traced: Callable[[], None]) -> None:
        config, trainer, start = self.config, self.trainer, monotonic()
        epoch = trainer.epoch + 1
        with console.progress(f"epoch {epoch}/{config.epochs}", trainer.train_loader.samples) as bar:
            bar.advance(trainer.done * config.batch_size)
            for images, seen in trainer.steps():
                bar.advance(images, report.remark(seen) if seen else None)
                traced()
                if trainer.done < trainer.steps_an_epoch:
                    self._between(keeper)
            line = {"epoch": epoch, **trainer.finish_epoch()}
            bar.advance(0, "validation")
            line |= trainer.validate()
        line["seconds"] = monotonic() - start
        report.epoch(config, line)
        self.history.append(line)
        self._keep(keeper)
        if self.ranks.any(bool(self.stopping)) and not _finished(config, trainer.regime, self.history):
            self._stop(keeper)

    def _between(self, keeper: Keeper) -> None:
        """Between two steps: stop or save, if all agree."""
        if self.trainer.done % self.every:
            return
        if self.every > 1:
            self.every = 1 if self.ranks.any(monotonic() - self.asked > _SOON) else self.every
            self.asked = monotonic()
        late = self.ranks.first and self.config.save_every > 0 and monotonic() > self.due
        if self.ranks.any(bool(self.stopping) or late):
            self._save(keeper)
            if self.ranks.any(bool(self.stopping)):
                self._stop(keeper)

    def _keep(self, keeper: Keeper) -> None:
        """All that a run directory holds of an epoch."""
        best, last = best_epoch(self.history, self.trainer.regime), len(self.history)
        state = self._state()  # raises where the weights are not worth keeping
        weights = self.trainer.method.weights() if best == last else None
        keeper.epoch(state, best, weights, self.trainer.samples)
        self._kept()

    def _state(self) -> dict[str, Any]:
        return {**self.trainer.state(), "history": self.history}

    def _save(self, keeper: Keeper) -> None:
        keeper.checkpoint(self._state())
        self._kept()

    def _kept(self) -> None:
        self.kept = (self.trainer.epoch, self.trainer.done)
        self.due = monotonic() + 60 * self.config.save_every

    def _stop(self, keeper: Keeper) -> None:
        keeper.wait()
        epoch, done = self.kept
        alone = f"medsass train {self.config.shards} {self.config.run}"
        again = alone if self.ranks.world == 1 else "the same torchrun command and"
        console.err.print(
            f"stopped by {self.stopping.signal or 'a signal to another process'} and saved after "
            f"{report.place(epoch, done)}; go on with: {again} --resume"
        )
        raise SystemExit(0)

    def _last_good(self) -> str:
        return (
            f"The last good checkpoint is {self.config.run / run_directory.LAST}, of {report.place(*self.kept)}; look at these images, "
            f"or train anew with a lower --lr (now {self.trainer.regime.lr:g}) or --precision fp32"
        )

    def _fitting(self) -> str:
        """What to do where a step does not fit: the number of images that does, found by trying."""
        config, share = self.config, self.ranks.world * self.config.accumulate
        tried = f"{config.batch_size // share} images at once do not fit the GPU's memory"
        if self.ranks.world > 1:  # the others are somewhere else by now, and cannot be asked
            return f"{tried}; start again with a larger --accumulate, or with --auto-batch, which finds what fits"
        parts = self.trainer.parts_that_fit()
        if not parts:
            return _not_even_one(config)
        images = config.batch_size // parts
        return (
            f"{tried}, {images} do; start again with --batch-size {images * config.accumulate}, with --accumulate {parts} "
            "for steps of as many images as now, or with --auto-batch, which finds that by itself"
        )

    def _close(self) -> dict[str, Any]:
        config, regime, history = self.config, self.trainer.regime, self.history
        best = history[best_epoch(history, regime) - 1]
        early = f" (stopped early: no lower validation loss for {regime.patience} epochs)"
        console.out.print(
            f"{len(history)} epochs done{early if len(history) < config.epochs else ''}. "
            f"{'Best' if regime.ranks else 'Kept'}: epoch {best['epoch']}, validation loss {best['val_loss']:.4f}"
        )
        console.out.print(f"Run directory: {config.run}   Next: medsass evaluate {config.run} {config.shards}")
        return best


def _not_even_one(config: TrainConfig) -> str:
    return (
        f"not even one image of {config.size} x {config.size} fits the GPU's memory with {config.model}; "
        "take a smaller --size or --model"
    )


def _origin(config: TrainConfig) -> dict[str, Any] | None:
    """Of the run that --init names: its method, what of it is taken, and whether labels had a part in its weights."""
    if not config.init:
        return None
    old, facts = run_directory.stored(config.init)
    return {"method": old.method, "takes": facts["keeps"], "labels_read": facts["labels_read"]}


def _form(dataset: Manifest) -> dict[str, Any]:
    """What `predict` must know of the images that the network was trained on."""
    options = dataset.options
    return {
        "tile": dataset.tile,
        "level": options.get("level", 0),
        "depth": dataset.depth,
        "range": options.get("range", "minmax"),
    }


def best_epoch(history: list[dict[str, Any]], regime: Regime) -> int:
    """The epoch, counted from 1, whose weights are kept: the first with the lowest validation loss, or the last where
    that loss ranks nothing.
    """
    return linear_head.best_epoch(history) if regime.ranks else len(history)


def _finished(config: TrainConfig, regime: Regime, history: list[dict[str, Any]]) -> bool:
    stale = len(history) - linear_head.best_epoch(history) if history else 0
    return len(history) >= config.epochs or bool(regime.patience and stale >= regime.patience)
