"""One training in memory: method, optimiser, schedule and data, and what it takes to go on with it later."""

import math
from collections.abc import Callable
from time import monotonic
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medsass.config import TrainConfig
from medsass.data.augment import View
from medsass.data.loader import Batch, Loader, LoaderConfig
from medsass.methods import optim
from medsass.methods.method import Method, Outcome
from medsass.runs import metrics

_REPORT_EVERY = 0.5  # seconds between looks at the loss, each of which waits for the device


class Trainer:
    """Trains a method, an epoch at a time. The order of random draws is fixed by the seed.

    `regime` are the method's numbers as this run uses them.
    """

    def __init__(self, config: TrainConfig, method: Method, device: str, saved: dict[str, Any] | None = None) -> None:
        self.config, self.device, self.method = config, device, method.to(device)
        self.regime = method.regime.of(config)
        self.train_loader = self._loader("train", method.views, saved["loader"] if saved else None)
        self.optimizer = optim.build(method.parameters(), self.regime, device)
        self.steps = config.epochs * len(self.train_loader)
        self.schedule = optim.schedule(self.optimizer, self.regime, self.steps)
        if saved:
            method.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.schedule.load_state_dict(saved["schedule"])
            torch.set_rng_state(saved["rng"])
        self.samples: list[NDArray[Any]] = []
        self.val_loader = self._loader("val", method.val_views, saved["val_loader"] if saved else None)

    def _loader(self, split: str, views: tuple[View, ...], state: torch.Tensor | None) -> Loader:
        c, (first, *more) = self.config, views
        config = LoaderConfig(
            c.shards,
            split,
            first.size,
            c.batch_size,
            self.device,
            first.augment,
            self.method.needs_masks,
            seed=c.seed,
            threads=c.threads,
            more=tuple(more),
            fraction=c.label_fraction if split == "train" else 1.0,
        )
        return Loader(config, state.numpy().tobytes() if state is not None else None)

    @property
    def progress(self) -> float:
        """Share of all steps that are done, in [0, 1]."""
        return min(1.0, self.schedule.last_epoch / self.steps)

    def state(self) -> dict[str, Any]:
        """All that `saved` needs to go on after this epoch exactly as without a break; tensors, numbers and text."""
        return {
            "model": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "loader": _bytes(self.train_loader.state()),
            "val_loader": _bytes(self.val_loader.state()),
            "rng": torch.get_rng_state(),
        }

    def train_epoch(self, report: Callable[[int, str], None]) -> dict[str, float]:
        """One pass over the training split. `report(images, text)` is called after each step.

        Raises `FloatingPointError` where the loss is no longer a finite number, `ValueError` where no batch is large
        enough for the method.
        """
        self.method.train()
        means, images, shown, start = metrics.Means(), 0, 0.0, monotonic()
        text = ""
        for batch in self.train_loader:
            if len(batch.images) < self.method.least_batch:
                continue
            outcome = self._step(batch)
            means.add(_logged(outcome), len(batch.images))
            images += len(batch.images)
            if monotonic() - shown > _REPORT_EVERY:
                text, shown = f"loss {outcome.loss.item():.4f}", monotonic()
            report(len(batch.images), text)
        if not images:
            raise ValueError(
                f"--method {self.config.method} needs batches of at least {self.method.least_batch} images; "
                "take a larger --batch-size or more images"
            )
        mean = means.values("train_")
        if not math.isfinite(mean["train_loss"]):
            raise FloatingPointError(
                f"the training loss is {mean['train_loss']}; try a lower --lr (now {self.regime.lr:g})"
            )
        speed = images / (monotonic() - start)
        return {**mean, "lr": float(self.schedule.get_last_lr()[0]), "images_per_second": speed}

    def _step(self, batch: Batch) -> Outcome:
        optim.decay(self.optimizer, self.regime, self.progress)
        self.optimizer.zero_grad(set_to_none=True)
        outcome = self._outcome(batch)
        outcome.loss.backward()  # type: ignore[no-untyped-call]
        optim.clip(self.method.parameters(), self.regime)
        self.optimizer.step()
        self.schedule.step()
        self.method.after_step(self.progress)
        return outcome

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Loss on the validation split and, of a method that segments, mean IoU against the method's own target: a
        label-free method's pseudo-labels, never the ground truth. `samples` keeps images, targets and predictions of the
        first batch.
        """
        self.method.eval()
        means = metrics.Means()
        counts: list[metrics.Counts] = []
        for batch in self.val_loader:
            outcome = self._outcome(batch)
            means.add(_logged(outcome), len(batch.images))
            if outcome.logits is not None and outcome.target is not None:
                guess = (outcome.logits[:, 0] > 0).byte()
                if not counts:
                    self.samples = [tensor.cpu().numpy() for tensor in (batch.images, outcome.target, guess)]
                counts.append(metrics.count(guess, outcome.target))
        agreement = {"val_iou_target": float(metrics.iou(metrics.concatenate(counts)).mean())} if counts else {}
        return {**means.values("val_"), **agreement}

    def _outcome(self, batch: Batch) -> Outcome:
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            outcome: Outcome = self.method(batch, self.progress)
        return outcome


def _logged(outcome: Outcome) -> dict[str, torch.Tensor]:
    """Scalars whose means over an epoch are logged."""
    values = {"loss": outcome.loss.detach()}
    if outcome.features is not None:
        values["feature_std"] = metrics.spread(outcome.features)
    return values


def _bytes(state: bytes) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(state, np.uint8).copy())
