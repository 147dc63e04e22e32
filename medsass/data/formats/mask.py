"""Mask files -> (h, w) uint8 in {0, 1}."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import partial, reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsass.data.formats.geometry import Box
from medsass.data.formats.image import WHOLE_FILE, ImageFile, Selection, wxh
from medsass.data.formats.opening import open_image

Foreground = str | tuple[int, ...]

_MOST_LEVELS = 65536  # that are counted


def binary(array: NDArray[Any], foreground: Foreground, level: float | None = None) -> NDArray[np.uint8]:
    """Return (h, w) uint8 in {0, 1}: the foreground of a mask.

    Args:
        array: (h, w), or (h, w, 3), which counts by its largest channel.
        foreground: "binary": the higher of at most two levels (a constant mask is foreground unless it is 0);
            "nonzero": above 0; "half": above half of the type's range; or the values themselves.
        level: of the foreground, with "binary", where `array` is a part of a mask for which `upper_level` found it.

    Raises:
        ValueError: for "binary" and a mask of more than two levels, and an unknown rule.
    """
    flat = _flat(array)
    if isinstance(foreground, tuple):
        return np.asarray(np.isin(flat, foreground), np.uint8)
    if foreground == "binary":
        return np.asarray(flat == (upper_level([flat]) if level is None else level), np.uint8)
    if foreground not in ("nonzero", "half"):
        raise ValueError(f"foreground must be binary, nonzero, half or a list of values; got '{foreground}'")
    half = 0.5 if array.dtype.kind == "f" else int(np.iinfo(array.dtype).max // 2)
    return np.asarray(flat > (0 if foreground == "nonzero" else half)).view(np.uint8)


def _flat(array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim == 2:
        return array
    # array.max(axis=2) takes 40 times as long
    return np.asarray(reduce(np.maximum, (array[..., i] for i in range(array.shape[2]))))


def upper_level(parts: Iterable[NDArray[Any]]) -> float:
    """Return the higher of the two levels of a mask, given in parts; 1 where all is 0.

    Raises:
        ValueError: for more than two levels.
    """
    seen: set[float] = set()
    for part in parts:
        low, high = part.min(), part.max()
        seen |= {low, high} if ((part == low) | (part == high)).all() else set(np.unique(part).tolist())
        if len(seen) > _MOST_LEVELS:
            break
    if len(seen) > 2:
        count = len(seen) if len(seen) <= _MOST_LEVELS else f"more than {_MOST_LEVELS}"
        raise ValueError(
            f"{count} levels in a mask that should have two; say what is foreground: nonzero (numbered objects or "
            "classes), half (soft edges) or a list of values"
        )
    return float(max(seen)) if any(seen) else 1.0


def mask_of(
    pictures: Iterable[tuple[str, ImageFile]], foreground: Foreground, frame: int = 0, box: Box | None = None
) -> NDArray[np.uint8]:
    """Return (h, w) uint8 in {0, 1}: the union of open mask files, or a box of it.

    Args:
        pictures: the files, each with its name.
        foreground: see `binary`; its two levels are those of the whole mask, also where only a box is read.
        frame: number of the frame in each file.
        box: the part to read.

    Raises:
        ValueError: naming the file that cannot be read or whose size differs from the first one's.
    """
    union: NDArray[np.uint8] | None = None
    size = (0, 0)
    for name, picture in pictures:
        try:
            array, level = picture.read(frame, box), None
            if foreground == "binary" and box:
                find = partial(upper_level, map(_flat, picture.pieces(frame)))  # reads nothing before it is called
                level = picture.once(("upper level", frame), find)
            mask = binary(array, foreground, level)
        except ValueError as error:
            raise ValueError(f"mask {name}: {error}") from error
        own = picture.height, picture.width
        if union is not None and own != size:
            raise ValueError(f"mask {name}: size {wxh(own)} differs from the other masks' {wxh(size)}")
        union, size = mask if union is None else union | mask, own
    if union is None:
        raise ValueError("no mask file")
    return union


def read_mask(
    paths: Sequence[Path],
    foreground: Foreground = "binary",
    view: Selection = WHOLE_FILE,
    frame: int = 0,
    box: Box | None = None,
) -> NDArray[np.uint8]:
    """Open mask files and return their `mask_of`. Raises `ValueError` naming the file, as that does."""
    with ExitStack() as stack:
        pictures = []
        for path in paths:
            try:
                pictures.append((path.name, stack.enter_context(open_image(path, view))))
            except ValueError as error:
                raise ValueError(f"mask {path.name}: {error}") from error
        return mask_of(pictures, foreground, frame, box)
