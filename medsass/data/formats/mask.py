"""Mask files -> (h, w) uint8 in {0, 1}."""

from collections.abc import Iterable
from dataclasses import replace
from functools import reduce
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from medsass.data.formats import geometry
from medsass.data.formats.geometry import Box
from medsass.data.formats.image import ImageFile, Selection, wxh

Foreground = str | tuple[int, ...] | tuple[str, ...]
Levels = tuple[float, ...]
Seen = tuple[float | str, ...]  # levels, or the levels or colours of a rule, that a mask shows

BRIGHT_ZERO = "0 is shown bright"  # in `converted` of a file whose values are read as stored
MOST_CLASSES = 32  # levels; a mask of more has soft edges, or is a photograph
_OFF = 32  # between channels of a gray mask in a lossy format
_MOST_LEVELS = 65536  # that are counted
_HOW = "'#ff0000' (a colour), nonzero (any object or class), half (soft edges) or levels such as 1,3"


class LevelsError(ValueError):
    """A mask, or the masks of a dataset, hold more than two levels, or colours; `levels` are those, where they are few."""

    def __init__(self, text: str, levels: Iterable[float] = ()) -> None:
        super().__init__(text)
        self.levels = tuple(sorted(map(float, levels)))


def zero_is_bright(palette: NDArray[Any]) -> bool:
    """Return whether the first colour of a palette (n, 3) is brighter than the second."""
    return palette.ndim == 2 and len(palette) > 1 and bool(palette[0].sum(dtype=int) > palette[1].sum(dtype=int))


def selection(view: Selection, foreground: Foreground) -> Selection:
    """Return how a mask is read for a rule of foreground: its values as stored or, for "half" and colours, as shown."""
    return replace(view, mask=True, raw=foreground != "half" and not by_colour(foreground))


def by_colour(foreground: Foreground) -> bool:
    """Return whether a rule of foreground names colours."""
    return isinstance(foreground, tuple) and any(isinstance(value, str) for value in foreground)


def binary(
    array: NDArray[Any], foreground: Foreground, level: float | None = None, top: float | None = None
) -> NDArray[np.uint8]:
    """Return (h, w) uint8 in {0, 1}: the foreground of a mask.

    Args:
        array: (h, w), or (h, w, 3).
        foreground: "binary": the higher of at most two levels (a constant mask is foreground unless it is 0);
            "nonzero": not 0 in some channel; "half": above half of the range, of floats above 0.5; the values themselves;
            or colours as "#ff0000". NaN is 0.
        level: of the foreground, with "binary", where `array` is a part of a mask of which `levels` found it.
        top: of the range, with "half", where it is not the type's.

    Raises:
        ValueError: for "binary" and a mask of more than two levels, for "half" and values that do not fill the type's range,
            for colours unless the rule is "nonzero" or names colours, and an unknown rule.
    """
    if by_colour(foreground):
        named = [tuple(bytes.fromhex(str(colour)[1:])) for colour in foreground]
        shown = array if array.ndim == 3 else np.repeat(array[..., None], 3, axis=2)
        return np.asarray(reduce(np.logical_or, ((shown == colour).all(axis=2) for colour in named)), np.uint8)
    if array.ndim == 3 and foreground == "nonzero":
        return np.asarray((array != 0).any(axis=2), np.uint8)
    off = _OFF if foreground == "half" else 0
    flat = _gray(array, off) if level is None else _first(array)  # of which `levels` found no colours
    if isinstance(foreground, tuple):
        ends = np.iinfo(flat.dtype) if flat.dtype.kind in "ui" else None
        wanted = [int(value) for value in foreground if not ends or ends.min <= int(value) <= ends.max]
        chosen = np.array(wanted, flat.dtype if ends else None)  # or integers would be compared as floats
        return np.asarray(np.isin(flat, chosen), np.uint8)
    if foreground == "binary":
        level = foreground_level(levels([flat])) if level is None else level
        return np.asarray(flat == flat.dtype.type(level)).view(np.uint8)  # of one type: a fifth of the time
    if foreground not in ("nonzero", "half"):
        raise ValueError(f"foreground must be binary, nonzero, half or a list of values; got '{foreground}'")
    return np.asarray(flat != 0 if foreground == "nonzero" else flat > flat.dtype.type(_half(flat, top))).view(np.uint8)


def _seen(array: NDArray[Any], foreground: Foreground, mask: NDArray[np.uint8]) -> Seen:
    """Return those of several levels or colours of a rule that an array holds; of another rule its first, or 1, if there is any
    foreground in the `mask` that it makes.
    """
    if isinstance(foreground, str) or len(foreground) == 1:
        return ((1.0,) if isinstance(foreground, str) else foreground) * bool(mask.any())
    return tuple(value for value in foreground if binary(array, (value,)).any())  # type: ignore[arg-type]


def foreground_level(levels: Levels) -> float:
    """Return the level of the foreground: the higher of two, or the only one unless it is 0; of nothing but 0, one that is none."""
    return levels[-1] if len(levels) > 1 or levels[-1] else 1.0


def _half(flat: NDArray[Any], full: float | None) -> float:
    """Return half of the range of a mask's values, up to `full`. Raises `ValueError` where they are of another range."""
    if flat.dtype == np.uint8:
        return 127.0
    top = flat.max(initial=0)
    if flat.dtype.kind == "f":
        if top > 1:
            raise ValueError(
                f"values up to {top:g}, and half is of floats from 0 to 1: save it as 8 bit, or name its levels"
            )
        return 0.5
    if flat.dtype.itemsize > 1 and 0 < top < 1 << 8:
        raise ValueError(
            f"values up to {top} in {flat.dtype}, of which half is far above: save it as 8 bit, or name its levels"
        )
    return float(int(full or np.iinfo(flat.dtype).max) // 2)


def _first(array: NDArray[Any]) -> NDArray[Any]:
    """Return the (h, w) values of a mask, of three channels the first, NaN as 0."""
    flat = array if array.ndim == 2 else _channel(array, 0)
    return np.nan_to_num(flat, posinf=np.inf, neginf=-np.inf) if flat.dtype.kind == "f" else flat


def _channel(array: NDArray[Any], number: int) -> NDArray[Any]:
    """Return a channel (h, w) of (h, w, 3): by OpenCV, in a third of NumPy's time, but for types that it does not know."""
    wide = array.dtype.itemsize > (4 if array.dtype.kind in "ui" else 8)
    return array[..., number] if wide else np.asarray(cv2.extractChannel(array, number))


def _gray(array: NDArray[Any], off: int = 0) -> NDArray[Any]:
    """Return the values of a mask as `_first` does, of 8 bits also where channels are as much `off` as a lossy format makes them.
    Raises `LevelsError` for colours.
    """
    if array.ndim == 2:
        return _first(array)
    red, green, blue = (_channel(array, i) for i in range(3))
    if not (np.array_equal(red, green) and np.array_equal(green, blue)):
        if array.dtype == np.uint8 and max(cv2.absdiff(green, red).max(), cv2.absdiff(green, blue).max()) <= off:
            return green
        held = np.unique(array.reshape(-1, 3), axis=0)
        few = (
            [f"#{''.join(f'{int(value):02x}' for value in colour)}" for colour in held[:4]]
            if array.dtype == np.uint8
            else []
        )
        shown = f", {', '.join(few)}{' and others' if len(held) > 4 else ''}" if few else ""
        raise LevelsError(f"a mask in {len(held)} colours{shown}; say which are foreground: --foreground {_HOW}")
    return _first(array)


def levels(parts: Iterable[NDArray[Any]]) -> Levels:
    """Return the one or two levels of a mask, given in parts of (h, w) or (h, w, 3), ascending.

    Raises:
        LevelsError: for more than two levels, and for 0 with a lower one, of which either may be meant.
        ValueError: for colours, and integers that no float64 holds.
    """
    seen: set[float] = set()
    for part in map(_gray, parts):
        low, high = part.min(), part.max()
        seen |= {low.item(), high.item()} if ((part == low) | (part == high)).all() else set(np.unique(part).tolist())
        if len(seen) > _MOST_LEVELS:
            break
    if len(seen) > 2:
        count = len(seen) if len(seen) <= _MOST_LEVELS else f"more than {_MOST_LEVELS}"
        few = sorted(seen)[:MOST_CLASSES] if len(seen) <= MOST_CLASSES else []
        shown = f" ({', '.join(f'{level:g}' for level in few)})" if few else ""
        raise LevelsError(f"{count} levels{shown} in a mask that should have two; --foreground {_HOW}", few)
    if len(seen) == 2 and max(seen) == 0:
        raise LevelsError(
            f"levels {min(seen):g} and 0, of which either may be foreground: --foreground 0, or nonzero", seen
        )
    if inexact := [level for level in seen if float(level) != level]:
        raise ValueError(
            f"level {max(inexact)} is above 2**53, so that it cannot be told from its neighbours: save the mask as 32-bit or "
            "smaller integers, or --foreground nonzero"
        )
    return tuple(sorted(map(float, seen)))


def mask_of(
    pictures: Iterable[tuple[str, ImageFile]],
    foreground: Foreground,
    frame: int = 0,
    box: Box | None = None,
    turn: int = 1,
) -> tuple[NDArray[np.uint8], dict[str, Seen]]:
    """Return the union of open mask files, or a box of it, and the levels that each file shows.

    Args:
        pictures: the files, each with its name.
        foreground: see `binary`; its two levels are those of the whole mask, also where only a box is read.
        frame: number of the frame in each file.
        box: the part to read.
        turn: the orientation by which files without a tag of their own are turned; 1 for none.

    Returns:
        (h, w) uint8 in {0, 1}, and by name the levels of the whole mask with "binary"; with levels or colours those that were seen;
        with "half" 1 for any foreground.

    Raises:
        ValueError: naming the file that cannot be read or whose size differs from the first one's.
    """
    union: NDArray[np.uint8] | None = None
    size, found = (0, 0), dict[str, Seen]()
    for name, picture in pictures:
        turned = turn if picture.turn == 1 else 1
        height, width = picture.height, picture.width
        own = (width, height) if geometry.swaps_axes(turned) else (height, width)
        try:
            level = None
            if foreground == "binary":
                own_levels = picture.once(("levels", frame), lambda file=picture: levels(file.pieces(frame)))  # type: ignore[misc]
                level, found[name] = foreground_level(own_levels), own_levels
            array = geometry.upright(picture.read(frame), turned) if turned != 1 else picture.read(frame, box)
            array = array[box.slices] if box and turned != 1 else array
            mask = binary(array, foreground, level, picture.span[1])
            if foreground not in ("binary", "nonzero"):
                found[name] = _seen(array, foreground, mask)
        except LevelsError as error:
            raise LevelsError(f"mask {name}: {error}", error.levels) from error
        except ValueError as error:
            raise ValueError(f"mask {name}: {error}") from error
        if union is not None and own != size:
            raise ValueError(
                f"mask {name}: size {wxh(own)} differs from the other masks' {wxh(size)}; save them at one size"
            )
        union, size = mask if union is None else union | mask, own
    if union is None:
        raise ValueError("no mask file")
    return union, found
