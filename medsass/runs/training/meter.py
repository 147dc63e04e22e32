"""Speed of a training, and the share of time it waits for data."""

from time import monotonic
from typing import Any

import torch


class Meter:
    """Counts images, and the share of the time in which the step had no data.

    On a CPU that is the time spent in the loader. On a GPU the host runs ahead, so it is the time on the GPU's own clock
    between the end of a step and the arrival of the next step's batch.
    """

    def __init__(self, device: str) -> None:
        self._on_gpu = device == "cuda"
        self._start = self._left = monotonic()
        self._waited, self._images = 0.0, 0
        self._marks: list[tuple[Any, Any]] = []  # of each step on a GPU: its data arrived, it ended
        if self._on_gpu:
            torch.cuda.reset_peak_memory_stats()

    def asked(self) -> None:
        """Mark that the step asks for its data now; by default it asks when the step before was launched."""
        self._left = monotonic()

    def ready(self) -> None:
        """Mark that the step has its data."""
        if self._on_gpu:
            arrived = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            self._marks.append((arrived, torch.cuda.Event(enable_timing=True)))  # type: ignore[no-untyped-call]
            arrived.record()
        else:
            self._waited += monotonic() - self._left

    def done(self, images: int) -> None:
        """Mark that a step of so many images was launched."""
        self._images += images
        self._left = monotonic()
        if self._on_gpu:
            self._marks[-1][1].record()

    def read(self) -> dict[str, float]:
        """Return what was measured so far: images_per_second; waited, the share of the time without data, in [0, 1]; and, on a
        GPU, where it must follow a synchronisation, gpu_memory, the peak in bytes.
        """
        for (_, end), (start, _) in zip(self._marks, self._marks[1:], strict=False):
            self._waited += end.elapsed_time(start) / 1000
        del self._marks[:-1]
        passed = max(monotonic() - self._start, 1e-9)
        values = {"images_per_second": self._images / passed, "waited": min(1.0, self._waited / passed)}
        if self._on_gpu:
            values["gpu_memory"] = float(torch.cuda.max_memory_reserved())
        return values


def text(values: dict[str, float]) -> str:
    """Put the measured values into a progress line."""
    memory = f"  {values['gpu_memory'] / 1e9:.1f} GB of GPU memory" if "gpu_memory" in values else ""
    return f"data wait {values['waited']:.0%}{memory}"
