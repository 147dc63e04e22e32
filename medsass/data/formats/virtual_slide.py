"""Whole slides in the formats that OpenSlide alone reads: MRXS, SVSLIDE, VMS, VMU and true BIF."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsass.data.formats.damage import readable
from medsass.data.formats.geometry import Box
from medsass.data.formats.image import ImageFile, Selection, check_level


class VirtualSlide(ImageFile):
    """The slide at `path`, read by OpenSlide in regions of any level; what the scanner left out has the background's colour.

    Raises `ValueError` without openslide-python, with the remedy, and where OpenSlide does not read the file.
    """

    def __init__(self, path: Path, view: Selection) -> None:
        try:
            openslide = importlib.import_module("openslide")
        except (ImportError, OSError) as error:  # OSError: without its C library
            raise ValueError(
                "slides of this kind need OpenSlide: pip install openslide-python openslide-bin"
            ) from error
        with readable():
            self._slide = openslide.OpenSlide(str(path))
            sizes = tuple((height, width) for width, height in self._slide.level_dimensions)
            self._scales = [float(scale) for scale in self._slide.level_downsamples]
            ground = self._slide.properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR, "ffffff")
            self._ground = np.frombuffer(bytes.fromhex(ground), np.uint8).astype(np.uint16)
        try:
            check_level(view, len(sizes))
            if view.channels:
                raise ValueError(
                    f"channels of a slide in colour cannot be chosen here; omit {'mask_channels' if view.mask else '--channels'}"
                )
            super().__init__(*sizes[view.level], True, np.dtype(np.uint8), view, streams=True)
        except BaseException:
            self._slide.close()
            raise
        self._select(view, 1)
        self.levels = sizes

    def _decode(self, _frame: int, box: Box, level: int) -> NDArray[Any]:
        place = tuple(round(at * self._scales[level]) for at in (box.x, box.y))
        with readable():
            pixels = np.asarray(self._slide.read_region(place, level, (box.width, box.height))).astype(np.uint16)
        alpha = pixels[..., 3:]
        return ((pixels[..., :3] * alpha + self._ground * (255 - alpha) + 127) // 255).astype(np.uint8)

    def close(self) -> None:
        """Close the file."""
        super().close()
        self._slide.close()
