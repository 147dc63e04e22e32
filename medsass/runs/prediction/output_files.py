"""The files that `medsass predict` writes for an image: its mask and, beside it, the probability and the overlay.

They are PNG files for an image that fits in memory, and volumes for a volume. For slides and larger images they are tiled TIFF files, written row by
row of tiles, and an overlay on a reduced overview. Files take their names only when all files of the image are complete.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
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
from medsass.data.formats.image import ImageFile
from medsass.data.formats.volumes.volume import Volume
from medsass.runs import figures
from medsass.runs.image_files import Outputs
from medsass.runs.prediction.image import InputImage

OVERVIEW = 2048  # longest side of the overlay of a slide or large image, in pixels

_TILE = 512  # side of the tiles in a TIFF
_CLASSIC = (1 << 32) - (1 << 25)  # bytes of pixels that a TIFF with 32-bit offsets is trusted to hold
_BUFFER = 16 << 20  # bytes of tiles compressed together
_HALF = 32767  # the largest 16-bit probability that is background


def levels(chance: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Map probabilities in [0, 1] to 0..65535, halves rounded down: above 32767 exactly where they are above 0.5."""
    rounded: NDArray[np.float32] = np.ceil(chance * np.float32(65535) - np.float32(0.5))
    return rounded.astype(np.uint16)


def write_png(outputs: Outputs, image: InputImage, bands: Iterable[NDArray[np.float32]], config: PredictConfig) -> None:
    """Write an image's files from its probability, top to bottom in bands of (rows, W) float32."""
    chance = np.concatenate([levels(band) for band in bands])
    mask = (chance > _HALF).astype(np.uint8)
    arrays: dict[Path, NDArray[Any]] = {outputs.mask: mask * np.uint8(255)}
    if config.overlay:
        arrays[outputs.beside("overlay")] = figures.outlined(image.rgb(), mask)
    if config.probability:
        arrays[outputs.beside("probability")] = chance
    with ExitStack() as stack:
        for path, array in arrays.items():
            Image.fromarray(array).save(stack.enter_context(files.atomic(path)), "PNG")


def write_tiff(
    outputs: Outputs, image: InputImage, bands: Iterable[NDArray[np.float32]], config: PredictConfig
) -> None:
    """Write an image's files as `write_png` does, at any size: in memory are a band and _TILE rows. The mask is made from the
    probability's file where there is one, and the overview from the mask's.
    """
    rows: Iterable[NDArray[np.uint16]] = (levels(band) for band in bands)
    with ExitStack() as stack:
        mask = stack.enter_context(files.atomic(outputs.mask))
        if config.probability:
            chance = stack.enter_context(files.atomic(outputs.beside("probability")))
            save_rows(chance, rows, image.shape, np.dtype(np.uint16))
            stored = stack.enter_context(opening.open_image(Path(chance.name)))
            tops = range(0, stored.height, _TILE)
            rows = (stored.read(0, Box(y, 0, min(_TILE, stored.height - y), stored.width)) for y in tops)
        save_rows(mask, ((band > _HALF) * np.uint8(255) for band in rows), image.shape, np.dtype(np.uint8))
        if config.overlay:
            overlay = stack.enter_context(files.atomic(outputs.beside("overlay")))
            reduced = image.small(OVERVIEW)
            with opening.open_image(Path(mask.name)) as file:
                small = cv2.resize(file.small(0, OVERVIEW), reduced.shape[1::-1], interpolation=cv2.INTER_AREA)
            outlined = figures.outlined(reduced, (small > 127).astype(np.uint8))  # where at least half is foreground
            Image.fromarray(outlined).save(overlay, "PNG")


def write_stack(outputs: Outputs, images: list[InputImage], chances: NDArray[np.uint16], config: PredictConfig) -> None:
    """Write the files of a volume or stack from the probability of its slices (n, h, w), as `levels` gives it.

    Masks of volumes hold 0 and 1, and their probability is float32 in [0, 1].
    """
    file = images[0].file
    flat = not isinstance(file, Volume)
    masks = (chances > _HALF).astype(np.uint8)
    contents = {outputs.mask: file.encode(masks * np.uint8(255) if flat else masks)}
    if config.probability:
        probability = chances if flat else chances / np.float32(65535)
        contents[outputs.beside("probability")] = file.encode(probability)
    if config.overlay:
        drawn = [figures.outlined(image.rgb(), mask) for image, mask in zip(images, masks, strict=True)]
        contents[outputs.beside("overlay")] = ImageFile.encode(file, np.stack(drawn))
    with ExitStack() as stack:
        for path, content in contents.items():
            stack.enter_context(files.atomic(path)).write(content)


def save_rows(file: BinaryIO, bands: Iterable[NDArray[Any]], shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
    """Write bands of (rows, W), together of `shape` (H, W), as a gray TIFF: deflate, tiles of 512 x 512 pixels, BigTIFF
    where it may exceed 4 GiB. In memory are a band and a row of tiles.
    """
    large = shape[0] * shape[1] * dtype.itemsize > _CLASSIC
    form = {"tile": (_TILE, _TILE), "compression": "zlib", "photometric": "minisblack", "metadata": None}
    with tifffile.TiffWriter(file, bigtiff=large) as tiff:
        tiff.write(_cut(bands), shape=shape, dtype=dtype, buffersize=_BUFFER, **form)
    file.flush()


def _cut(bands: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    """Cut bands of any number of rows into tiles, row by row; those at the right and lower edge are smaller."""
    held: NDArray[Any] | None = None
    for band in bands:
        held = band if held is None else np.concatenate([held, band])
        while len(held) >= _TILE:
            yield from (held[:_TILE, x : x + _TILE] for x in range(0, held.shape[1], _TILE))
            held = held[_TILE:]
    if held is not None and len(held):
        yield from (held[:, x : x + _TILE] for x in range(0, held.shape[1], _TILE))
