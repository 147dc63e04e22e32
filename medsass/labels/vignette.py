"""The field of view: what of an image is no picture but the dark around it.

Dermoscopes and endoscopes leave the corners dark, collimators the margins of X-rays. Such pixels would be a class of
their own to a threshold.
"""

import torch

from medsass.labels.morphology import dilated

DARK = 3  # a pixel is dark at a level of at most 1/DARK of the image's mean
MOST = 2  # at most 1/MOST of the image is outside of the field of view,
STRAY = 4  # and at most 1/STRAY of the dark pixels lie inside of it
MARGIN = 4.0  # pixels of a 224-pixel image that the field of view's soft edge takes


def outside(gray: torch.Tensor, margin: int) -> torch.Tensor:
    """(N, H, W) uint8 in {0, 1}: 1 where a pixel of `gray` (N, H, W) uint8 is not of the field of view.

    That is every dark pixel that is reached from the image's border in a straight line, along its row or its column,
    through dark pixels alone, and what lies within `margin` pixels of one: all around a field that is convex along both
    axes, such as a disk or a rectangle. Where such pixels cover more than half of the image, or more than a quarter of
    all dark pixels is not among them, or none is a corner, the dark is the picture's own ground, as in fluorescence
    microscopy, and nothing is outside.
    """
    count, height, width = gray.shape
    pixels = height * width
    level = gray.sum((1, 2), dtype=torch.int64) // (DARK * pixels)
    dark = gray <= level[:, None, None]
    found = _reached(dark, 1) | _reached(dark, 2)
    area, darks = found.sum((1, 2)), dark.sum((1, 2))
    corners = found[:, :: max(1, height - 1), :: max(1, width - 1)].flatten(1).any(1)
    shown = corners & (area * MOST <= pixels) & ((darks - area) * STRAY <= darks)
    return dilated((found & shown.view(count, 1, 1)).byte(), margin)


def _reached(dark: torch.Tensor, axis: int) -> torch.Tensor:
    """Pixels from which all up to one end of the axis, themselves included, are dark."""
    light = (~dark).int()
    before = light.cumsum(axis, dtype=torch.int32)
    after = before.narrow(axis, before.shape[axis] - 1, 1) - before + light
    return (before == 0) | (after == 0)


def filled(gray: torch.Tensor, outside: torch.Tensor) -> torch.Tensor:
    """`gray` (N, H, W) with each pixel of `outside` replaced by one of the others, which are taken evenly in scan order.

    So the levels of the whole are distributed as those of the field of view, and a threshold of the whole is one of it; to
    the polarity `auto`, which looks at the image's border, what is filled in says nothing new. With
    k = 0, 1, ... counting the replaced pixels, o of them, and m the others: pixel k takes the level of other (k m) // o.
    """
    levels, out = gray.flatten(1), outside.flatten(1).long()
    pixels = levels.shape[1]
    replaced, others = out.cumsum(1), (1 - out).cumsum(1)
    place = torch.where(out > 0, pixels, others - 1)
    compact = levels.new_zeros((len(levels), pixels + 1)).scatter_(1, place, levels)
    source = (replaced - 1).clamp_min(0) * others[:, -1:] // replaced[:, -1:].clamp_min(1)
    return torch.where(out > 0, compact.gather(1, source), levels).view(gray.shape)
