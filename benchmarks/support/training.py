"""The contenders of `benchmarks.train`, ways to train the same network, and how their pace is measured."""

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from time import monotonic

import cv2
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.support import loaders, roofline
from medsass.config import TrainConfig
from medsass.methods import method
from medsass.methods.losses import LOSSES
from medsass.models import network
from medsass.runs.distributed import ALONE
from medsass.runs.training.meter import Meter
from medsass.runs.training.trainer import Trainer

_WARM = 12  # steps before the clock starts, and an epoch's end: they compile, record, and fill the queues
_MATRIX = {"cuda": (8192, torch.bfloat16), "cpu": (2048, torch.float32)}

Steps = Iterator[int]  # the number of images of each finished step


@dataclass(frozen=True)
class Contender:
    """A way to train: its name, a description, and a function that starts it."""

    name: str
    what: str
    start: Callable[[], "Running"]


@dataclass(frozen=True)
class Running:
    """An endless training.

    steps: the steps. waited: returns the share of time spent waiting for data since the last call. epoch: steps of an
    epoch, whose last batch may be smaller and be computed in another way.
    """

    steps: Steps
    waited: Callable[[], float]
    epoch: int = 0


@dataclass(frozen=True)
class Pace:
    """A measured pace: images a second, share of time waiting for data, peak bytes of GPU memory."""

    images_per_second: float
    waited: float
    memory: int


def run(contender: Contender, seconds: float, where: str = "cuda") -> Pace:
    """Start a contender on the device `where`, warm it up, and measure whole steps for that many seconds."""
    on_gpu = where == "cuda"
    running = contender.start()
    for _ in range(max(_WARM, running.epoch + 2) if on_gpu else 2):
        next(running.steps)
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    running.waited()
    images, start = 0, monotonic()
    while monotonic() - start < seconds:
        images += next(running.steps)
    if on_gpu:
        torch.cuda.synchronize()
    passed = monotonic() - start
    memory = torch.cuda.max_memory_reserved() if on_gpu else 0
    pace = Pace(images / passed, running.waited(), memory)
    del running
    torch.compiler.reset()
    gc.collect()  # a compiled network is a reference cycle of torch's own
    if on_gpu:
        torch.cuda.empty_cache()
    return pace


def contenders(config: TrainConfig, where: str) -> list[Contender]:
    """Return the line and what it is compared with."""
    paper = "DataLoader and PIL on all cores, cv2.threshold per batch, float32, NCHW"
    return [
        Contender("line", "medsass train: DALI, labelling kernel, fused step", partial(line, config, where)),
        Contender("ceiling", "the same step on one batch that stays on the device", partial(_ceiling, config, where)),
        Contender("paper's way", paper, partial(_paper, config, where)),
    ]


def line(config: TrainConfig, where: str, change: Callable[[Trainer], None] | None = None) -> Running:
    """Start `medsass train`'s own loop, epoch after epoch, on a trainer that `change` may modify first."""
    trainer = Trainer(config, method.make(config, "dark"), where, ALONE)
    if change:
        change(trainer)

    def steps() -> Steps:
        while True:
            for images, _ in trainer.steps():
                yield images
            trainer.finish_epoch()
            trainer.epoch = 0  # the schedule never ends

    def waited() -> float:
        share = trainer.meter.read()["waited"]
        trainer.meter = Meter(trainer.device)
        return share

    return Running(steps(), waited, trainer.steps_an_epoch)


def _ceiling(config: TrainConfig, where: str) -> Running:
    trainer = Trainer(config, method.make(config, "dark"), where, ALONE)
    trainer.method.train()
    batch = next(iter(trainer.train_loader.epoch(0)))
    trainer.train_loader.close()

    def steps() -> Steps:
        while True:
            trainer._step([batch])
            yield len(batch.images)

    return Running(steps(), lambda: 0.0)


def _paper(config: TrainConfig, where: str) -> Running:
    """Train as a script of the paper would: no DALI, kernel, autocast or fusion, and the loss read at each step."""
    chosen = method.make(config, "dark").to(where)
    model = chosen.network.to(memory_format=torch.contiguous_format).train()
    optimizer = torch.optim.AdamW(chosen.parameters(), lr=1e-3)
    loader = loaders.pillow(config.shards, config.size, config.batch_size, where)
    meter = Meter(where)

    def steps() -> Steps:
        while True:
            for images in loader:
                meter.ready()
                target = otsu(images).to(where)
                logits = model(
                    network.normalise(images.to(where)).contiguous()
                )  # channels first, as torchvision has it
                optimizer.zero_grad()
                loss = LOSSES[config.loss](logits, target)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                loss.item()
                meter.done(len(images))
                yield len(images)

    def waited() -> float:
        nonlocal meter
        share = meter.read()["waited"]
        meter = Meter(where)
        return share

    return Running(steps(), waited)


def otsu(images: torch.Tensor) -> torch.Tensor:
    """Threshold (N, H, W, 3) uint8 images on the CPU by OpenCV, one by one, to (N, H, W) uint8 masks of the dark side."""
    masks = []
    for image in images.numpy():
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        masks.append(cv2.threshold(gray, 0, 1, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)[1])
    return torch.from_numpy(np.stack(masks))


def matrix_peak(where: str) -> float:
    """Return FLOP/s of a large square matrix product: bfloat16 on a GPU, float32 on a CPU."""
    side, dtype = _MATRIX[where]
    a, b = (torch.randn(side, side, device=where).to(dtype) for _ in range(2))
    time = roofline.device_time if where == "cuda" else roofline.host_time
    return 2 * side**3 / time(partial(torch.mm, a, b)).seconds


def flops(model: str, size: int) -> float:
    """Return the FLOPs of a training image, forward and backward: convolutions and matrix products, as torch counts them."""
    built = network.build(model)
    counter = FlopCounterMode(display=False)
    with counter:
        built(torch.zeros(2, 3, size, size)).sum().backward()
    return counter.get_total_flops() / 2
