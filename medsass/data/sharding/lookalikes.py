"""Images that look the same though their bytes differ: resized, compressed again, a little brighter.

The perceptual hash is ImageHash's pHash (64 bits: the signs, about their median, of the 8 x 8 lowest frequencies of the
image's cosine transform at 32 x 32). Two images count as alike when at most `MOST` bits differ. Of the pairs that ISIC
2017 holds, 8 of the 9 that differ in at most 2 bits show one lesion twice; among those that differ in 4, lesions and
chests of different people begin to prevail.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medsass.data.sharding.journal import Journal

MOST = 2


def look(image: NDArray[Any]) -> int:
    """The 64-bit pHash, as a signed whole number, of an image (H, W, 1 or 3) uint8 or uint16.

    Raises `ImportError` that names the extra to install.
    """
    try:
        import imagehash
    except ImportError as error:
        raise ImportError("--near-duplicates needs ImageHash: pip install 'medsass[duplicates]'") from error
    if image.dtype != np.uint8:
        image = (image >> 8).astype(np.uint8)
    bits = imagehash.phash(Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)).hash
    return int(np.packbits(bits.ravel()).view(">i8")[0])


class Lookalikes:
    """Finds images of one split that look like one stored in another split before."""

    def __init__(self, journal: Journal, split: str) -> None:
        self._looks, self._names = journal.looks(split)

    def find(self, look: int) -> tuple[str, int] | None:
        """The nearest "split/key" and in how many bits it differs, where these are at most `MOST`."""
        if not self._names:
            return None
        distance = np.bitwise_count(self._looks ^ np.int64(look))
        nearest = int(distance.argmin())
        return (self._names[nearest], int(distance[nearest])) if distance[nearest] <= MOST else None
