"""The ways of training that `benchmarks.train` compares, and what measures them."""

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

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

Steps = Iterator[int]  # each step done, as the number of its images


@dataclass(frozen=True)
class Way:
    """A way to train: a name, what it is in words, and a function that starts it."""

    name: str
    what: str
    start: Callable[[], "Running"]


@dataclass(frozen=True)
class Running:
    """A training that goes on for ever: its steps, and the share of the time spent waiting for data since last asked."""

    steps: Steps
    waited: Callable[[], float]
    epoch: int = 0  # steps of an epoch, whose last batch may be smaller and be computed in another way


@dataclass(frozen=True)
class Pace:
    """What a way reached: images a second, share of time waiting for data, peak bytes of GPU memory."""

    images_per_second: float
    waited: float
    memory: int


def run(way: Way, seconds: float, where: str = "cuda") -> Pace:
    """Start it, warm it up and measure whole steps for that long, on the device `where`."""
    on_gpu = where == "cuda"
    running = way.start()
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


def of(config: TrainConfig, where: str) -> list[Way]:
    """The line, and what it is compared with."""
    return [
        Way("line", "medsass train: DALI, labelling kernel, fused step", partial(line, config, where)),
        Way("ceiling", "the same step on one batch that stays on the device", partial(_ceiling, config, where)),
        Way("paper's way", "DataLoader and PIL on all cores, cv2.threshold per batch, float32, NCHW", partial(_paper, config, where)),
    ]  # fmt: skip


def _trainer(config: TrainConfig, where: str) -> Trainer:
    return Trainer(config, method.make(config, "dark"), where, ALONE)


def line(config: TrainConfig, where: str, change: Callable[[Trainer], None] | None = None) -> Running:
    """`medsass train`'s own loop, epoch after epoch; `change` may do something to its trainer first."""
    trainer = _trainer(config, where)
    if change:
        change(trainer)
    return Running(_epochs(trainer), partial(_waited, trainer), trainer.steps_an_epoch)


def _epochs(trainer: Trainer) -> Steps:
    while True:
        for images, _ in trainer.steps():
            yield images
        trainer.finish_epoch()
        trainer.epoch = 0  # of a schedule that has no end


def _waited(trainer: Trainer) -> float:
    """Since the last call."""
    share = trainer.meter.read()["waited"]
    trainer.meter = type(trainer.meter)(trainer.device)
    return share


def _ceiling(config: TrainConfig, where: str) -> Running:
    trainer = _trainer(config, where)
    trainer.method.train()
    batch = next(iter(trainer.train_loader.epoch(0)))
    trainer.train_loader.close()

    def steps() -> Steps:
        while True:
            trainer._step([batch])
            yield len(batch.images)

    return Running(steps(), lambda: 0.0)


def otsu(images: torch.Tensor) -> torch.Tensor:
    """(N, H, W, 3) uint8 on the CPU -> (N, H, W) uint8 masks of the dark side, one by one by OpenCV."""
    masks = []
    for image in images.numpy():
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        masks.append(cv2.threshold(gray, 0, 1, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)[1])
    return torch.from_numpy(np.stack(masks))


def matrix_peak(where: str) -> float:
    """FLOP/s of a large square matrix product: bfloat16 on a GPU, float32 on a CPU."""
    side, dtype = _MATRIX[where]
    a, b = (torch.randn(side, side, device=where).to(dtype) for _ in range(2))
    time = roofline.device_time if where == "cuda" else roofline.host_time
    return 2 * side**3 / time(partial(torch.mm, a, b)).seconds


def flops(model: str, size: int) -> float:
    """Of a training image: multiplications and additions of the network's convolutions and matrix products, forward and
    backward, as torch counts them.
    """
    built = network.build(model)
    counter = FlopCounterMode(display=False)
    with counter:
        built(torch.zeros(2, 3, size, size)).sum().backward()
    return counter.get_total_flops() / 2


def _paper(config: TrainConfig, where: str) -> Running:
    """As a script of the paper's would be: no DALI, no kernel, no autocast, nothing fused, the loss read at each step."""
    chosen = method.make(config, "dark").to(where)
    network_ = chosen.network.to(memory_format=torch.contiguous_format).train()
    optimizer = torch.optim.AdamW(chosen.parameters(), lr=1e-3)
    loader = loaders.pillow(config.shards, config.size, config.batch_size, where)
    clock = Meter(where)

    def steps() -> Steps:
        while True:
            for images in loader:
                clock.ready()
                target = otsu(images).to(where)
                logits = network_(_scaled(images.to(where)))
                optimizer.zero_grad()
                loss = LOSSES[config.loss](logits, target)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                loss.item()
                clock.done(len(images))
                yield len(images)

    def waited() -> float:
        share = clock.read()["waited"]
        clock.__init__(where)  # type: ignore[misc]
        return share

    return Running(steps(), waited)


def _scaled(images: torch.Tensor) -> torch.Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) float32, channels first in memory, as torchvision's `ToTensor` and `Normalize` give."""
    return network.normalise(images).contiguous()


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Images a second of each way as bars, a panel a case."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    cases: dict[tuple[str, int, int], list[dict[str, Any]]] = {}
    for row in rows:
        if "images_per_second" in row:
            cases.setdefault((row["model"], row["size"], row["batch"]), []).append(row)
    most = max(map(len, cases.values()))
    figure = Figure(figsize=(8, len(cases) * (0.6 + 0.3 * most)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(cases), squeeze=False)[:, 0]
    for axes, ((model, size, batch), found) in zip(panels, cases.items(), strict=True):
        names = [row["way"] for row in found]
        colours = ["tab:green" if name == "line" else "tab:gray" for name in names]
        speeds = [row["images_per_second"] for row in found]
        spread = [
            [row["images_per_second"] - row["least"] for row in found],
            [row["most"] - row["images_per_second"] for row in found],
        ]
        axes.barh(names, speeds, xerr=spread, color=colours)
        axes.invert_yaxis()
        axes.set_title(f"{model}, {size} x {size}, batch {batch}", fontsize=9)
        axes.set_xlabel("images/s")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
