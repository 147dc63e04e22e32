"""How fast a training goes, and what it waits for."""

from time import monotonic
from typing import Any

import torch


class Meter:
    """Counts images, and the share of the time in which the step had no data.

    On a CPU that is the time in the loader's hands. On a GPU the host runs ahead, so it is what lies on the GPU's own
    clock between the end of a step and the moment at which the next one has its batch.
    """

    def __init__(self, device: str) -> None:
        self._on_gpu = device == "cuda"
        self._start = self._left = monotonic()
        self._waited, self._images = 0.0, 0
        self._marks: list[tuple[Any, Any]] = []  # of each step on a GPU: when its data was there, and when it had ended
        if self._on_gpu:
            torch.cuda.reset_peak_memory_stats()

    def asked(self) -> None:
        """The step's data is asked for now; without this call it was when the step before was on its way."""
        self._left = monotonic()

    def ready(self) -> None:
        """The step's data is there."""
        if self._on_gpu:
            self._marks.append((_mark(), None))
        else:
            self._waited += monotonic() - self._left

    def done(self, images: int) -> None:
        """The step is on its way, with that many images."""
        self._images += images
        self._left = monotonic()
        if self._on_gpu:
            self._marks[-1] = (self._marks[-1][0], _mark())

    def read(self) -> dict[str, float]:
        """Images a second, share of the time spent waiting for data, and the GPU's peak memory in bytes, since the
        beginning. The GPU must have done what it was given.
        """
        for (_, end), (start, _) in zip(self._marks, self._marks[1:], strict=False):
            self._waited += end.elapsed_time(start) / 1000
        del self._marks[:-1]
        passed = max(monotonic() - self._start, 1e-9)
        values = {"images_per_second": self._images / passed, "waited": min(1.0, self._waited / passed)}
        if self._on_gpu:
            values["gpu_memory"] = float(torch.cuda.max_memory_reserved())
        return values


def _mark() -> Any:
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def text(values: dict[str, float]) -> str:
    """What a progress line says of it."""
    memory = f"  {values['gpu_memory'] / 1e9:.1f} GB of GPU memory" if "gpu_memory" in values else ""
    return f"waited {values['waited']:.0%}{memory}"
