"""The image that is predicted: its pixels for display and for the network."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsass.data.formats import depth
from medsass.data.formats.geometry import Box
from medsass.data.formats.image import ImageFile, Selection
from medsass.data.formats.opening import open_image


@dataclass(frozen=True)
class InputImage:
    """The first frame of an open image file. Its methods raise `ValueError` where it cannot be read.

    Attributes:
        limits: the values that become 0 and the largest value, the same for all boxes of the frame; None where its pixels
            are 8-bit already.
        bits: of a channel that the network was trained on.
    """

    file: ImageFile
    limits: list[tuple[float, float]] | None
    bits: int = 8

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.file.height, self.file.width

    def rgb(self, box: Box | None = None) -> NDArray[np.uint8]:
        """Read a box of the image, or all of it: (h, w, 3) uint8."""
        with _readable():
            return self._converted(self.file.read(0, box))

    def seen(self, box: Box | None = None) -> NDArray[Any]:
        """Read the network's input: `rgb`, or (h, w) uint16 of a gray image where it was trained on 16 bits."""
        if self.bits == 8 or self.file.colour:
            return self.rgb(box)
        with _readable():
            array = self.file.read(0, box)
            if not depth.needs_scaling(array.dtype, 16):
                return array
            return depth.scaled(array, self.limits or [self.file.span], 16)

    def small(self, most: int) -> NDArray[np.uint8]:
        """Read the image reduced so that its longer side is at most `most` pixels: (h, w, 3) uint8."""
        with _readable():
            return self._converted(self.file.small(0, most))

    def _converted(self, array: NDArray[Any]) -> NDArray[np.uint8]:
        values: NDArray[Any] = array if self.limits is None else depth.scaled(array, self.limits, 8)
        return values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=2)


@contextmanager
def open_input(path: Path, level: int, rule: str, bits: int) -> Iterator[InputImage]:
    """Open the image in `path` at a pyramid level, its limits by `rule`: "minmax", "percentile" or "type".

    An image that is not 8-bit is read once for its limits. A stack of frames is refused; an animation gives its first frame.
    """
    with _readable():
        file = open_image(path, Selection(level=level))
    with file:
        if file.frames > 1:
            raise ValueError(f"{file.frames} frames where one image is expected; save each as an image of its own")
        with _readable():
            limits = depth.limits(file, 0, rule) if depth.needs_scaling(file.dtype, 8) else None
        yield InputImage(file, limits, bits)


@contextmanager
def _readable() -> Iterator[None]:
    """Turn errors of the file system, and of a missing package, into `ValueError`: the image cannot be read. Where masks are
    written, an `OSError` stays one: a full disk is not the image's fault.
    """
    try:
        yield
    except (OSError, ImportError) as error:
        raise ValueError(str(error)) from error
