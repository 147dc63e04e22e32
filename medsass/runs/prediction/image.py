"""The image that is predicted: its pixels for display and for the network."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsass.data.formats import depth
from medsass.data.formats.geometry import Box
from medsass.data.formats.image import ImageFile, Selection
from medsass.runs.image_files import Input


@dataclass(frozen=True)
class InputImage:
    """A frame of an open image file. Its methods raise `ValueError` where it cannot be read.

    Attributes:
        file: the open file.
        rule, window: what becomes 0 and the largest value, as `depth.limits` takes them.
        bits: of a channel that the network was trained on.
        frame: number of the frame.
    """

    file: ImageFile
    rule: str = "minmax"
    window: depth.Limits | None = None
    bits: int = 8
    frame: int = 0

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.file.height, self.file.width

    def rgb(self, box: Box | None = None) -> NDArray[np.uint8]:
        """Read a box of the image, or all of it: (h, w, 3) uint8."""
        with _readable():
            return _rgb(self._scaled(self.file.read(self.frame, box), 8))

    def seen(self, box: Box | None = None) -> NDArray[Any]:
        """Read the network's input: `rgb`, or (h, w) uint16 of a gray image where it was trained on 16 bits."""
        if self.bits == 8 or self.file.colour:
            return self.rgb(box)
        with _readable():
            return self._scaled(self.file.read(self.frame, box), 16)

    def small(self, most: int) -> NDArray[np.uint8]:
        """Read the image reduced so that its longer side is at most `most` pixels: (h, w, 3) uint8."""
        with _readable():
            return _rgb(self._scaled(self.file.small(self.frame, most), 8))

    def _scaled(self, array: NDArray[Any], bits: int) -> NDArray[Any]:
        if not depth.needs_scaling(self.file, bits, self.window):
            return array
        return depth.scaled(array, depth.limits(self.file, self.frame, self.rule, self.window), bits, self.file.padding)


def _rgb(array: NDArray[Any]) -> NDArray[np.uint8]:
    return array if array.ndim == 3 else np.repeat(array[..., None], 3, axis=2)


@contextmanager
def open_input(
    source: Input, view: Selection, rule: str, bits: int, window: depth.Limits | None = None
) -> Iterator[list[InputImage]]:
    """Open the images that `view` selects in `source`; `rule`, `bits` and `window` as in `InputImage`.

    An image that is not 8-bit is read once for its limits, a volume once for all of its slices.
    """
    with _readable():
        file = source.open(view)
    with file:
        yield [InputImage(file, rule, window, bits, frame) for frame in range(file.frames)]


@contextmanager
def _readable() -> Iterator[None]:
    """Turn errors of the file system, and of a missing package, into `ValueError`: the image cannot be read. Where masks are
    written, an `OSError` stays one: a full disk is not the image's fault.
    """
    try:
        yield
    except (OSError, ImportError) as error:
        raise ValueError(str(error)) from error
