"""One training in memory: network, optimiser, schedule and data, and what it takes to go on with it later."""

import math
from collections.abc import Callable
from time import monotonic
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medsass.config import TrainConfig
from medsass.data.loader import Augment, Loader, LoaderConfig
from medsass.methods.method import Method
from medsass.models import unet
from medsass.runs import metrics

_REPORT_EVERY = 0.5  # seconds between looks at the loss, each of which waits for the device


class Trainer:
    """Trains `config.model` with `method`, an epoch at a time. The order of random draws is fixed by the seed."""

    def __init__(self, config: TrainConfig, method: Method, device: str, saved: dict[str, Any] | None = None) -> None:
        self.config, self.method, self.device = config, method, device
        augment = Augment(config.crop, config.flip, config.jitter, config.hue)
        self.train_loader = self._loader("train", augment, saved["loader"] if saved else None)
        self.model = unet.build(config.model).to(device)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=device == "cuda"
        )
        steps = config.epochs * len(self.train_loader)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, warmup_cosine(steps, config.warmup))
        if saved:
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.schedule.load_state_dict(saved["schedule"])
            torch.set_rng_state(saved["rng"])
        self.samples: list[NDArray[Any]] = []
        # Made last and without random draws: it is the same whether the run was resumed or not.
        self.val_loader = self._loader("val", None, None)

    def _loader(self, split: str, augment: Augment | None, state: torch.Tensor | None) -> Loader:
        c = self.config
        config = LoaderConfig(
            c.shards,
            split,
            c.size,
            c.batch_size,
            self.device,
            augment,
            self.method.needs_masks,
            seed=c.seed,
            threads=c.threads,
        )
        return Loader(config, state.numpy().tobytes() if state is not None else None)

    def state(self) -> dict[str, Any]:
        """All that `saved` needs to go on after this epoch exactly as without a break; tensors, numbers and text."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "loader": torch.from_numpy(np.frombuffer(self.train_loader.state(), np.uint8).copy()),
            "rng": torch.get_rng_state(),
        }

    def train_epoch(self, report: Callable[[int, str], None]) -> dict[str, float]:
        """One pass over the training split. `report(images, text)` is called after each step.

        Raises `FloatingPointError` where the loss is no longer a finite number.
        """
        self.model.train()
        total, images, shown, start = torch.zeros((), device=self.device), 0, 0.0, monotonic()
        text = ""
        for batch in self.train_loader:
            self.optimizer.zero_grad(set_to_none=True)
            loss = self._loss(batch)[0]
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.schedule.step()
            total += loss.detach() * len(batch.images)
            images += len(batch.images)
            if monotonic() - shown > _REPORT_EVERY:
                text, shown = f"loss {loss.item():.4f}", monotonic()
            report(len(batch.images), text)
        mean = float(total) / images
        if not math.isfinite(mean):
            raise FloatingPointError(f"the training loss is {mean}; try a lower --lr (now {self.config.lr:g})")
        return {
            "train_loss": mean,
            "lr": float(self.schedule.get_last_lr()[0]),
            "images_per_second": images / (monotonic() - start),
        }

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Loss and mean IoU on the validation split against the method's own target: a label-free method's
        pseudo-labels, never the ground truth. `samples` keeps images, targets and predictions of the first batch.
        """
        self.model.eval()
        total = 0.0
        counts: list[metrics.Counts] = []
        for batch in self.val_loader:
            loss, logits, target = self._loss(batch)
            total += loss.item() * len(batch.images)
            guess = (logits[:, 0] > 0).byte()
            if not counts:
                self.samples = [tensor.cpu().numpy() for tensor in (batch.images, target, guess)]
            counts.append(metrics.count(guess, target))
        every = metrics.concatenate(counts)
        return {"val_loss": total / len(every.tp), "val_iou_target": float(metrics.iou(every).mean())}

    def _loss(self, batch: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        target = self.method.target(batch)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            logits = self.model(unet.normalise(batch.images))
        return self.method.loss(logits, target), logits, target


def warmup_cosine(steps: int, warmup: float) -> Callable[[int], float]:
    """Factor of the learning rate at each step: linear from near 0 to 1 over the first share `warmup` of `steps`, then
    half a cosine down to 0 (Loshchilov and Hutter 2017, without restarts).
    """
    rise = round(steps * warmup)

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / (rise + 1)
        return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))

    return factor
