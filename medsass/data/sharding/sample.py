"""The files that a shard stores for an image, or for a region of one: its encoded image, mask and JSON.

A file that the trainer can decode keeps its bytes where the options allow it; anything else is encoded anew.
"""

import hashlib
import io
import json
import struct
from dataclasses import asdict, dataclass, field
from typing import Any

import cv2
import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medsass.config import ShardConfig
from medsass.data.formats import geometry, opening
from medsass.data.formats.image import MOST_PIXELS, wxh
from medsass.data.formats.mask import BRIGHT_ZERO, Seen
from medsass.data.formats.photos import integrity, plain
from medsass.data.sharding.source_file import Region, SourceFile

_EXTENSIONS = {"png": "png", "jpeg": "jpg", "jpeg2000": "jp2"}
_JPEG_MAGIC = b"\xff\xd8"
OWN_RANGE = " by its own range"  # of values in physical units
_AIR = -500  # values below it are of CT, in Hounsfield units
MASK_BRIGHT = f"mask: {BRIGHT_ZERO}"
MASK_STRANGE = "mask: another PatientID"
APART = "mask not turned"  # with an image that was
_PROPORTION = 0.02  # by which the proportions of a mask may differ from the image's
_JPEG_QUALITY = 95  # no chroma subsampling
_GRAY16_PNG = (b"\x89PNG\r\n\x1a\n", b"\x10\x00")  # magic, and the header's bit depth and colour type


@dataclass(frozen=True)
class Sample:
    """A sample ready to be written.

    Attributes:
        key, split: as in the catalog, the key with the region's place.
        files: by extension.
        extension: that of the image.
        meta: the content of the JSON.
        levels: that the mask files show, by name; see `mask.mask_of`.
        sure: whether the image is a PNG that any decoder reads alike.
        framed: whether the whole border is foreground in its mask, which has some ground.
    """

    key: str
    split: str
    files: dict[str, bytes]
    extension: str
    meta: dict[str, Any]
    levels: dict[str, Seen] = field(default_factory=dict)
    sure: bool = False
    framed: bool = False


def encode(file: SourceFile, region: Region | None = None) -> Sample:
    """Make a region's sample: read, convert, resize to (size, size) unless that is 0, and encode. A whole file, without a
    region, keeps its bytes where that is possible.

    Raises `ValueError` or `OSError` with the reason where the image or a mask cannot be used.
    """
    entry, config = file.entry, file.config
    alone, region = region is None, region or Region()
    images = file.recipe.images[entry.table]
    whole = region == Region() and not (
        images.channels or file.recipe.window or config.level or isinstance(images.frames, int)
    )
    unchanged = storable(file.data, config) if file.data is not None and whole and (alone or not file.several) else None
    meta: dict[str, Any] = {"source": entry.image, "class": entry.label, "group": entry.group}
    if unchanged:
        extension, size, converted = unchanged
        key, image, read_size = entry.key, file.data or b"", size
        sha256 = hashlib.sha256(image).hexdigest()
        sure = integrity.check(image, extension)
    else:
        if alone and file.several:
            raise ValueError(
                f"{file.image.frames} frames under the name of a photograph; name it as what it is, such as .tif"
            )
        key, sha256 = file.key(region), file.sha256(region)
        array, limits = file.read(region)
        resized, extension = _resize(array, config, file.data)
        image, size, read_size = _encode(resized, extension), resized.shape[:2], array.shape[:2]
        sure = extension == "png" and resized.dtype == np.uint8
        deeper = f"{file.image.dtype} to {array.itemsize * 8} bit" if file.image.dtype != array.dtype else ""
        if limits and not (file.image.limits or file.recipe.window):
            physical = "rescaled" in file.image.converted or limits[0][0] < _AIR
            deeper += OWN_RANGE if deeper and physical else ""
        turn, (height, width) = file.turned_apart, array.shape[:2]
        told = (
            geometry.swaps_axes(turn) and height != width and not file.recipe.masks.resize
        )  # by the size, which is checked
        apart = APART if turn != 1 and not told else ""
        converted = ", ".join(filter(None, (file.image.converted, apart, deeper)))
        if limits:
            meta["range"] = limits
        if region.box:
            whole_size = {"height": file.image.height, "width": file.image.width}
            meta["tile"] = {**asdict(region.box), "level": config.level, "of": whole_size}
        meta["source"] = file.source(region)
        if file.several:
            meta["frame"] = file.image.indices[region.frame]
    meta |= {"key": key, "width": size[1], "height": size[0], "converted": converted, "sha256": sha256}
    files = {extension: image}
    found, levels, framed = file.mask(region), dict[str, Seen](), False
    if found is not None:
        mask, levels = _fit_mask(found[0], file, read_size, size), found[1]
        framed = bool(
            mask[0, 0] and mask[-1, -1] and all(end.all() for end in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))
        )
        kept = file.mask_bytes(mask) if config.encode == "keep" else None
        files["mask.png"] = kept or _encode_mask(mask)
        meta["mask_coverage"] = round(np.count_nonzero(mask) / mask.size, 6)
        bright = (
            file.recipe.masks.foreground == "binary" and file.zero_is_bright
        )  # and no option says what is foreground
        told = converted, MASK_BRIGHT * bright, MASK_STRANGE * file.has_strange_mask
        meta["converted"] = ", ".join(filter(None, told))
    files["json"] = json.dumps(meta, sort_keys=True, ensure_ascii=False).encode()
    return Sample(key, entry.split, files, extension, meta, levels, sure, framed)


def storable(data: bytes, config: ShardConfig) -> tuple[str, tuple[int, ...], str] | None:
    """Return extension, (height, width) and what decoding converts, of an image file whose bytes a shard can store
    unchanged; None otherwise.
    """
    if config.size or config.tile:
        return None
    if config.depth == 16:
        gray16 = data.startswith(_GRAY16_PNG[0]) and data[24:26] == _GRAY16_PNG[1] and not plain.names(data, plain.EXIF)
        found = ("png", struct.unpack(">II", data[16:24])[::-1], "") if gray16 else None
    else:
        found = opening.storable(data)
    if not found or found[1][0] * found[1][1] > MOST_PIXELS:  # the full reader refuses these, with a reason
        return None
    return found if config.encode == "keep" or found[0] == _EXTENSIONS[config.encode] else None


def _fit_mask(
    mask: NDArray[np.uint8], file: SourceFile, read_size: tuple[int, ...], size: tuple[int, ...]
) -> NDArray[np.uint8]:
    """Resize a mask to the (height, width) that is stored; only the recipe allows one that differs from `read_size`."""
    turned = geometry.swaps_axes(file.turned_apart) and _alike(mask.shape[::-1], read_size)
    turned |= mask.shape == read_size[::-1]
    if mask.shape != read_size and (not file.recipe.masks.resize or (turned and not _alike(mask.shape, read_size))):
        name, seen, own = file.entry.masks[0], wxh(mask.shape), wxh(read_size)
        by_tag = geometry.swaps_axes(file.turned_apart)
        turn = "--turn-masks turns it as the image's tag says" if by_tag else "it lies on its side: turn it"
        remedy = turn if turned else "--resize-masks resizes it"
        raise ValueError(f"mask {name}: size {seen} differs from the image's {own}; {remedy}")
    if mask.shape == size:
        return mask
    return cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT).astype(np.uint8)


def _alike(shape: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Return whether two images have the same proportions, within two hundredths."""
    return abs(shape[0] * other[1] / (shape[1] * other[0]) - 1) < _PROPORTION


def _resize(array: NDArray[Any], config: ShardConfig, data: bytes | None) -> tuple[NDArray[Any], str]:
    """Return the image at its stored size, and its extension. Shrinking averages areas, growing is bicubic."""
    size, jpeg = config.size, data is not None and data.startswith(_JPEG_MAGIC)
    extension = _EXTENSIONS.get(config.encode) or ("jpg" if size and jpeg and config.depth == 8 else "png")
    if not size:
        return array, extension
    interpolation = cv2.INTER_AREA if min(array.shape[:2]) >= size else cv2.INTER_CUBIC
    return cv2.resize(array, (size, size), interpolation=interpolation).astype(array.dtype), extension


def _encode(array: NDArray[Any], extension: str) -> bytes:
    if extension == "jp2":
        return bytes(imagecodecs.jpeg2k_encode(array, level=0, codecformat="jp2", reversible=True))
    buffer = io.BytesIO()
    if extension == "jpg":
        Image.fromarray(array).save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    else:
        Image.fromarray(array).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def _encode_mask(mask: NDArray[np.uint8]) -> bytes:
    """Return a mask in {0, 1} as a PNG of 0 and 255, without filters: a quarter of the time, a tenth more bytes."""
    pixels = np.ascontiguousarray(mask) * np.uint8(255)  # a turned mask is a view
    return bytes(imagecodecs.png_encode(pixels, level=3, filter=imagecodecs.PNG.FILTER.NONE))
