"""One training in memory: method, optimiser and data, and the state from which it can be resumed.

The order and augmentation of the images, the method's random numbers and the learning rate are functions of the seed and
the step. So a checkpoint is the weights, the optimiser's state and the number of the step.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from itertools import islice
from time import monotonic
from typing import Any

import torch
from numpy.typing import NDArray
from torch.profiler import record_function

from medsass.config import TrainConfig
from medsass.data.loading.augment import View
from medsass.data.loading.loader import Batch, Loader, LoaderConfig
from medsass.data.shards import remote
from medsass.data.shards.manifest import Manifest
from medsass.methods import collective, optim
from medsass.methods.method import Method, Outcome
from medsass.runs import device
from medsass.runs.distributed import Ranks
from medsass.runs.scoring import metrics
from medsass.runs.training import saved as saved_state
from medsass.runs.training.meter import Meter
from medsass.runs.training.step import Step, uncompiled

_REPORT_EVERY = 0.5  # seconds between reads of the loss, each of which waits for the device
_NEVER = 1 << 62


class Trainer:
    """Trains a method, a step at a time.

    Attributes:
        regime: the method's numbers as this run uses them.
        steps_an_epoch: number of steps of an epoch.
        epoch: the epoch that `steps` continues, counted from 0; done: the number of its finished steps.
        meter: of the running epoch. pace: `Meter.read` at the end of the last one.
        samples: images, targets and predictions of the first batch of the last validation.
    """

    def __init__(
        self, config: TrainConfig, method: Method, where: str, ranks: Ranks, dataset: Manifest | None = None
    ) -> None:
        """Build the step and the loaders. `dataset` is the shards' manifest, read here where it is None."""
        self.config, self.device, self.ranks = config, where, ranks
        dataset = dataset or remote.load(config.shards)
        self.method = method.to(where)
        self.regime = method.regime.of(config)
        if config.sync_batchnorm:
            if where != "cuda":
                raise ValueError("--sync-batchnorm is for GPUs; drop it on a CPU")
            self.method = torch.nn.SyncBatchNorm.convert_sync_batchnorm(self.method)  # type: ignore[no-untyped-call]
        self.step = Step(self.method, config, self.regime, where, ranks)
        self.train_loader = self._loader("train", method.views, dataset, config.label_fraction)
        self.steps_an_epoch = self.train_loader.steps
        self.val_loader = self._loader(dataset.followed, method.val_views, dataset, 1.0)
        self.epoch = self.done = 0
        self.meter, self.pace = Meter(where), dict[str, float]()
        self.samples: list[NDArray[Any]] = []
        self._means = metrics.Means()
        # Keys of the images by step: of the last step before the last read of the loss, and of those since.
        self._keys: dict[int, tuple[str, ...]] = {}
        self._bad = torch.tensor(_NEVER, device=where)  # the first step whose loss was not finite

    def _loader(self, split: str, views: tuple[View, ...], dataset: Manifest, fraction: float) -> Loader:
        c, (first, *more) = self.config, views
        plain = LoaderConfig(
            c.shards, split, first.size, c.batch_size, self.device, first.augment, self.method.needs_masks
        )
        plain = replace(plain, seed=c.seed, threads=c.threads, cache=c.cache, micro_batches=c.accumulate)
        config = replace(plain, rank=self.ranks.rank, world=self.ranks.world, more=tuple(more), fraction=fraction)
        return Loader(config, dataset)

    @property
    def number(self) -> int:
        """Number of the next step of the whole training, counted from 0."""
        return self.epoch * self.steps_an_epoch + self.done

    @property
    def progress(self) -> float:
        """Share of all steps that are done, in [0, 1]."""
        return min(1.0, self.number / (self.config.epochs * self.steps_an_epoch))

    def state(self) -> dict[str, Any]:
        """Return tensors, numbers and text from which `load` continues exactly as without a break.

        All processes must call it together. Raises `FloatingPointError` where the loss or a weight is no longer finite.
        """
        self._check_loss()
        # A weight that is not finite shows in the loss a step later, or never.
        weights = [item for item in self.method.parameters() if item.requires_grad]
        if self.number and not torch.stack([item.isfinite().all() for item in weights]).all():
            raise FloatingPointError(f"a weight after {self._not_finite(self.number - 1)}")
        self.ranks.share(self.method.buffers())
        return {
            "model": self.method.state_dict(),
            "optimizer": self.step.optimizer.state_dict(),
            "scaler": self.step.scaler.state_dict(),
            "epoch": self.epoch,
            "done": self.done,
            "steps": self.steps_an_epoch,
            "means": self._means.state(self.ranks),
        }

    def load(self, saved: dict[str, Any]) -> None:
        """Continue from a `state`. Raises `ValueError` for that of another training or of an older version."""
        if "means" not in saved:
            raise ValueError(
                f"{self.config.run} was trained by an older version, which kept less; start it anew with --overwrite"
            )
        problem = saved_state.problem(
            saved, self.method.state_dict(), self.step.optimizer, self.step.scaler.state_dict()
        )
        if problem:
            raise ValueError(
                f"{self.config.run}: its last checkpoint cannot be resumed ({problem}); start it anew with --overwrite"
            )
        self.method.load_state_dict(saved["model"])
        self.step.optimizer.load_state_dict(saved["optimizer"])
        self.step.scaler.load_state_dict(saved["scaler"])
        self.epoch, self.done = saved["epoch"], saved["done"]
        if self.done and saved["steps"] != self.steps_an_epoch:
            raise ValueError(
                f"{self.config.run} was interrupted at step {self.done} of {saved['steps']} of an epoch, which now has "
                f"{self.steps_an_epoch}; go on with the shards that it was trained on"
            )
        if self.ranks.first:
            self._means.load(saved["means"])

    def steps(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Do the rest of the epoch. Yields after each step its number of images and, every half second, when the device is
        waited for, `loss` of the last micro-batch with the values of `Meter.read`; else an empty dict.

        Raises `FloatingPointError` that names the images where the loss is no longer a finite number, and `ValueError` where
        no batch is large enough for the method.
        """
        self.method.train()
        self.meter = Meter(self.device)
        shown, count = 0.0, self.config.accumulate
        batches = self.train_loader.epoch(self.epoch, self.done * count)
        while True:
            self.meter.asked()  # what the caller did since the last step is no waiting
            with record_function("wait for data"):
                step = list(islice(batches, count))
            if not step:
                break
            images, seen = 0, dict[str, float]()
            if all(len(batch.images) >= self.method.least_batch for batch in step):
                self.meter.ready()
                outcomes = self._step(step)
                images = sum(len(batch.images) for batch in step) * self.ranks.world
                self.meter.done(images)
                if monotonic() - shown > _REPORT_EVERY:
                    self._check_loss()
                    seen = {"loss": outcomes[-1].loss.item(), **self.meter.read()}
                    shown = monotonic()
            self.done += 1
            yield images, seen
        self._check_loss()
        self.pace = self.meter.read()
        if not self.ranks.any(self._means.images > 0):
            raise ValueError(
                f"--method {self.config.method} needs batches of at least {self.method.least_batch} images; "
                "take a larger --batch-size or more images"
            )

    def _step(self, batches: list[Batch]) -> list[Outcome]:
        number, steps = self.number, self.config.epochs * self.steps_an_epoch
        device.seed_step(self.config.seed, number, self.ranks.rank, self.device)
        optim.set_rate(self.step.optimizer, self.regime, number, steps)
        outcomes = self.step(batches, self.progress)
        self._keys[number] = tuple(key for batch in batches for key in batch.keys)
        for batch, outcome in zip(batches, outcomes, strict=True):
            self._means.add(_logged(outcome), len(batch.images))
            self._bad = torch.where(outcome.loss.detach().isfinite(), self._bad, self._bad.clamp_max(number))
        return outcomes

    def _check_loss(self) -> None:
        """Raise `FloatingPointError` if the loss was not finite in a step since the last call; waits for the device."""
        bad = int(self._bad.item())
        if bad != _NEVER:
            raise FloatingPointError(f"the training loss of {self._not_finite(bad)}")
        for number in list(self._keys)[:-1]:
            del self._keys[number]

    def _not_finite(self, number: int) -> str:
        """Say that a step is not finite, with the images of it and of the step before."""
        epoch, step = divmod(number, self.steps_an_epoch)
        count, here = len(self._keys[number]), " of this process" if self.ranks.world > 1 else ""
        listed = {n: ", ".join(keys[:64]) + " ..." * (len(keys) > 64) for n, keys in self._keys.items()}
        before = listed.get(number - 1)
        cause = f"; the step before, which may have spoilt the weights, had {before}" if before else ""
        return f"step {step + 1} of epoch {epoch + 1} is not finite; its {count} images{here}: {listed[number]}{cause}"

    def finish_epoch(self) -> dict[str, float]:
        """Go to the next epoch and return this one's means over its images, its last learning rate and its pace.

        All processes must call it together, after all steps of the epoch.
        """
        means = self._means.values("train_", self.ranks)
        self._means, self.epoch, self.done = metrics.Means(), self.epoch + 1, 0
        return {**means, "lr": float(self.step.optimizer.param_groups[0]["lr"]), **self.pace}

    @torch.no_grad()
    def validate(self, each: Callable[[int], None] = lambda _: None) -> dict[str, float]:
        """Score the validation split, and keep `samples`. All processes must call it together: each does a share, and calls
        `each` with the number of images after every batch.

        Returns the loss and, for a method that segments, the mean IoU with the method's own target: the pseudo-labels of a
        label-free method, never the ground truth.
        """
        self.method.eval()
        self.ranks.share(self.method.buffers())
        means = metrics.Means()
        samples: list[NDArray[Any]] = []
        least = self.ranks.world * self.config.accumulate
        with uncompiled(self.step.compiled):  # another size would be compiled anew
            for batch in self.val_loader.epoch(self.epoch):
                # In the last steps some processes may have no batch.
                everywhere = round(len(batch.images) / batch.share) >= least
                with nullcontext() if everywhere else collective.apart():
                    outcome = self.step.outcome(batch, self.progress)
                values = _logged(outcome)
                if outcome.logits is not None and outcome.target is not None:
                    guess = (outcome.logits[:, 0] > 0).byte()
                    samples = samples or [tensor.cpu().numpy() for tensor in (batch.images, outcome.target, guess)]
                    values["iou_target"] = metrics.iou(metrics.count(guess, outcome.target)).mean()
                means.add(values, len(batch.images))
                each(round(len(batch.images) / batch.share) // self.config.accumulate)
        self.samples = samples
        return means.values("val_", self.ranks)


def _logged(outcome: Outcome) -> dict[str, torch.Tensor]:
    """Return the scalars whose means over an epoch are logged."""
    values = {"loss": outcome.loss.detach()}
    if outcome.features is not None:
        values["feature_std"] = metrics.spread(outcome.features)
    return values
