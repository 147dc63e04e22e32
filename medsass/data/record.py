"""One image of the source, with its masks -> the files that a shard stores for it.

A file that the trainer can decode as it is keeps its bytes; anything else is re-encoded without loss as PNG.
"""

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medsass.data import decoder, sources
from medsass.data.catalog import Sample
from medsass.data.recipe import Masks

_JPEG_MAGIC = b"\xff\xd8"
_JPEG_QUALITY = 95  # for JPEG images that are resized; no chroma subsampling


@dataclass(frozen=True)
class Record:
    """A sample ready to be written: its files by extension, and what its JSON says."""

    key: str
    split: str
    files: dict[str, bytes]
    meta: dict[str, Any]


def prepare(sample: Sample, source: Path, masks: Masks, size: int) -> Record:
    """Read, check and encode one sample, resized to (size, size) unless `size` is 0.

    Raises `ValueError` or `OSError` with the reason where the image or a mask cannot be used.
    """
    if masks.required and not sample.masks:
        raise ValueError("image without a mask")
    data = (source / sample.image).read_bytes()
    as_it_is = sources.storable(data) if not size else None
    if as_it_is:
        suffix, own = as_it_is
        stored, shape, converted = data, own, ""
    else:
        pixels = sources.from_bytes(data)
        own, converted = _hw(pixels.array), pixels.converted
        image = _resize(pixels.array, size) if size else pixels.array
        suffix = "jpg" if size and data.startswith(_JPEG_MAGIC) else "png"
        stored, shape = _encode(image, suffix), _hw(image)
    try:
        seen = _hw(decoder.decode(stored))
    except ValueError:
        sources.from_bytes(data)  # says more exactly what is wrong, if it finds it too
        raise
    if seen != shape:
        raise ValueError(f"the training decoder sees {sources.wxh(seen)} pixels, the file says {sources.wxh(shape)}")
    files = {suffix: stored}
    meta = {
        "key": sample.key,
        "source": sample.image,
        "width": shape[1],
        "height": shape[0],
        "class": sample.label,
        "group": sample.group,
        "converted": converted,
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    if sample.masks:
        mask = sources.read_mask([source / path for path in sample.masks], masks.foreground)
        if _hw(mask) != own and not masks.resize:
            name = Path(sample.masks[0]).name
            raise ValueError(f"mask {name}: size {sources.wxh(mask.shape)} differs from the image's {sources.wxh(own)}")
        if _hw(mask) != shape:
            mask = cv2.resize(mask, shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT).astype(np.uint8)
        files["mask.png"] = _encode(mask * np.uint8(255), "png")
        meta["mask_coverage"] = round(float(mask.mean()), 6)
    files["json"] = json.dumps(meta, sort_keys=True, ensure_ascii=False).encode()
    return Record(sample.key, sample.split, files, meta)


def _hw(array: NDArray[np.uint8]) -> tuple[int, int]:
    return int(array.shape[0]), int(array.shape[1])


def _resize(array: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """To (size, size): area averages where it shrinks, bicubic where it grows."""
    way = cv2.INTER_AREA if min(_hw(array)) >= size else cv2.INTER_CUBIC
    return cv2.resize(array, (size, size), interpolation=way).astype(np.uint8)


def _encode(array: NDArray[np.uint8], suffix: str) -> bytes:
    buffer = io.BytesIO()
    if suffix == "jpg":
        Image.fromarray(array).save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    else:
        Image.fromarray(array).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()
