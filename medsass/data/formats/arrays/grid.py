"""Arrays of any number of axes, of which each axis means something: NumPy, HDF5 and Zarr."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsass.data.formats import geometry
from medsass.data.formats.choice import in_recipe, option, pick_channels
from medsass.data.formats.damage import readable
from medsass.data.formats.geometry import Box, compose
from medsass.data.formats.image import ImageFile, Selection, check_level

ALPHA = 4  # channels, of which the last is alpha


def axes_of(shape: tuple[int, ...], view: Selection) -> str:
    """Return the axes of an array without names for them, by a rule.

    (H, W); (H, W, C) where the last axis is at most 4 long; (1, H, W). Where channels are chosen, the shorter of the first and
    the last axis is C; where all frames are asked for, the first is N. (N, H, W, C), or (N, C, H, W) where that is shorter.
    Raises `ValueError` for any other shape, and where both are possible.
    """
    if 0 in shape or len(shape) not in (2, 3, 4):
        raise ValueError(
            f"an array of shape {shape}; images are (H, W), (H, W, C), (N, H, W) or (N, H, W, C): save it so"
        )
    if len(shape) == 2:
        return "YX"
    if len(shape) == 4:
        return "NCYX" if shape[1] < shape[3] and shape[3] > ALPHA else "NYXC"
    if shape[-1] <= ALPHA:
        return "YXC"
    if view.channels and view.frames != "all":
        return "CYX" if shape[0] < shape[2] else "YXC"
    if (view.frames == "all" or view.across or shape[0] == 1) and not view.channels:
        return "NYX"
    raise ValueError(
        f"an array of shape {shape} can be {shape[0]} frames or {min(shape[0], shape[2])} channels; "
        f"say which: --frames all, or {option(view, 'channels', '0')}"
        f"{in_recipe(view, 'in [[images]] of a recipe: frames, channels')}"
    )


def can_be_image(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    """Return whether an array can hold images, by the rule of `axes_of`."""
    return len(shape) in (2, 3, 4) and 0 not in shape and dtype.kind in "buif"


class Grid(ImageFile):
    """Images in an array, which is read in parts. Raises `ValueError` where the selection does not fit it.

    Args:
        levels: the arrays of the pyramid; anything that NumPy's slices can index.
        axes: a letter for each axis: "Y" and "X", "C" for channels; all others count frames.
        view: the part that is read. Slices along its axis "y" or "x" are cut through the last axis that counts frames.
        own: whether each frame is an image of its own, with its own range of values; otherwise the array is one whole.
    """

    def __init__(self, levels: Sequence[Any], axes: str, view: Selection, *, own: bool = False) -> None:
        check_level(view, len(levels))
        array = levels[view.level]
        shape, dtype = array.shape, np.dtype(array.dtype)
        self._arrays, self._shape = levels, shape
        self._rows, self._columns, self._channel = axes.index("Y"), axes.index("X"), axes.find("C")
        used = (self._rows, self._columns, self._channel)
        self._counted = [axis for axis in range(len(axes)) if axis not in used]
        self.counted = tuple((axes[axis], shape[axis]) for axis in self._counted)
        if self._counted:
            cut = geometry.cut(view.axis, self._counted[-1], self._rows, self._columns)
            self._counted[-1], self._rows, self._columns = cut
        count = shape[self._channel] if self._channel >= 0 else 1
        last = self._channel == len(axes) - 1
        alpha = count == ALPHA and last and not view.channels
        self._channels = (0, 1, 2) if alpha else pick_channels(view, count)
        self._bits = (1 if view.raw else 255) if dtype == np.bool_ else 0
        kind = np.dtype(np.uint8) if self._bits else dtype
        size = shape[self._rows], shape[self._columns]
        super().__init__(*size, len(self._channels) == 3, kind, view, streams=True)
        self.levels = tuple((one.shape[self._rows], one.shape[self._columns]) for one in levels)
        self.common = not own or view.across
        self.per_channel |= self.colour and not last
        chunks = getattr(array, "chunks", None)
        if chunks:
            self._grain = chunks[self._rows], chunks[self._columns]
        elif getattr(getattr(array, "flags", None), "c_contiguous", False):
            self._grain = (1, self.width)
        self._sizes = tuple(shape[axis] for axis in self._counted)
        notes = [self._select(view, int(np.prod(self._sizes, dtype=np.int64))), "alpha dropped" if alpha else ""]
        self.converted = ", ".join(filter(None, [*notes, "bilevel to gray" if self._bits == 255 else ""]))

    def _decode(self, frame: int, box: Box, level: int) -> NDArray[Any]:
        array, index = self._arrays[level], list[Any]([slice(None)] * len(self._shape))
        index[self._rows], index[self._columns] = box.slices
        for axis, at in zip(self._counted, np.unravel_index(frame, self._sizes) if self._sizes else (), strict=True):
            index[axis] = int(at) * array.shape[axis] // self._shape[axis]

        def plane(channel: int) -> NDArray[Any]:
            if self._channel >= 0:
                index[self._channel] = channel
            with readable():
                part = np.asarray(array[tuple(index)])
            return part.T if self._columns < self._rows else part

        pixels = compose(self._channels, plane)
        return pixels * np.uint8(self._bits) if self._bits else np.array(pixels, self.dtype)

    def close(self) -> None:
        """Give the arrays back."""
        super().close()
        self._arrays = []
