"""The image that is predicted: what people see of it, and what the network does."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsass.data.formats import depth as pixels
from medsass.data.formats.geometry import Box
from medsass.data.formats.image import ImageFile, Selection
from medsass.data.formats.opening import open_image
from medsass.data.formats.photo import Photo


@dataclass(frozen=True)
class Subject:
    """The first frame of an open picture. `limits`: the values that become 0 and the largest value, the same for all
    boxes of the frame, or None where its pixels are 8-bit already. `depth`: bits of a channel that the network was
    trained on. Its methods raise `ValueError` where the image cannot be read.
    """

    picture: ImageFile
    limits: list[tuple[float, float]] | None
    depth: int = 8

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of the image in pixels."""
        return self.picture.height, self.picture.width

    def rgb(self, box: Box | None = None) -> NDArray[np.uint8]:
        """(h, w, 3) uint8: a box of the image, or all of it."""
        with _readable():
            return self._converted(self.picture.read(0, box))

    def seen(self, box: Box | None = None) -> NDArray[Any]:
        """What the network sees: `rgb`, or (h, w) uint16 of a gray image where it was trained on 16 bits."""
        if self.depth == 8 or self.picture.colour:
            return self.rgb(box)
        with _readable():
            array = self.picture.read(0, box)
            deep = pixels.needs_scaling(array.dtype, 16)
            return pixels.scaled(array, self.limits or [self.picture.span], 16) if deep else array

    def small(self, most: int) -> NDArray[np.uint8]:
        """(h, w, 3) uint8: the image reduced so that its longer side is at most `most` pixels."""
        with _readable():
            return self._converted(self.picture.small(0, most))

    def _converted(self, array: NDArray[Any]) -> NDArray[np.uint8]:
        values: NDArray[Any] = array if self.limits is None else pixels.scaled(array, self.limits, 8)
        return values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=2)


@contextmanager
def opened(path: Path, level: int, rule: str, depth: int) -> Iterator[Subject]:
    """The image in `path` at a pyramid level, its limits by `rule`: "minmax", "percentile" or "type".

    It is read once for the limits where it is not 8-bit. A stack of frames is refused; of an animation the first is taken.
    """
    with _readable():
        picture = open_image(path, Selection(level=level))
    with picture:
        if picture.total > 1 and not isinstance(picture, Photo):
            raise ValueError(f"{picture.total} frames where one image is expected; save each as an image of its own")
        with _readable():
            limits = pixels.limits(picture, 0, rule) if pixels.needs_scaling(picture.dtype, 8) else None
        yield Subject(picture, limits, depth)


@contextmanager
def _readable() -> Iterator[None]:
    """An image that the file system does not give, or that needs a package, is one that cannot be read. Where masks are
    written, an `OSError` stays one: a full disk is not the image's fault.
    """
    try:
        yield
    except (OSError, ImportError) as error:
        raise ValueError(str(error)) from error
