"""An open file of the source with its masks, and its regions: the whole image, its frames, or the tiles of each.

Pixels are read region by region where the format allows it, so that memory does not grow with a slide. Pixels of other
depths are mapped by one range for the whole image, so that its tiles stay comparable.
"""

import hashlib
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from medsass.config import ShardConfig
from medsass.data.formats import depth, geometry, kinds
from medsass.data.formats.dicom.series import Series
from medsass.data.formats.geometry import Box
from medsass.data.formats.image import ImageFile, Selection, wxh
from medsass.data.formats.mask import BRIGHT_ZERO, LevelsError, Seen, mask_of
from medsass.data.formats.mask import selection as mask_selection
from medsass.data.formats.opening import open_image
from medsass.data.formats.photos import coded, integrity
from medsass.data.formats.photos.plain import Png
from medsass.data.formats.volumes.volume import Volume
from medsass.data.sharding import fit
from medsass.data.sharding.catalog.entry import Entry
from medsass.data.sharding.recipe import Recipe
from medsass.data.sharding.source import Fetched, reason

_BLURS = "its lossy format (JPEG, WebP) blurs levels and colours"
_EXACT = "--foreground half takes what is bright, or save it as PNG"


@dataclass(frozen=True)
class Region:
    """A frame of a file, or a box of that frame; it becomes one sample."""

    frame: int = 0
    box: Box | None = None


class SourceFile:
    """An image of the source and its masks, open until `close`; safe to read from several threads.

    Raises `ValueError` or `OSError` where the image or a mask cannot be read or does not fit.

    Args:
        entry: the image's entry in the catalog.
        recipe, config: how to read it.
        image, others: the files in the order of `Entry.paths`, as `Source.fetch` returns them: further slices of a
            series, then masks.
    """

    def __init__(
        self, entry: Entry, recipe: Recipe, config: ShardConfig, image: Fetched, others: list[Fetched]
    ) -> None:
        self.entry, self.recipe, self.config = entry, recipe, config
        self.path, self.data = image
        self._slices = tuple(path for path, _ in [image, *others][: len(entry.slices)])
        self._images, self._stack, self._lock = recipe.images[entry.table], ExitStack(), threading.RLock()
        self._image: ImageFile | None = None
        self._digest = ""
        self._masks: list[tuple[str, ImageFile]] = []
        self._blurred, masks = False, others[len(others) - len(entry.masks) :]
        try:
            selection = self._mask_selection() if masks else Selection()
            for path, (place, data) in zip(entry.masks, masks, strict=True):
                try:
                    blurred = data is not None and coded.is_lossy(data)
                    if blurred and recipe.masks.foreground not in ("binary", "half"):
                        raise ValueError(f"{_BLURS}, so that none can be named, and none is 0: {_EXACT}")
                    self._blurred |= blurred
                    self._masks.append((path, self._stack.enter_context(open_image(place, selection, data))))
                except (ValueError, OSError) as error:
                    raise ValueError(f"mask {path}: {reason(error)}") from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the files."""
        self._stack.close()

    @property
    def image(self) -> ImageFile:
        """The image, opened on first use: a file whose bytes are stored unchanged need not be."""
        with self._lock:
            if self._image is None:
                images, level = self._images, self.config.level
                selection = Selection(images.array, images.channels, images.frames, level, images.axis, images.every)
                whole = Series(self._slices, selection) if self._slices else open_image(self.path, selection, self.data)
                self._image = self._stack.enter_context(whole)
            return self._image

    def _mask_selection(self) -> Selection:
        """Return how masks are read: as the image, along the same axis as a volume of which the recipe names none."""
        images = self._images
        axis: str = images.axis
        if not axis and not kinds.is_photo(self.entry.image) and isinstance(self.image, Volume):
            axis = self.image.view.axis
        plain = Selection(images.mask_array, images.mask_channels, images.frames, 0, axis, images.every)
        return mask_selection(plain, self.recipe.masks.foreground)

    @property
    def several(self) -> bool:
        """True where the file holds several images that all become samples."""
        return self.image.frames > 1

    def source(self, region: Region) -> str:
        """Return the path of the file that a region is of: of a series the slice's, unless it is cut across them."""
        slices, image = self.entry.slices, self._image
        place = image.place(image.indices[region.frame]) if slices and isinstance(image, Series) else None
        return self.entry.image if place is None else slices[place]

    def regions(self) -> tuple[list[Region], int]:
        """Return the regions to store, in a fixed order, and the number of tiles skipped for too little foreground."""
        image, tile, least = self.image, self.config.tile, self.config.min_foreground
        if not tile:
            return [Region(frame) for frame in range(image.frames)], 0
        kept, skipped = [], 0
        for frame in range(image.frames):
            mask = self._foreground(frame) if least else np.ones((1, 1), np.uint8)
            for box in geometry.grid(image.height, image.width, tile, self.config.stride or tile):
                if not least or geometry.share(mask, box, image.height, image.width) >= least:
                    kept.append(Region(frame, box))
                else:
                    skipped += 1
        return kept, skipped

    def _foreground(self, frame: int) -> NDArray[np.uint8]:
        """Return where a frame has foreground, (h, w) uint8 in {0, 1} of any size."""
        try:
            small = self.image.small(frame)
        except ValueError:
            return np.ones((1, 1), np.uint8)  # each of its tiles will tell
        small = small if small.dtype == np.uint8 else depth.to_8bit(small, self.image.padding)
        gray = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY) if small.ndim == 3 else small
        return geometry.foreground(np.asarray(gray, np.uint8), self.recipe.polarity)

    def key(self, region: Region) -> str:
        """Return the sample's key: the entry's, with the frame and the tile's first row and column where there are
        several.
        """
        frame = f"-f{region.frame:06d}" if self.several else ""
        place = f"-y{region.box.y:06d}-x{region.box.x:06d}" if region.box else ""
        return f"{self.entry.key}{frame}{place}"

    def read(self, region: Region) -> tuple[NDArray[Any], list[tuple[float, float]] | None]:
        """Read a region in the depth that is stored.

        Returns:
            Pixels (h, w) or (h, w, 3), uint8 or uint16, and the range that was mapped to that depth: one for all
            channels or one for each, None where the file's own values are stored.
        """
        array, bits = self.image.read(region.frame, region.box), self.config.depth
        if bits == 16 and array.ndim == 3:
            raise ValueError("a colour image; --depth 16 stores single-channel images: choose a channel in the recipe")
        if not depth.needs_scaling(self.image, bits, self.recipe.window):
            return array, None
        limits = depth.limits(self.image, region.frame, self.config.range, self.recipe.window)
        return depth.scaled(array, limits, bits, self.image.padding), limits

    def mask(self, region: Region) -> tuple[NDArray[np.uint8], dict[str, Seen]] | None:
        """Read a region's mask, (h, w) uint8 in {0, 1}, with the levels of each file by name; None without one. Its size is the
        region's unless the recipe lets masks be resized.
        """
        if not self._masks:
            return None
        name, first = self._masks[0]
        for other, mask in self._masks:
            try:
                fit.check(self._image, mask)
            except ValueError as error:
                raise ValueError(f"mask {other}: {error}") from error
        turn = self._image.turn if self._image and self.recipe.masks.turn else 1
        size = (first.height, first.width)
        size = size[::-1] if first.turn == 1 and geometry.swaps_axes(turn) else size
        if region.box and size != (self.image.height, self.image.width):
            seen, own = wxh(size), wxh((self.image.height, self.image.width))
            remedy = "tiles need masks of its size: resize them before"
            if seen == wxh((self.image.width, self.image.height)) and geometry.swaps_axes(self.turned_apart):
                remedy = "--turn-masks turns it as the image's tag says"
            raise ValueError(f"mask {name}: size {seen} differs from the image's {own}; {remedy}")
        try:
            return mask_of(self._masks, self.recipe.masks.foreground, region.frame, region.box, turn)
        except LevelsError as error:
            if not self._blurred:
                raise
            gray = "save it in gray or black and white" if self.recipe.masks.foreground == "half" else _EXACT
            raise ValueError(f"mask {name}: {_BLURS}: {gray}") from error

    @property
    def turned_apart(self) -> int:
        """The orientation tag by which the image was turned upright and a mask, which has none, was not; 1 without these."""
        apart = self._image and not self.recipe.masks.turn and any(mask.turn == 1 for _, mask in self._masks)
        return self._image.turn if self._image and apart else 1

    @property
    def zero_is_bright(self) -> bool:
        """True where a mask, whose values count as stored, is shown with its 0 bright."""
        return any(BRIGHT_ZERO in picture.converted for _, picture in self._masks)

    @property
    def has_strange_mask(self) -> bool:
        """True where a mask is of another patient than its image, by the headers of both."""
        return any(fit.strangers(self._image, mask) for _, mask in self._masks)

    def mask_bytes(self, mask: NDArray[np.uint8]) -> bytes | None:
        """Return the bytes of the only mask file, if it is a PNG, sure to be read alike by any decoder, that holds exactly `mask` as
        0 and 255. Raises `ValueError` where it breaks a rule.
        """
        name, file = self._masks[0] if len(self._masks) == 1 else ("", None)
        if not isinstance(file, Png) or file.colour or not np.array_equal(file.read(), np.negative(mask)):  # -1 is 255
            return None
        try:
            sure = integrity.check_png(file.data) if file.sure is None else file.sure
        except ValueError as error:
            raise ValueError(f"mask {name}: {error}") from error
        return file.data if sure else None

    def sha256(self, region: Region) -> str:
        """Return the SHA-256 of the file's bytes or, where it holds several images or a volume, whose voxels may be in another, of
        this frame's pixels.
        """
        if self.several or self._slices or (self.data is None and isinstance(self.image, Volume)):
            return self.image.once(("sha256", region.frame), lambda: self._pixels(region))
        with self._lock:
            if not self._digest and self.data is not None:
                self._digest = hashlib.sha256(self.data).hexdigest()
            elif not self._digest:
                digest = hashlib.sha256()
                parts = sorted(filter(Path.is_file, self.path.rglob("*"))) if self.path.is_dir() else [self.path]
                for path in parts:  # several of a Zarr folder
                    with path.open("rb") as file:
                        hashlib.file_digest(file, lambda: digest)
                self._digest = digest.hexdigest()
        return self._digest

    def _pixels(self, region: Region) -> str:
        """Return the SHA-256 of a frame's pixels, their shape and their type; of a blank one of its place too, because it is no
        other's twin.
        """
        image, blank, ends = self.image, True, list[Any]()
        digest = hashlib.sha256(f"{image.height} {image.width} {image.colour} {image.dtype}".encode())
        for piece in image.pieces(region.frame):
            digest.update(np.ascontiguousarray(piece).data)
            ends += [np.fmin.reduce(piece, axis=None), np.fmax.reduce(piece, axis=None)]
            blank = blank and not min(ends) < max(ends)
        if blank:
            digest.update(f"{self.source(region)} {region.frame}".encode())
        return digest.hexdigest()
