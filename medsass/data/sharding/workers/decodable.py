"""Whether the training decoder can read what a shard would store, and what else its pixels tell.

It must see the size that the file says. JPEG is decoded as gray, which reads all of its codes in half of the time. A PNG of which `formats.photos.integrity` is sure needs no such test, image or mask; masks that are
not are encoded anew.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from medsass import foreign
from medsass.config import ShardConfig
from medsass.data import dali
from medsass.data.dali import Decoder
from medsass.data.formats import opening
from medsass.data.formats.image import wxh
from medsass.data.formats.photos import jpeg, plain
from medsass.data.sharding.phash import perceptual_hash
from medsass.data.sharding.sample import Sample
from medsass.data.sharding.workers.tasks import Made, Rejected

_MOST_PIXELS = 1 << 24  # decoded at once
_FLAT, _AROUND = (
    3,
    1000,
)  # pixels for a byte of a PNG that may hold two values only (a bit or two each), and bytes around them
_TWO, _CLASSES = 2, 16  # values of which a label map has more, and at most
_IN_AREAS = 0.8  # of the neighbours in its objects are alike
_NESTED, _JUMPS = 6, 0.1  # values that may lie in one another, and the least share of borders between others
_CLEAR = 0.95  # of the neighbours of ground are ground, where the values are so few
_MIDDLE = 512  # rows and columns in which neighbours are compared
_SIDE, _BLURRED = 64, 0.02  # rows and columns that are looked at, and pixels between the two values of a lossy image

_ANEW = "save it anew as PNG"
Found = Any  # pixels (H, W, C), or a ValueError
Check = Callable[[list[Made]], list[Made]]


def checker(config: ShardConfig) -> Check:
    """Return a function that refuses the samples that the training decoder cannot read, and looks at the pixels of the others
    where that is asked for, or they may be a mask's.
    """
    decoders = {False: Decoder(config.depth, 1), True: Decoder(1, 1)}  # True: for gray
    decoders[True](
        [cv2.imencode(".jpg", np.zeros((1, 1), np.uint8))[1].tobytes()]
    )  # the first takes ten milliseconds more

    def judge(each: Made, sample: Sample, pixels: Found) -> Made:
        if fault := _fault(sample, pixels):
            return replace(each, result=Rejected(sample.meta["source"], sample.split, fault))
        phash = perceptual_hash(pixels) if config.near_duplicates else None
        alike = looks_like_mask(pixels, sample.extension == "jpg")
        return replace(each, phash=phash, flat=alike) if alike is not False or phash is not None else each

    def wanted(sample: Sample) -> bool:
        return not sample.sure or config.near_duplicates or _may_be_mask(sample.files[sample.extension], sample.meta)

    def as_gray(sample: Sample) -> bool:
        return sample.extension == "jpg" and not config.near_duplicates

    def check(made: list[Made]) -> list[Made]:
        judged = list(made)
        samples = [(at, each.result) for at, each in enumerate(made) if isinstance(each.result, Sample)]
        for gray, decoder in decoders.items():
            for batch in _batches([(at, one) for at, one in samples if wanted(one) and as_gray(one) == gray]):
                found = _decoded(decoder, [sample.files[sample.extension] for _, sample in batch])
                for (at, sample), pixels in zip(batch, found, strict=True):
                    judged[at] = judge(made[at], sample, pixels)
        return judged

    return check


def _may_be_mask(png: bytes, meta: dict[str, Any]) -> bool:
    """Return whether a plain PNG may hold few values, by its size: it is smaller or, hardly packed, larger than others."""
    pixels, channels = meta["width"] * meta["height"], plain.CHANNELS[png[plain.COLOUR]]
    return not pixels / _FLAT + _AROUND < len(png) < pixels * channels


def looks_like_mask(pixels: NDArray[Any], lossy: bool) -> bool | None:
    """Return whether an image (H, W, C) is of few values in flat areas, as masks are; None for one value, which says nothing.

    Of a lossy one nearly all of some 4,000 pixels are near to one of two gray values.
    """
    few = pixels[:: -(-pixels.shape[0] // _SIDE), :: -(-pixels.shape[1] // _SIDE)]
    row, one = few[len(few) // 2, :, 0], few[..., 0]
    if _between(row, lossy) > 10 * _BLURRED and (lossy or len(set(row.tolist())) > _CLASSES):
        return False  # most photographs, by a row of them
    if one.min() == one.max() and (lossy or pixels.min() == pixels.max()):
        return None
    if lossy:
        return _between(one, lossy) <= _BLURRED
    if _between(one, lossy) == 0 and _between(pixels[..., 0], lossy) == 0 and (pixels == pixels[..., :1]).all():
        return True
    return _is_label_map(pixels, few.reshape(-1, pixels.shape[2]))


def _is_label_map(pixels: NDArray[Any], few: NDArray[Any]) -> bool:
    """Return whether an image (H, W, C) has three values or colours, or some more, each in areas, or a very few in clear-cut objects;
    `few` (n, C) are some of its pixels.
    """
    values, counts = np.unique(_packed(few), return_counts=True)
    if not _TWO < len(values) <= _CLASSES:
        return False
    top, left = (max(0, side - _MIDDLE) // 2 for side in pixels.shape[:2])
    part = pixels[top : top + _MIDDLE, left : left + _MIDDLE]
    if len(values) > _TWO + 1:  # a smooth picture steps from each brightness to the next
        levels = np.unique(few.sum(axis=1, dtype=np.int32))
        steps = np.abs(np.diff(np.searchsorted(levels, part.sum(axis=2, dtype=np.int32)), axis=1))
        if np.count_nonzero(steps > 1) < _JUMPS * np.count_nonzero(steps):
            return False
    packed = _packed(part)
    own = packed != values[counts.argmax()]
    both = own[:, 1:] & own[:, :-1]
    inside, around = np.count_nonzero(both), np.count_nonzero(~own[:, 1:] & ~own[:, :-1])
    if len(values) <= _NESTED and inside >= _IN_AREAS * np.count_nonzero(own[:, 1:]):
        return bool(around >= _CLEAR * np.count_nonzero(~own[:, 1:]))
    return bool(np.count_nonzero(both & (packed[:, 1:] == packed[:, :-1])) > _IN_AREAS * inside)


def _packed(pixels: NDArray[Any]) -> NDArray[np.int32]:
    """Return a number for each pixel (..., C): its gray value, or its three of 8 bits."""
    whole = pixels.astype(np.int32)
    return whole[..., 0] if pixels.shape[-1] == 1 else whole[..., 0] << 16 | whole[..., 1] << 8 | whole[..., 2]


def _between(values: NDArray[Any], lossy: bool) -> float:
    """Return the share of values between the lowest and the highest, of a lossy image of those near to neither."""
    low, high = int(values.min()), int(values.max())
    near = (high - low) // 8 if lossy else 0
    return float(np.count_nonzero((values > low + near) & (values < high - near)) / values.size)


def _decoded(decoder: Decoder, files: Sequence[bytes]) -> list[Found]:
    """Decode files. A JPEG whose data end early is an error, though the decoder only warns of it."""
    with foreign.overheard() as text:
        found = list(decoder(files))
    if jpeg.WARNINGS.search(text):
        for index, data in enumerate(files):
            try:
                jpeg.check_pixels(data)
            except ValueError as error:
                found[index] = error
    return found


def _fault(sample: Sample, pixels: Found) -> str:
    """Return what is wrong with a sample as the training decoder sees it, "" if nothing is."""
    if isinstance(pixels, ValueError):
        try:
            opening.from_bytes(sample.files[sample.extension])  # its reason is more exact, if it fails too
        except ValueError as error:
            return str(error)
        return f"{pixels}; {_ANEW}"
    width, height = sample.meta["width"], sample.meta["height"]
    if pixels.shape[:2] != (height, width):
        return f"the training decoder sees {wxh(pixels.shape)} pixels, the file says {width}x{height}; {_ANEW}"
    return ""


def _batches(samples: list[tuple[int, Sample]]) -> Iterator[list[tuple[int, Sample]]]:
    """Split samples into batches that the training decoder takes at once."""
    batch: list[tuple[int, Sample]] = []
    pixels = 0
    for each in samples:
        size = each[1].meta["width"] * each[1].meta["height"]
        if batch and (len(batch) == dali.BATCH or pixels + size > _MOST_PIXELS):
            yield batch
            batch, pixels = [], 0
        batch.append(each)
        pixels += size
    if batch:
        yield batch
