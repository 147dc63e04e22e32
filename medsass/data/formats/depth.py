"""Pixels of any depth -> 8 or 16 bits by stated limits."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsass.data.formats.image import ImageFile

PERCENTILES = (0.5, 99.5)

_NOT_FINITE = "pixels hold values that are not finite (NaN or infinity); replace them and save it anew"
Limits = tuple[float, float]


def needs_scaling(picture: ImageFile, depth: int, window: Limits | None = None) -> bool:
    """Return whether pixels must be mapped by `scaled` to be stored with `depth` bits, 8 or 16."""
    return bool(window or picture.padding) or picture.dtype != (np.uint8 if depth == 8 else np.uint16)


def limits(picture: ImageFile, frame: int, rule: str, window: Limits | None = None) -> list[Limits]:
    """Find the values of a frame, or of all frames where they have a `common` range, that become black and white.

    Padding has no part in them.

    Args:
        picture: the open file; limits that it states itself go before "minmax" and "percentile".
        frame: number of the frame.
        rule: "minmax": the least and the greatest value. "percentile": the 0.5 and 99.5 percentiles as
            `numpy.percentile` gives them with method "linear", or "minmax" where they are equal. "type": all that the
            file's pixel type can hold, 0 and 1 for floats. 8-bit pixels keep their values.
        window: (low, high), such as a window of CT in Hounsfield units, of values as the file has them; it goes before everything
            else.

    Returns:
        One pair (low, high), or one for each of three channels that were chosen one by one.

    Raises:
        ValueError: for values that are not finite, and an unknown rule.
    """
    count = 3 if picture.per_channel else 1
    if window:
        low, high = window
        return [window if picture.mirror is None else (picture.mirror - high, picture.mirror - low)] * count
    if rule == "type" or picture.dtype == np.uint8:
        return [picture.span] * count
    if picture.limits:
        return [picture.limits] * count
    if rule not in ("minmax", "percentile"):
        raise ValueError(f"range must be minmax, percentile or type; got '{rule}'")
    key = ("limits", rule, None if picture.common else frame)
    return picture.once(key, lambda: _measured(picture, frame, rule, count))


def _measured(picture: ImageFile, frame: int, rule: str, count: int) -> list[Limits]:
    found = _percentiles(picture, frame, count) if rule == "percentile" else [(0.0, 0.0)] * count
    if all(low < high for low, high in found):
        return found
    ends = [(piece.min(axis=0), piece.max(axis=0)) for piece in _inside(picture, frame, count) if len(piece)]
    if not ends:
        return [(0.0, 0.0)] * count
    lows, highs = np.min([low for low, _ in ends], axis=0), np.max([high for _, high in ends], axis=0)
    extremes = [_finite(float(low), float(high)) for low, high in zip(lows, highs, strict=True)]
    return [pair if pair[0] < pair[1] else own for pair, own in zip(found, extremes, strict=True)]


def _percentiles(picture: ImageFile, frame: int, count: int) -> list[Limits]:
    pieces = _inside(picture, frame, count)
    if picture.dtype.kind in "ui" and picture.dtype.itemsize <= 2:
        lowest, bins = int(np.iinfo(picture.dtype).min), 1 << 8 * picture.dtype.itemsize
        counts = np.zeros((count, bins), np.int64)
        for flat in pieces:
            for channel in range(count):
                counts[channel] += np.bincount(flat[:, channel].astype(np.int64) - lowest, minlength=bins)
        return [_of_histogram(row, lowest) if row.any() else (0.0, 0.0) for row in counts]
    return [_of_values(column) for column in np.concatenate(list(pieces)).T]


def _inside(picture: ImageFile, frame: int, count: int) -> Iterator[NDArray[Any]]:
    """Yield the values (n, count) that set the range of a frame, without padding."""
    for piece in picture.values(frame):
        flat = piece.reshape(-1, count)
        yield flat if picture.padding is None else flat[~outside(flat, picture.padding).any(axis=1)]


def outside(array: NDArray[Any], padding: Limits) -> NDArray[np.bool_]:
    """Return which pixels of an array, of any shape, are padding: within (low, high), or NaN where these are."""
    low, high = padding
    return np.isnan(array) if np.isnan(low) else (array >= low) & (array <= high)


def _of_values(values: NDArray[Any]) -> Limits:
    """Return the `PERCENTILES` of (n,) values as `numpy.percentile` does, without a float64 copy of them."""
    if not values.size:
        return 0.0, 0.0
    _finite(float(values.min()), float(values.max()))
    places = [percentile / 100 * (values.size - 1) for percentile in PERCENTILES]
    near = [min(int(place) + step, values.size - 1) for place in places for step in (0, 1)]
    pairs = np.partition(values, near)[near].astype(np.float64).reshape(2, 2)
    low, high = (float(pair[0] + (pair[1] - pair[0]) * (place % 1)) for pair, place in zip(pairs, places, strict=True))
    return low, high


def _of_histogram(counts: NDArray[np.int64], lowest: int) -> Limits:
    """Return the `PERCENTILES` as `numpy.percentile` with method "linear" does, from a histogram.

    counts: (bins,) how often the values `lowest`, `lowest` + 1, ... occur.
    """
    below, ends = np.cumsum(counts), []
    last = int(below[-1]) - 1
    for percentile in PERCENTILES:
        place = percentile / 100 * last
        first = int(place)
        before, after = (int(np.searchsorted(below, at, "right")) + lowest for at in (first, min(first + 1, last)))
        ends.append(before + (after - before) * (place - first))
    return ends[0], ends[1]


def _finite(low: float, high: float) -> Limits:
    if not np.isfinite([low, high]).all():
        raise ValueError(_NOT_FINITE)
    return low, high


def scaled(array: NDArray[Any], limits: Sequence[Limits], depth: int, padding: Limits | None = None) -> NDArray[Any]:
    """Map low..high linearly to 0..2**depth - 1, rounded half to even and clipped.

    Args:
        array: (h, w) or (h, w, 3).
        limits: one (low, high), or one for each channel; where low equals high all becomes 0.
        depth: 8 gives uint8, 16 uint16.
        padding: pixels within (low, high), or NaN, become 0.

    Raises:
        ValueError: for values that are not finite.
    """
    if len(limits) > 1:
        return np.stack([scaled(array[..., i], [pair], depth, padding) for i, pair in enumerate(limits)], axis=-1)
    ((low, high),) = limits
    kind, top = np.dtype(np.uint8 if depth == 8 else np.uint16), (1 << depth) - 1
    if not high > low:
        return np.zeros(array.shape, kind)
    if padding is not None and (out := outside(array, padding)).any():
        array = np.where(out, low, array)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(_NOT_FINITE)
    by_table = array.dtype.kind in "ui" and array.dtype.itemsize <= 2 and array.size > 1 << 16
    least = int(np.iinfo(array.dtype).min) if by_table else 0
    values = np.arange(least, np.iinfo(array.dtype).max + 1) if by_table else array
    mapped = np.rint(np.clip((values.astype(np.float64) - low) * top / (high - low), 0, top)).astype(kind)
    return np.asarray(mapped[array if least == 0 else array.astype(np.int64) - least]) if by_table else mapped


def to_8bit(array: NDArray[Any], padding: Limits | None = None) -> NDArray[np.uint8]:
    """Map the image's own [minimum, maximum], over all channels, linearly to [0, 255]; padding and a constant image become 0.

    Raises:
        ValueError: for values that are not finite.
    """
    inside = array if padding is None else array[~outside(array, padding)]
    ends = _finite(float(inside.min()), float(inside.max())) if inside.size else (0.0, 0.0)
    return np.asarray(scaled(array, [ends], 8, padding))
