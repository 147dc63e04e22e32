"""One file of the source, open, with its masks -> its parts: the whole image, its frames, or the tiles of each.

Images are read region by region where their format allows it, so that memory does not grow with a slide. Pixels of
other depths are mapped by one range for the whole image: its tiles stay comparable.
"""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from medsass.config import ShardConfig
from medsass.data.formats import depth as pixels
from medsass.data.formats import geometry
from medsass.data.formats.geometry import Box
from medsass.data.formats.image import ImageFile, Selection, wxh
from medsass.data.formats.mask import mask_of
from medsass.data.formats.opening import open_image
from medsass.data.formats.photo import Png
from medsass.data.sharding.catalog import Sample
from medsass.data.sharding.recipe import Recipe
from medsass.data.sharding.source import AtHand


@dataclass(frozen=True)
class Part:
    """One sample-to-be of a file: a frame, and of it a box; None is all of it."""

    frame: int = 0
    box: Box | None = None


class Opened:
    """A file of the source and its masks, open until `close`; safe to read from several threads.

    image, masks: where each is on this machine, and its bytes where they are at hand (the path then only names it).
    Raises `ValueError` or `OSError` where the image or a mask cannot be read or does not fit.
    """

    def __init__(self, sample: Sample, recipe: Recipe, config: ShardConfig, image: AtHand, masks: list[AtHand]) -> None:
        self.sample, self._recipe, self._config, self._stack = sample, recipe, config, ExitStack()
        self._path, self.data = image
        self._picture: ImageFile | None = None
        self._limits: dict[int, list[tuple[float, float]]] = {}
        self._digest, self._lock = "", threading.RLock()
        try:
            self._masks = [
                (name.rpartition("/")[2], self._open_mask(name, *mask))
                for name, mask in zip(sample.masks, masks, strict=True)
            ]
        except BaseException:
            self.close()
            raise

    def _open_mask(self, name: str, path: Path, data: bytes | None) -> ImageFile:
        entry = self._recipe.images[self.sample.entry]
        view = Selection(entry.mask_array, entry.mask_channels, entry.frames, 0)
        try:
            return self._stack.enter_context(open_image(path, view, data))
        except ValueError as error:
            raise ValueError(f"mask {name.rpartition('/')[2]}: {error}") from error

    def close(self) -> None:
        """Close the files."""
        self._stack.close()

    @property
    def picture(self) -> ImageFile:
        """The image, opened when it is first asked for: a file that is stored as it is need not be."""
        with self._lock:
            if self._picture is None:
                entry = self._recipe.images[self.sample.entry]
                view = Selection(entry.array, entry.channels, entry.frames, self._config.level)
                self._picture = self._stack.enter_context(open_image(self._path, view, self.data))
            return self._picture

    @property
    def several(self) -> bool:
        """True where the file holds several images that all become samples."""
        return self._recipe.images[self.sample.entry].frames == "all" and self.picture.frames > 1

    def parts(self) -> Iterator[Part]:
        """The parts of this file, in a fixed order; with --tile those whose share of foreground suffices."""
        for frame in range(self.picture.frames):
            if not self._config.tile:
                yield Part(frame)
                continue
            height, width, tile = self.picture.height, self.picture.width, self._config.tile
            least = self._config.min_foreground
            mask = self._foreground(frame) if least else np.ones((1, 1), np.uint8)
            for box in geometry.grid(height, width, tile, self._config.stride or tile):
                if not least or geometry.share(mask, box, height, width) >= least:
                    yield Part(frame, box)

    def boxes(self) -> int:
        """Number of tiles before any is left out for its share of foreground."""
        tile = self._config.tile or 0
        grid = geometry.grid(self.picture.height, self.picture.width, tile, self._config.stride or tile)
        return self.picture.frames * sum(1 for _ in grid)

    def key(self, part: Part) -> str:
        """The sample's key, with the frame and the tile's first row and column where there are several."""
        frame = f"-f{part.frame:06d}" if self.several else ""
        place = f"-y{part.box.y:06d}-x{part.box.x:06d}" if part.box else ""
        return f"{self.sample.key}{frame}{place}"

    def read(self, part: Part) -> tuple[NDArray[Any], list[tuple[float, float]] | None]:
        """Pixels (h, w) or (h, w, 3) of the depth that is stored, uint8 or uint16, and the range (one for all channels
        or one for each) that was mapped to it; None where the file's own values are stored.
        """
        array = self.picture.read(part.frame, part.box)
        depth = self._config.depth
        if depth == 16 and array.ndim == 3:
            raise ValueError("a colour image; --depth 16 stores single-channel images: choose a channel in the recipe")
        if not pixels.needs_scaling(array.dtype, depth):
            return array, None
        limits = [(0.0, 255.0)] if array.dtype == np.uint8 else self._range(part.frame)
        return pixels.scaled(array, limits, depth), limits

    def mask(self, part: Part) -> NDArray[np.uint8] | None:
        """(h, w) uint8 in {0, 1}, of the size of the part unless the recipe lets masks be resized; None without one."""
        if not self._masks:
            return None
        name, first = self._masks[0]
        if part.box and (first.height, first.width) != (self.picture.height, self.picture.width):
            seen, own = (wxh((item.height, item.width)) for item in (first, self.picture))
            raise ValueError(f"mask {name}: size {seen} differs from the image's {own}; tiles need masks of its size")
        return mask_of(self._masks, self._recipe.masks.foreground, part.frame, part.box)

    def mask_file(self, mask: NDArray[np.uint8]) -> bytes | None:
        """The bytes of the one mask file, where it is a PNG that holds just `mask`, as 0 and 255."""
        picture = self._masks[0][1] if len(self._masks) == 1 else None
        if not isinstance(picture, Png) or picture.colour:
            return None
        return picture.data if np.array_equal(picture.read(), np.negative(mask)) else None  # -1 is 255

    def sha256(self, part: Part) -> str:
        """Of the file's bytes, or, where it holds several images, of this one's pixels."""
        if self.several:
            return hashlib.sha256(np.ascontiguousarray(self.picture.read(part.frame)).tobytes()).hexdigest()
        with self._lock:
            self._digest = self._digest or self._hash()
        return self._digest

    def _hash(self) -> str:
        if self.data is not None:
            return hashlib.sha256(self.data).hexdigest()
        with self._path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _range(self, frame: int) -> list[tuple[float, float]]:
        with self._lock:
            if frame not in self._limits:
                self._limits = {frame: pixels.limits(self.picture, frame, self._config.range)}
            return self._limits[frame]

    def _foreground(self, frame: int) -> NDArray[np.uint8]:
        small = self.picture.small(frame)
        if small.dtype != np.uint8:
            small = pixels.to_8bit(small)
        gray = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY) if small.ndim == 3 else small
        return geometry.foreground(np.asarray(gray, np.uint8), self._recipe.polarity)
