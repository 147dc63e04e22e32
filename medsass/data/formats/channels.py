"""Channels of a file with several: which of them are the image, and putting them together."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def check(channels: tuple[int, ...], count: int) -> None:
    """Raise `ValueError` where `channels` is not one or three of a file's `count` channels."""
    if len(channels) not in (1, 3) or max(channels, default=-1) < 0 or not all(-1 <= item < count for item in channels):
        raise ValueError(
            f"channels = {list(channels)} must be one or three of the file's {count}, numbered from 0; -1 is black"
        )


def needed(count: int) -> ValueError:
    """What to raise for a file of `count` channels where nothing says which of them are the image."""
    return ValueError(
        f"{count} channels: say which to read: in [[images]] channels = [i] for gray, or three for red, green and blue"
    )


def composed(channels: tuple[int, ...], plane: Callable[[int], NDArray[Any]]) -> NDArray[Any]:
    """The image of one channel (h, w) or of three (h, w, 3), where `plane(i)` gives (h, w) of channel i."""
    planes = {item: plane(item) for item in set(channels) if item >= 0}
    black = np.zeros_like(next(iter(planes.values())))
    return planes[channels[0]] if len(channels) == 1 else np.stack([planes.get(item, black) for item in channels], -1)
