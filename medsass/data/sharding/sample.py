"""One image of the source, or a part of it, with its mask -> the files that a shard stores for it.

A file that the trainer can decode as it is keeps its bytes, if it may; anything else is encoded anew.
"""

import io
import json
import struct
from dataclasses import dataclass
from typing import Any

import cv2
import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medsass.config import ShardConfig
from medsass.data.formats import opening
from medsass.data.formats.image import MOST_PIXELS, wxh
from medsass.data.sharding.catalog import Sample
from medsass.data.sharding.recipe import Recipe
from medsass.data.sharding.source_file import Opened, Part

_EXTENSIONS = {"png": "png", "jpeg": "jpg", "jpeg2000": "jp2"}
_JPEG_MAGIC = b"\xff\xd8"
_JPEG_QUALITY = 95  # no chroma subsampling
_GRAY16_PNG = (b"\x89PNG\r\n\x1a\n", b"\x10\x00")  # magic, and the header's bit depth and colour type


@dataclass(frozen=True)
class Record:
    """A sample ready to be written: its files by extension, the image first, and what its JSON will say."""

    key: str
    split: str
    files: dict[str, bytes]
    meta: dict[str, Any]

    @property
    def form(self) -> str:
        """The image's extension."""
        return next(iter(self.files))

    @property
    def image(self) -> bytes:
        """The encoded image."""
        return self.files[self.form]

    def complete(self) -> dict[str, bytes]:
        """All files, with the JSON."""
        return {**self.files, "json": json.dumps(self.meta, sort_keys=True, ensure_ascii=False).encode()}


def keepable(data: bytes, config: ShardConfig) -> tuple[str, tuple[int, int], str] | None:
    """Extension, (height, width) and what decoding does to an image file that a shard can hold as it is, else None."""
    if config.size or config.tile:
        return None
    if config.depth == 16:
        gray16 = data.startswith(_GRAY16_PNG[0]) and data[24:26] == _GRAY16_PNG[1]
        kept = ("png", struct.unpack(">II", data[16:24])[::-1], "") if gray16 else None
    else:
        kept = opening.storable(data)
    if kept and kept[1][0] * kept[1][1] > MOST_PIXELS:
        return None  # the full reader says so
    return kept if kept and config.encode in ("keep", {v: k for k, v in _EXTENSIONS.items()}[kept[0]]) else None


def prepare(opened: Opened, part: Part, recipe: Recipe, config: ShardConfig) -> Record:
    """Read, convert, resize to (size, size) unless that is 0, and encode one part of a file; a whole file whose bytes
    are at hand is stored as it is, if that is possible.

    Raises `ValueError` or `OSError` with the reason where the image or a mask cannot be used.
    """
    sample, data = opened.sample, opened.data
    whole = part == Part() and not recipe.images[sample.entry].channels
    as_it_is = keepable(data, config) if data is not None and whole else None
    if as_it_is:
        form, shape, converted = as_it_is
        key, files, own = sample.key, {form: data or b""}, shape
        meta = _meta(sample, key, shape, opened.sha256(part), converted)
    else:
        key, picture = opened.key(part), opened.picture
        array, limits = opened.read(part)
        own, (image, form) = _hw(array), _sized(array, config, data)
        shape, files = _hw(image), {form: _encode(image, form)}
        meta = _meta(sample, key, shape, opened.sha256(part), _what(picture.converted, picture.dtype, array.dtype))
        if limits:
            meta["range"] = limits
        if part.box:
            box = {"y": part.box.y, "x": part.box.x, "height": part.box.height, "width": part.box.width}
            meta["tile"] = {**box, "level": config.level, "of": {"height": picture.height, "width": picture.width}}
        if opened.several:
            meta["frame"] = part.frame
    mask = opened.mask(part)
    if mask is not None:
        if _hw(mask) != own and not recipe.masks.resize:
            name = sample.masks[0].rpartition("/")[2]
            raise ValueError(f"mask {name}: size {wxh(mask.shape)} differs from the image's {wxh(own)}")
        if _hw(mask) != shape:
            mask = cv2.resize(mask, shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT).astype(np.uint8)
        files["mask.png"] = (opened.mask_file(mask) if config.encode == "keep" else None) or _encode(
            mask * np.uint8(255), "png"
        )
        meta["mask_coverage"] = round(np.count_nonzero(mask) / mask.size, 6)
    return Record(key, sample.split, files, meta)


def _meta(sample: Sample, key: str, shape: tuple[int, int], sha256: str, converted: str = "") -> dict[str, Any]:
    return {
        "key": key,
        "source": sample.image,
        "width": shape[1],
        "height": shape[0],
        "class": sample.label,
        "group": sample.group,
        "converted": converted,
        "sha256": sha256,
    }


def _what(converted: str, dtype: np.dtype[Any], stored: np.dtype[Any]) -> str:
    deeper = f"{dtype} to {stored.itemsize * 8} bit" if dtype != stored else ""
    return ", ".join(filter(None, (converted, deeper)))


def _hw(array: NDArray[Any]) -> tuple[int, int]:
    return int(array.shape[0]), int(array.shape[1])


def _sized(array: NDArray[Any], config: ShardConfig, data: bytes | None) -> tuple[NDArray[Any], str]:
    """The image at its stored size, and its extension. Area averages where it shrinks, bicubic where it grows."""
    size, jpeg = config.size, data is not None and data.startswith(_JPEG_MAGIC)
    form = _EXTENSIONS.get(config.encode) or ("jpg" if size and jpeg and config.depth == 8 else "png")
    if not size:
        return array, form
    way = cv2.INTER_AREA if min(_hw(array)) >= size else cv2.INTER_CUBIC
    return cv2.resize(array, (size, size), interpolation=way).astype(array.dtype), form


def _encode(array: NDArray[Any], form: str) -> bytes:
    if form == "jp2":
        return bytes(imagecodecs.jpeg2k_encode(array, level=0, codecformat="jp2", reversible=True))
    buffer = io.BytesIO()
    if form == "jpg":
        Image.fromarray(array).save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    else:
        Image.fromarray(array).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()
