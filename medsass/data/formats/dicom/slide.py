"""DICOM slides (VL Whole Slide Microscopy): tiles in frames, put together and read by region.

A slide's tiles lie in the order of DICOM PS3.3, C.7.6.17.3 (TILED_FULL), or where each frame says (TILED_SPARSE). Each
resolution is a file of its own, and so an image of its own here.
"""

import io
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsass.data.formats.damage import DamagedError, readable
from medsass.data.formats.dicom.header import import_dicom, opened
from medsass.data.formats.dicom.image import Dicom
from medsass.data.formats.geometry import Box
from medsass.data.formats.image import Selection
from medsass.data.formats.photos import codestream, jpeg

_WHITE = 255  # of tiles that are not there


class DicomSlide(Dicom):
    """A slide whose tiles are the frames of a DICOM file. Focal planes and optical paths, where there are several, are its
    frames.

    Args:
        source, view, known: as of `Dicom`.
    """

    slide = True

    def __init__(self, source: Path | bytes, view: Selection, known: tuple[Any, int]) -> None:
        header, place = known
        super().__init__(source, replace(view, frames="first", every=1, axis="z"), known)
        self._tile = self.height, self.width
        with readable():
            size = int(header.TotalPixelMatrixRows), int(header.TotalPixelMatrixColumns)
            layers = _layers(header, self._tile, size)
            self._frames = _frames(source, header, place)
        last = max((frame for layer in layers for frame in layer.values()), default=-1)
        if last >= len(self._frames):
            raise DamagedError(f"truncated: tiles in {last + 1} frames, of which the file holds {len(self._frames)}")
        converted = self.converted.removeprefix(f"first of {self.total} frames").removeprefix(", ")
        (self.height, self.width), self.levels, self.streams, self.common = size, (size,), True, False
        self.converted = ", ".join(filter(None, (self._select(view, len(layers)), converted)))
        self._grain, self._cells = self._tile, [_cells(layer, self._tile) for layer in layers]

    def _decode(self, frame: int, box: Box, _level: int) -> NDArray[Any]:
        height, width = self._tile
        rows = range(box.y // height * height, box.y + box.height, height)
        columns = range(box.x // width * width, box.x + box.width, width)
        shape = (len(rows) * height, len(columns) * width)
        ground = np.full((*shape, 3) if self.colour else shape, _WHITE if self.colour else 0, self.dtype)
        cells, first = self._cells[frame], (rows[0] // height - 1, columns[0] // width - 1)
        near = [
            (first[0] + down, first[1] + right) for down in range(len(rows) + 1) for right in range(len(columns) + 1)
        ]
        for number, y, x in sorted(tile for cell in near for tile in cells.get(cell, ())):
            top, left = max(0, rows[0] - y), max(0, columns[0] - x)
            if top < height and left < width:
                at = ground[max(0, y - rows[0]) :, max(0, x - columns[0]) :]
                part = self._shown(self._one(number), 0)[top : top + at.shape[0], left : left + at.shape[1]]
                at[: part.shape[0], : part.shape[1]] = part
        return ground[box.y - rows[0] :, box.x - columns[0] :][: box.height, : box.width]

    def _one(self, frame: int) -> NDArray[Any]:
        """Decode a tile as the only frame of a data set: pydicom would search the file from its beginning for each."""
        pydicom = import_dicom("pydicom")
        with readable(), ExitStack() as stack:
            data, file = b"", stack.enter_context(opened(self._source))
            for start, length in self._frames[frame]:
                file.seek(start)
                data += file.read(length)
            codestream.check(data, *self._tile, 3)
            jpeg.check_pixels(data)
            one = pydicom.Dataset()
            one.file_meta = self.header.file_meta
            one.update({element.tag: element for element in self.header.group_dataset(0x0028)})
            one.NumberOfFrames = 1
            compressed = one.file_meta.TransferSyntaxUID.is_encapsulated
            one.PixelData = (
                import_dicom("pydicom.encaps").encapsulate([data]) if compressed else data + b"\0" * (len(data) % 2)
            )
            one["PixelData"].VR = "OB" if compressed or self._allocated <= 8 else "OW"
            return np.asarray(import_dicom("pydicom.pixels").pixel_array(one, index=0))


def _layers(header: Any, tile: tuple[int, int], size: tuple[int, int]) -> list[dict[tuple[int, int], int]]:
    """Return for each focal plane and optical path the frame of the tile at each (row, column) of the slide."""
    total, groups = int(header.get("NumberOfFrames") or 1), header.get("PerFrameFunctionalGroupsSequence")
    if header.get("DimensionOrganizationType") == "TILED_FULL" or not groups:
        if -(-size[0] // tile[0]) * -(-size[1] // tile[1]) > total:
            raise DamagedError(f"truncated: {total} tiles of {tile[1]}x{tile[0]} for {size[1]}x{size[0]} pixels")
        places = [(y, x) for y in range(0, size[0], tile[0]) for x in range(0, size[1], tile[1])]
        count = max(1, total // len(places))
        return [{place: layer * len(places) + i for i, place in enumerate(places)} for layer in range(count)]
    layers: dict[tuple[float, str], dict[tuple[int, int], int]] = {}
    for frame, group in enumerate(groups):
        position = group.PlanePositionSlideSequence[0]
        path = group.get("OpticalPathIdentificationSequence")
        key = (
            float(position.get("ZOffsetInSlideCoordinateSystem") or 0),
            str(path[0].OpticalPathIdentifier if path else ""),
        )
        place = (
            int(position.RowPositionInTotalImagePixelMatrix) - 1,
            int(position.ColumnPositionInTotalImagePixelMatrix) - 1,
        )
        layers.setdefault(key, {})[place] = frame
    return [layers[key] for key in sorted(layers)]


def _cells(
    layer: dict[tuple[int, int], int], tile: tuple[int, int]
) -> dict[tuple[int, int], list[tuple[int, int, int]]]:
    """Return (frame, row, column) of the tiles that begin in each cell of the grid of tiles; those of some slides lie off it."""
    cells: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    for (y, x), frame in layer.items():
        cells.setdefault((y // tile[0], x // tile[1]), []).append((frame, y, x))
    return cells


def _frames(source: Path | bytes, header: Any, place: int) -> list[list[tuple[int, int]]]:
    """Return the pieces of each frame: where in the file they begin and how many bytes they have."""
    total = int(header.get("NumberOfFrames") or 1)
    with opened(source) as file:
        file.seek(place + (8 if header.file_meta.TransferSyntaxUID.is_implicit_VR else 12))
        start = file.tell()
        if not header.file_meta.TransferSyntaxUID.is_encapsulated:
            bits = int(header.Rows) * int(header.Columns) * int(header.SamplesPerPixel) * int(header.BitsAllocated)
            held = (file.seek(0, io.SEEK_END) - start) // (bits // 8)
            return [[(start + i * bits // 8, bits // 8)] for i in range(min(total, held))]
        fragments, offsets = [], import_dicom("pydicom.encaps").parse_basic_offsets(file)
        first = file.tell()
        while (tag := file.read(8))[:4] == b"\xfe\xff\x00\xe0":
            fragments.append((file.tell(), int.from_bytes(tag[4:], "little")))
            file.seek(fragments[-1][1], io.SEEK_CUR)
    if len(fragments) == total:
        return [[fragment] for fragment in fragments]
    if len(offsets) != total:
        raise DamagedError(
            f"damaged: {len(fragments)} fragments for {total} frames, and no table that says which belong together"
        )
    ends = [*offsets[1:], fragments[-1][0]]
    return [
        [(at, length) for at, length in fragments if start <= at - 8 - first < end]
        for start, end in zip(offsets, ends, strict=True)
    ]
