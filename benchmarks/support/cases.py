"""The cases that `benchmarks.labels` times: methods, sizes, batches and contents, the most valuable first."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import product

from benchmarks.support import roofline

METHODS = ("otsu", "ght", "adaptive-mean", "adaptive-gaussian")
LARGE = (1408, 1876)


@dataclass(frozen=True)
class Case:
    """A batch and a method to time. With `fused` the launch also writes the network's bfloat16 input."""

    method: str
    height: int
    width: int
    channels: int
    batch: int
    content: str
    fused: bool = False

    @property
    def key(self) -> str:
        """The case in words, as the key of its cell."""
        fused = " fused" if self.fused else ""
        size = f"{self.height}x{self.width}x{self.channels}"
        return f"{self.method} {size}{fused} {self.content}, batch {self.batch}"

    @property
    def bytes(self) -> int:
        """The bytes that a launch must move."""
        return self.batch * roofline.bytes_of_image(self.height, self.width, self.channels, self.fused)


def gpu_cases(contents: Iterable[str]) -> list[Case]:
    """Return the cases for a GPU: first those that targets are about, then every batch, method and size."""
    contents = tuple(contents)
    rgb, gray = partial(Case, "otsu", 224, 224, 3), partial(Case, "otsu", 224, 224, 1)
    cases = [rgb(1024, c) for c in contents] + [rgb(1024, c, True) for c in contents]
    cases += [gray(1024, c) for c in contents] + [rgb(16, c) for c in contents]
    cases += [Case("ght", 224, 224, 3, 1024, c) for c in contents]
    cases += [rgb(8192, c) for c in contents] + [gray(8192, c) for c in contents]
    cases += [rgb(8192, c, True) for c in contents]
    cases += [Case("otsu", *LARGE, 3, 64, c) for c in contents]
    cases += [rgb(n, c) for n, c in product((1, 4, 64, 256, 2048), contents)]
    cases += [gray(n, c) for n, c in product((1, 16, 64, 256), contents)]
    cases += [rgb(n, c, True) for n, c in product((16, 64, 256), contents)]
    cases += [Case(m, 224, 224, 3, n, c) for m, n, c in product(METHODS[2:], (16, 1024), contents)]
    cases += [Case("ght", 224, 224, 3, n, c) for n, c in product((16, 8192), contents)]
    cases += [Case("ght", 224, 224, 1, 1024, c) for c in contents]
    for side, n in ((299, 64), (299, 512), (512, 16), (512, 256)):
        cases += [Case("otsu", side, side, 3, n, c) for c in contents]
    cases += [Case("otsu", *LARGE, 3, n, c) for n, c in product((1, 16), contents)]
    cases += [Case(m, *LARGE, 3, 16, contents[-1]) for m in METHODS[1:]]
    return cases


def cpu_cases(contents: Iterable[str]) -> list[Case]:
    """Return the cases for a CPU: the four methods."""
    return [Case(m, 224, 224, 3, n, c) for m, n, c in product(METHODS, (16, 64), contents)]
