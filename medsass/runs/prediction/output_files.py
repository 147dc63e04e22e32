"""What `medsass predict` writes for an image: its mask and, beside it, the probability and the overlay.

PNG files for an image that can be held whole. For slides and larger images tiled TIFF files, written row by row of
tiles, and an overlay on a reduced overview. A file takes its name only when all files of the image are whole.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from medsass import files
from medsass.config import PredictConfig
from medsass.data.formats import opening
from medsass.data.formats.geometry import Box
from medsass.runs import figures
from medsass.runs.prediction.image import Subject

OVERVIEW = 2048  # longest side of the overlay of a slide or large image, in pixels

_TILE = 512  # side of the tiles in a TIFF
_CLASSIC = (1 << 32) - (1 << 25)  # bytes of pixels that a TIFF with 32-bit offsets is trusted to hold
_BUFFER = 16 << 20  # bytes of tiles that are compressed together
_HALF = 32767  # the largest 16-bit probability that is background


@dataclass(frozen=True)
class Job:
    """One image and the file that its mask goes to; overlay and probability stand beside it."""

    image: Path
    mask: Path

    @property
    def large(self) -> bool:
        """True where mask and probability are TIFF files and the overlay is an overview."""
        return self.mask.suffix == ".tif"

    def beside(self, kind: str) -> Path:
        """The path of the overlay or the probability."""
        suffix = ".png" if kind == "overlay" else self.mask.suffix
        return self.mask.with_name(f"{self.mask.stem}_{kind}{suffix}")

    def outputs(self, config: PredictConfig) -> list[Path]:
        """All files that `config` asks for."""
        beside = [kind for kind, wanted in (("overlay", config.overlay), ("probability", config.probability)) if wanted]
        return [self.mask, *map(self.beside, beside)]


def levels(chance: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Probabilities in [0, 1] as 0..65535, rounded with halves down: above 32767 exactly where they are above 0.5."""
    rounded: NDArray[np.float32] = np.ceil(chance * np.float32(65535) - np.float32(0.5))
    return rounded.astype(np.uint16)


def write_png(job: Job, image: Subject, bands: Iterable[NDArray[np.float32]], config: PredictConfig) -> None:
    """Write the files of a job from the image's probability, top to bottom in bands of (rows, W) float32."""
    chance = np.concatenate([levels(band) for band in bands])
    mask = (chance > _HALF).astype(np.uint8)
    arrays: dict[Path, NDArray[Any]] = {job.mask: mask * np.uint8(255)}
    if config.overlay:
        arrays[job.beside("overlay")] = figures.outlined(image.rgb(), mask)
    if config.probability:
        arrays[job.beside("probability")] = chance
    with ExitStack() as stack:
        for path, array in arrays.items():
            Image.fromarray(array).save(stack.enter_context(files.atomic(path)), "PNG")


def write_tiff(job: Job, image: Subject, bands: Iterable[NDArray[np.float32]], config: PredictConfig) -> None:
    """`write_png` for an image of any size: holds a band and _TILE rows. What follows from a file that is written, the
    mask from the probability and the overview from the mask, is made from that file.
    """
    parts: Iterable[NDArray[np.uint16]] = (levels(band) for band in bands)
    with ExitStack() as stack:
        mask = stack.enter_context(files.atomic(job.mask))
        if config.probability:
            chance = stack.enter_context(files.atomic(job.beside("probability")))
            save_rows(chance, parts, image.shape, np.dtype(np.uint16))
            parts = _stored_rows(chance)
        save_rows(mask, ((part > _HALF) * np.uint8(255) for part in parts), image.shape, np.dtype(np.uint8))
        if config.overlay:
            overlay = stack.enter_context(files.atomic(job.beside("overlay")))
            Image.fromarray(_overview(image, mask)).save(overlay, "PNG")


def save_rows(file: BinaryIO, bands: Iterable[NDArray[Any]], shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
    """Write bands of (rows, W), together of `shape` (H, W), as a gray TIFF: deflate, tiles of 512 x 512 pixels, BigTIFF
    where it may pass 4 GiB. Holds a band and a row of tiles.
    """
    large = shape[0] * shape[1] * dtype.itemsize > _CLASSIC
    with tifffile.TiffWriter(file, bigtiff=large) as tiff:
        tiff.write(
            _cut(bands),
            shape=shape,
            dtype=dtype,
            tile=(_TILE, _TILE),
            compression="zlib",
            photometric="minisblack",
            metadata=None,
            buffersize=_BUFFER,
        )
    file.flush()


def _cut(bands: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    """Bands of any number of rows -> tiles, row by row; those at the right and lower edge are what is left."""
    held: NDArray[Any] | None = None
    for band in bands:
        held = band if held is None else np.concatenate([held, band])
        while len(held) >= _TILE:
            yield from _row(held[:_TILE])
            held = held[_TILE:]
    if held is not None and len(held):
        yield from _row(held)


def _row(band: NDArray[Any]) -> Iterator[NDArray[Any]]:
    return (band[:, x : x + _TILE] for x in range(0, band.shape[1], _TILE))


def _stored_rows(file: BinaryIO) -> Iterator[NDArray[Any]]:
    """Bands of the TIFF that `file` was written as."""
    with opening.open_image(Path(file.name)) as picture:
        for y in range(0, picture.height, _TILE):
            yield picture.read(0, Box(y, 0, min(_TILE, picture.height - y), picture.width))


def _overview(image: Subject, file: BinaryIO) -> NDArray[np.uint8]:
    """(h, w, 3) uint8: the reduced image with the outline of where at least half of a pixel is foreground."""
    reduced = image.small(OVERVIEW)
    with opening.open_image(Path(file.name)) as picture:
        mask = picture.small(0, OVERVIEW)
    mask = cv2.resize(mask, reduced.shape[1::-1], interpolation=cv2.INTER_AREA)
    return figures.outlined(reduced, (mask > 127).astype(np.uint8))
