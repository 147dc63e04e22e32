"""One training in memory: method, optimiser and data, and what it takes to go on with it later.

Nothing depends on what happened before but through the weights: order and augmentation of the images, random numbers of
the method and the learning rate are functions of the seed and the step. So a checkpoint is the weights, the optimiser's
state and the number of the step.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from itertools import islice
from time import monotonic
from typing import Any

import torch
from numpy.typing import NDArray
from torch.profiler import record_function

from medsass.config import TrainConfig
from medsass.data.loading import cache, memory
from medsass.data.loading.augment import View
from medsass.data.loading.loader import Batch, Loader, LoaderConfig
from medsass.data.shards import remote
from medsass.data.shards.manifest import Manifest
from medsass.methods import collective, optim
from medsass.methods.method import Method, Outcome
from medsass.runs import device
from medsass.runs.distributed import Ranks
from medsass.runs.scoring import metrics
from medsass.runs.training.meter import Meter
from medsass.runs.training.step import Step, as_it_is

_REPORT_EVERY = 0.5  # seconds between looks at the loss, each of which waits for the device
_NEVER = 1 << 62


class Trainer:
    """Trains a method, a step at a time.

    regime: the method's numbers as this run uses them. epoch: the one that `steps` goes on with, counted from 0; done: how
    many of its steps are done. meter: of the epoch that runs. pace: what `Meter.read` said after the last of them. samples: images, targets and
    predictions of the first batch of the last validation. dataset: the shards' manifest, where the caller has read it already.
    """

    def __init__(
        self, config: TrainConfig, method: Method, where: str, ranks: Ranks, dataset: Manifest | None = None
    ) -> None:
        self.config, self.device, self.ranks = config, where, ranks
        dataset = dataset or remote.load(config.shards)
        self.method = method.to(where)
        self.regime = method.regime.of(config)
        if config.sync_batchnorm:
            self.method = _synchronised(self.method, where)
        self.step = Step(self.method, config, self.regime, where, ranks)
        self.train_loader = self._loader("train", method.views, dataset)
        self.val_loader = self._loader("val", method.val_views, dataset)
        self.epoch = self.done = 0
        self.meter, self.pace = Meter(where), dict[str, float]()
        self.samples: list[NDArray[Any]] = []
        self._means = metrics.Means()
        self._keys: dict[
            int, tuple[str, ...]
        ] = {}  # by step, of its images: the last one before the last look, and since
        self._bad = torch.tensor(_NEVER, device=where)  # the first step whose loss was not finite

    def _loader(self, split: str, views: tuple[View, ...], dataset: Manifest) -> Loader:
        c, (first, *more) = self.config, views
        training = split == "train"
        return Loader(
            LoaderConfig(
                c.shards,
                split,
                first.size,
                c.batch_size,
                self.device,
                first.augment,
                self.method.needs_masks,
                seed=c.seed,
                rank=self.ranks.rank,
                world=self.ranks.world,
                micro_batches=c.accumulate,
                threads=c.threads,
                more=tuple(more),
                fraction=c.label_fraction if training else 1.0,
                cache=c.cache,
            ),
            dataset,
        )

    @property
    def steps_an_epoch(self) -> int:
        """Steps of an epoch."""
        return self.train_loader.steps

    @property
    def number(self) -> int:
        """The number of the next step of the whole training, counted from 0."""
        return self.epoch * self.steps_an_epoch + self.done

    @property
    def progress(self) -> float:
        """Share of all steps that are done, in [0, 1]."""
        return min(1.0, self.number / (self.config.epochs * self.steps_an_epoch))

    def state(self) -> dict[str, Any]:
        """All that `load` needs to go on from here exactly as without a break: tensors, numbers and text. All processes
        must ask for it together. Raises `FloatingPointError` where the loss or a weight is no longer finite.
        """
        self._look()
        self._check_weights()
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
        """Go on from what `state` gave. Raises `ValueError` for what another training or an older version gave."""
        if "means" not in saved:
            raise ValueError(
                f"{self.config.run} was trained by an older version, which kept less; start it anew with --overwrite"
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
        """Does the rest of the epoch: after each step how many images it had, and every half second, when the device is
        waited for, what there is to see: `loss` of the last batch and `Meter.read`.

        Raises `FloatingPointError` that names the images where the loss is no longer a finite number, `ValueError` where no
        batch is large enough for the method.
        """
        self.method.train()
        self.meter = Meter(self.device)
        shown = 0.0
        parts_a_step = self.config.accumulate
        batches = self.train_loader.epoch(self.epoch, self.done * parts_a_step)
        while parts := self._next(batches, parts_a_step):
            seen: dict[str, float] = {}
            count = 0
            if all(len(part.images) >= self.method.least_batch for part in parts):
                self.meter.ready()
                outcomes = self._step(parts)
                count = sum(len(part.images) for part in parts)
                self.meter.done(count * self.ranks.world)
                if monotonic() - shown > _REPORT_EVERY:
                    self._look()
                    seen = {"loss": outcomes[-1].loss.item(), **self.meter.read()}
                    shown = monotonic()
            self.done += 1
            yield count * self.ranks.world, seen
        self._look()
        self.pace = self.meter.read()
        if not self.ranks.any(self._means.images > 0):
            raise ValueError(
                f"--method {self.config.method} needs batches of at least {self.method.least_batch} images; "
                "take a larger --batch-size or more images"
            )

    def _next(self, batches: Iterator[Batch], count: int) -> list[Batch]:
        self.meter.asked()  # what was done since the last step was no waiting
        with record_function("wait for data"):
            return list(islice(batches, count))

    def _step(self, parts: list[Batch]) -> list[Outcome]:
        number, steps = self.number, self.config.epochs * self.steps_an_epoch
        device.seed_step(self.config.seed, number, self.ranks.rank, self.device)
        optim.set_rate(self.step.optimizer, self.regime, number, steps)
        outcomes = self.step(parts, self.progress)
        self._keys[number] = tuple(key for part in parts for key in part.keys)
        for part, outcome in zip(parts, outcomes, strict=True):
            self._means.add(_logged(outcome), len(part.images))
            self._bad = torch.where(outcome.loss.detach().isfinite(), self._bad, self._bad.clamp_max(number))
        return outcomes

    def _look(self) -> None:
        """Raise `FloatingPointError` where the loss of a step since the last look was not finite; waits for the device."""
        bad = int(self._bad.item())
        if bad != _NEVER:
            raise FloatingPointError(f"the training loss of {self._unfit(bad)}")
        for number in list(self._keys)[:-1]:
            del self._keys[number]

    def _check_weights(self) -> None:
        """Raise `FloatingPointError` where a weight is not finite, which the loss shows a step later, or never."""
        weights = [item for item in self.method.parameters() if item.requires_grad]
        if self.number and not torch.stack([item.isfinite().all() for item in weights]).all():
            raise FloatingPointError(f"a weight after {self._unfit(self.number - 1)}")

    def _unfit(self, number: int) -> str:
        epoch, step = divmod(number, self.steps_an_epoch)
        before = self._keys.get(number - 1)
        cause = f"; the step before, which may have spoilt the weights, had {_listed(before)}" if before else ""
        here = " of this process" if self.ranks.world > 1 else ""
        keys = self._keys[number]
        return (
            f"step {step + 1} of epoch {epoch + 1} is not finite; its {len(keys)} images{here}: {_listed(keys)}{cause}"
        )

    def finish_epoch(self) -> dict[str, float]:
        """Goes to the next epoch after all steps of this one: means over its images, its last learning rate and its pace.
        All processes must call it together.
        """
        means = self._means.values("train_", self.ranks)
        self._means, self.epoch, self.done = metrics.Means(), self.epoch + 1, 0
        return {**means, "lr": float(self.step.optimizer.param_groups[0]["lr"]), **self.pace}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Loss on the validation split and, of a method that segments, mean IoU against the method's own target: a
        label-free method's pseudo-labels, never the ground truth. `samples` keeps images, targets and predictions of the
        first batch. All processes must call it together: each does a part.
        """
        self.method.eval()
        self.ranks.share(self.method.buffers())
        means = metrics.Means()
        samples: list[NDArray[Any]] = []
        with as_it_is(self.step.compiled):  # else it would be compiled anew
            for batch in self.val_loader.epoch(self.epoch):
                with nullcontext() if self._everywhere(batch) else collective.apart():
                    outcome = self.step.outcome(batch, self.progress)
                values = _logged(outcome)
                if outcome.logits is not None and outcome.target is not None:
                    guess = (outcome.logits[:, 0] > 0).byte()
                    samples = samples or [tensor.cpu().numpy() for tensor in (batch.images, outcome.target, guess)]
                    values["iou_target"] = metrics.iou(metrics.count(guess, outcome.target)).mean()
                means.add(values, len(batch.images))
        self.samples = samples
        return means.values("val_", self.ranks)

    def _everywhere(self, batch: Batch) -> bool:
        """Whether every process has a batch of the same step: of the last ones of a validation some may have none."""
        return round(len(batch.images) / batch.share) >= self.ranks.world * self.config.accumulate

    def fits(self, images: int) -> bool:
        """Whether the memory holds a step on that many images at once, tried with invented ones, beside what is still to
        come: a recorded step keeps its memory for itself, so that others need it a second time, and so do caches that
        are not filled yet. Leaves all as it was.
        """
        kept = {name: buffer.clone() for name, buffer in self.method.named_buffers()}
        try:
            peak = self._peak(images)
        except torch.OutOfMemoryError:
            return False
        finally:
            self.step.optimizer.zero_grad(set_to_none=True)
            with torch.no_grad():
                for name, buffer in self.method.named_buffers():
                    buffer.copy_(kept[name])
            if self.device == "cuda":
                torch.cuda.empty_cache()
        if self.device != "cuda":
            return True
        return (1 + self.step.recorded) * peak + cache.promised("device") <= memory.device()

    def _peak(self, images: int) -> int:
        """Bytes that a step takes on a GPU, without the optimiser's part."""
        batch = self._invented(images)
        before = torch.cuda.memory_allocated() if self.device == "cuda" else 0
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        with as_it_is(self.step.compiled), collective.apart():
            self.method.train()
            for layer in self.method.modules():
                if isinstance(layer, torch.nn.SyncBatchNorm):  # would ask the other processes
                    layer.eval()
            self.step.outcome(batch, self.progress).loss.backward()  # type: ignore[no-untyped-call]
        return torch.cuda.max_memory_allocated() - before if self.device == "cuda" else 0

    def _invented(self, images: int) -> Batch:
        def noise(view: View) -> torch.Tensor:
            shape = (images, view.size, view.size) + ((3,) if self.train_loader.depth == 8 else ())
            dtype = torch.uint8 if self.train_loader.depth == 8 else torch.uint16
            return torch.randint(0, 256, shape, device=self.device, dtype=torch.int32).to(dtype)

        first, *more = self.method.views
        masks = torch.zeros(images, first.size, first.size, dtype=torch.uint8, device=self.device)
        return Batch(noise(first), masks if self.method.needs_masks else None, more=tuple(map(noise, more)))

    def parts_that_fit(self) -> int:
        """The smallest number of parts, --accumulate or a multiple of it, in which a step fits the memory of every
        process; 0 where not even one image does. All processes must ask for it together.
        """
        least, share = self.config.accumulate, self.config.batch_size // self.ranks.world
        for parts in range(least, share + 1, least):
            if share % parts == 0 and not self.ranks.any(not self.fits(share // parts)):
                return parts
        return 0


def _listed(keys: tuple[str, ...]) -> str:
    return ", ".join(keys[:64]) + (" ..." if len(keys) > 64 else "")


def _synchronised(method: Method, where: str) -> Method:
    if where != "cuda":
        raise ValueError("--sync-batchnorm is for GPUs; drop it on a CPU")
    result: Method = torch.nn.SyncBatchNorm.convert_sync_batchnorm(method)  # type: ignore[no-untyped-call]
    return result


def _logged(outcome: Outcome) -> dict[str, torch.Tensor]:
    """Scalars whose means over an epoch are logged."""
    values = {"loss": outcome.loss.detach()}
    if outcome.features is not None:
        values["feature_std"] = metrics.spread(outcome.features)
    return values
