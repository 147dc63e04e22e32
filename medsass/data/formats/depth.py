"""What becomes of pixels: values of any depth -> 8 or 16 bits by stated limits, mask files -> {0, 1}."""

from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsass.data.formats.geometry import Box
from medsass.data.formats.image import ImageFile, wxh

PERCENTILES = (0.5, 99.5)

_MOST_LEVELS = 65536  # that are counted

Limits = tuple[float, float]
Foreground = str | tuple[int, ...]


def needs_scaling(dtype: np.dtype[Any], depth: int) -> bool:
    """Whether pixels of this type must be mapped by `scaled` to be stored with `depth` bits, 8 or 16."""
    return dtype != (np.uint8 if depth == 8 else np.uint16)


def limits(picture: ImageFile, frame: int, rule: str) -> list[Limits]:
    """The values of a frame that become black and white: one pair, or one for each channel that was chosen by itself.

    "minmax": the least and the greatest value. "percentile": the 0.5 and 99.5 percentiles as `numpy.percentile` gives
    them with method "linear", or "minmax" where they are equal. "type": all that the file's pixel type can hold, 0 and 1
    for floats. Limits that the file itself states go before the first two. Raises `ValueError` for values that are not
    finite.
    """
    count = 3 if picture.per_channel else 1
    if rule == "type":
        return [picture.span] * count
    if picture.limits:
        return [picture.limits] * count
    if rule == "minmax":
        return _extremes(picture, frame, count)
    if rule != "percentile":
        raise ValueError(f"range must be minmax, percentile or type; got '{rule}'")
    if picture.dtype.kind in "ui" and picture.dtype.itemsize <= 2:
        found = [_percentiles(counts, picture.dtype) for counts in _histograms(picture, frame, count)]
    else:
        whole = picture.read(frame)
        parts = [whole[..., i] for i in range(3)] if count == 3 else [whole]
        for part in parts:
            _finite(float(part.min()), float(part.max()))
        ends = [np.percentile(part.astype(np.float64), PERCENTILES) for part in parts]
        found = [(float(low), float(high)) for low, high in ends]
    if all(low < high for low, high in found):
        return found
    return [
        pair if pair[0] < pair[1] else own for pair, own in zip(found, _extremes(picture, frame, count), strict=True)
    ]


def _extremes(picture: ImageFile, frame: int, count: int) -> list[Limits]:
    pairs = []
    for box in picture.blocks() if picture.streams else [None]:
        values = picture.read(frame, box).reshape(-1, count)
        pairs.append((values.min(axis=0), values.max(axis=0)))
    lows, highs = (np.min([low for low, _ in pairs], axis=0), np.max([high for _, high in pairs], axis=0))
    return [_finite(float(low), float(high)) for low, high in zip(lows, highs, strict=True)]


def _finite(low: float, high: float) -> Limits:
    if not np.isfinite([low, high]).all():
        raise ValueError("pixels hold values that are not finite (NaN or infinity)")
    return low, high


def _histograms(picture: ImageFile, frame: int, count: int) -> NDArray[np.int64]:
    """(count, 2**bits) int64: how often each value of the type occurs."""
    low, bins = np.iinfo(picture.dtype).min, 1 << 8 * picture.dtype.itemsize
    total = np.zeros((count, bins), np.int64)
    for box in picture.blocks() if picture.streams else [None]:
        values = picture.read(frame, box).reshape(-1, count)
        for channel in range(count):
            total[channel] += np.bincount(values[:, channel].astype(np.int64) - low, minlength=bins)
    return total


def _percentiles(counts: NDArray[np.int64], dtype: np.dtype[Any]) -> Limits:
    """As `numpy.percentile` with method "linear", from a histogram."""
    below, lowest = np.cumsum(counts), int(np.iinfo(dtype).min)
    ends = []
    for percentile in PERCENTILES:
        place = percentile / 100 * (int(below[-1]) - 1)
        first = int(place)
        before, after = (
            int(np.searchsorted(below, at, "right")) + lowest for at in (first, min(first + 1, int(below[-1]) - 1))
        )
        ends.append(before + (after - before) * (place - first))
    return ends[0], ends[1]


def scaled(array: NDArray[Any], limits: Sequence[Limits], depth: int) -> NDArray[Any]:
    """Linear map of low..high to 0..2**depth - 1, rounded half to even, clipped: uint8 (depth 8) or uint16 (depth 16).

    array: (h, w) or (h, w, 3). limits: one (low, high), or one for each channel; where low equals high all becomes 0.
    Raises `ValueError` for values that are not finite.
    """
    if len(limits) > 1:
        return np.stack([scaled(array[..., i], [pair], depth) for i, pair in enumerate(limits)], axis=-1)
    ((low, high),) = limits
    kind = np.dtype(np.uint8 if depth == 8 else np.uint16)
    if not high > low:
        return np.zeros(array.shape, kind)
    if array.dtype.kind in "ui" and array.dtype.itemsize <= 2 and array.size > 1 << 16:
        span = np.iinfo(array.dtype)
        table = _mapped(np.arange(span.min, span.max + 1), low, high, depth).astype(kind)
        return np.asarray(table[array if span.min == 0 else array.astype(np.int64) - span.min])
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError("pixels hold values that are not finite (NaN or infinity)")
    return _mapped(array, low, high, depth).astype(kind)


def _mapped(values: NDArray[Any], low: float, high: float, depth: int) -> NDArray[np.float64]:
    top = (1 << depth) - 1
    return np.rint(np.clip((values.astype(np.float64) - low) * top / (high - low), 0, top))


def to_8bit(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Linear map of the image's own [minimum, maximum], over all channels, to [0, 255], rounded. A constant image
    becomes 0. Raises `ValueError` where a value is not finite.
    """
    return np.asarray(scaled(array, [_finite(float(array.min()), float(array.max()))], 8))


def binary(array: NDArray[Any], foreground: Foreground, level: float | None = None) -> NDArray[np.uint8]:
    """(h, w) uint8 in {0, 1} of a mask (h, w) or (h, w, 3), which counts by its largest channel.

    foreground: "binary", the higher of at most two levels (a constant mask is foreground unless it is 0); "nonzero",
    what is above 0; "half", what is above half of the type's range; or the values themselves. level: of the foreground,
    with "binary", where `array` is a part of a mask in which `upper_level` found it. Raises `ValueError` for a mask of
    more than two levels.
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
    return np.asarray(
        reduce(np.maximum, (array[..., i] for i in range(array.shape[2])))
    )  # max(axis=2) takes 40 times as long


def upper_level(parts: Iterable[NDArray[Any]]) -> float:
    """The higher of the two levels of a mask, given in parts; 1 where all is 0. Raises `ValueError` for more levels."""
    seen: set[float] = set()
    for part in parts:
        low, high = part.min(), part.max()
        seen |= {*(low, high)} if ((part == low) | (part == high)).all() else set(np.unique(part).tolist())
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
    """(h, w) uint8 in {0, 1}: the union of open mask files, each with its name, or a box of it. See `binary`; two
    levels are looked for in the whole mask, also where only a box is read.

    Raises `ValueError` naming the file that cannot be read or whose size differs from the first one's.
    """
    union: NDArray[np.uint8] | None = None
    size = (0, 0)
    for name, picture in pictures:
        try:
            array = picture.read(frame, box)
            level = _level(picture, frame) if foreground == "binary" and box else None
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


def _level(picture: ImageFile, frame: int) -> float:
    boxes = picture.blocks() if picture.streams else [None]
    return picture.once(("upper level", frame), lambda: upper_level(_flat(picture.read(frame, box)) for box in boxes))
