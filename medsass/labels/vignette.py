"""The field of view: find the dark area around the picture, which is no part of it.

Dermoscopes and endoscopes leave the corners dark, collimators the margins of X-rays. A threshold would take such pixels
for a class of their own.
"""

import torch

from medsass.labels.morphology import dilated

DARK = 3  # a pixel is dark at a level of at most 1/DARK of the image's mean
MOST = 2  # at most 1/MOST of the image is outside of the field of view,
STRAY = 4  # and at most 1/STRAY of the dark pixels lie inside of it
MARGIN = 4.0  # pixels of a 224-pixel image that the field of view's soft edge takes


def outside(gray: torch.Tensor, margin: int) -> torch.Tensor:
    """Mark the pixels, (N, H, W) uint8 in {0, 1}, of `gray` (N, H, W) uint8 that are outside of the field of view.

    These are the dark pixels that can be reached from the image's border in a straight line, along a row or a column,
    through dark pixels only, and what lies within `margin` pixels of one: everything around a field that is convex along
    both axes, such as a disk or a rectangle. If such pixels cover more than half of the image, or miss more than a quarter
    of all dark pixels, or include no corner, the dark is the picture's own background, as in fluorescence microscopy, and
    nothing is outside.
    """
    count, height, width = gray.shape
    pixels = height * width
    level = gray.sum((1, 2), dtype=torch.int64) // (DARK * pixels)
    dark = gray <= level[:, None, None]
    light, found = (~dark).int(), torch.zeros_like(dark)
    for axis in (1, 2):  # pixels from which all pixels up to one end of the axis, themselves included, are dark
        before = light.cumsum(axis, dtype=torch.int32)
        after = before.narrow(axis, before.shape[axis] - 1, 1) - before + light
        found |= (before == 0) | (after == 0)
    area, darks = found.sum((1, 2)), dark.sum((1, 2))
    corners = found[:, :: max(1, height - 1), :: max(1, width - 1)].flatten(1).any(1)
    shown = corners & (area * MOST <= pixels) & ((darks - area) * STRAY <= darks)
    return dilated((found & shown.view(count, 1, 1)).byte(), margin)


def filled(gray: torch.Tensor, outside: torch.Tensor) -> torch.Tensor:
    """Replace each pixel of `gray` (N, H, W) in `outside` by one of the others, taken evenly in scan order.

    The levels of the whole are then distributed as those of the field of view, so that a threshold of the whole is one of
    the field; and the polarity `auto`, which looks at the image's border, learns nothing new from the filling. With o
    replaced pixels, numbered k = 0, 1, ..., and m others, pixel k takes the level of other (k m) // o.
    """
    levels, out = gray.flatten(1), outside.flatten(1).long()
    pixels = levels.shape[1]
    replaced, others = out.cumsum(1), (1 - out).cumsum(1)
    place = torch.where(out > 0, pixels, others - 1)
    compact = levels.new_zeros((len(levels), pixels + 1)).scatter_(1, place, levels)
    source = (replaced - 1).clamp_min(0) * others[:, -1:] // replaced[:, -1:].clamp_min(1)
    return torch.where(out > 0, compact.gather(1, source), levels).view(gray.shape)
