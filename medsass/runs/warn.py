"""What a user should know before labels are learnt: signs that no threshold finds objects in these images."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

# Of the chosen labels, as means over the images. On four sets (dermoscopy, X-rays, two kinds of fluorescence; some 50 images
# each) the best labels of either side were above these where their IoU was 0.64 or more, and below one where it was less.
SIGNS = {
    "contrast": (0.75, "their outlines hardly follow edges of the image"),
    "size": (0.70, "they cover nearly nothing, or nearly all, of many images"),
}


def doubts(values: Mapping[str, NDArray[np.float64]], chosen: int) -> list[str]:
    """A sentence for each sign that the chosen labels show. values: by criterion (C,)."""
    found = [
        f"{what} ({name} {values[name][chosen]:.2f}, below {least:.2f})"
        for name, (least, what) in SIGNS.items()
        if name in values and values[name][chosen] < least
    ]
    if not found:
        return []
    return [
        f"even the best labels may be of little use: {'; '.join(found)}. Look at them (--sheet) before you train; "
        "where no threshold finds the objects, a few masks and --method supervised will do more"
    ]
