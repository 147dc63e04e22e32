"""Samples -> tar files: each image is decoded as training will decode it, looked up among those of other splits, and
written in the order in which it comes.

Two images look alike when at most `MOST_BITS` of their perceptual hashes differ: ImageHash's pHash, 64 bits, the signs,
about their median, of the 8 x 8 lowest frequencies of the cosine transform at 32 x 32. It finds images that were resized,
compressed again or made a little brighter. Of the pairs in ISIC 2017 that differ in at most 2 bits, 8 of 9 show one lesion
twice; among those that differ in 4, lesions and chests of different people begin to prevail.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medsass.config import ShardConfig
from medsass.data import dali
from medsass.data.dali import Decoder
from medsass.data.formats import opening
from medsass.data.formats.image import wxh
from medsass.data.sharding.prepare import Prepared, Rejected, WorkItem
from medsass.data.sharding.sample import Sample
from medsass.data.sharding.staging import Staging
from medsass.data.shards.tar import ShardWriter

MOST_BITS = 2
_MOST_PIXELS = 1 << 26  # decoded at once


class Writer:
    """Writes samples into the tar files of `stage`, and what is refused into its journal."""

    def __init__(self, stage: Staging, config: ShardConfig, workers: int) -> None:
        self._stage, self._journal, self._config = stage, stage.journal, config
        self._decoder = Decoder(config.depth, workers)
        self._tars: ShardWriter | None = None
        self._twins = False  # whether another split holds anything that an image could equal
        self._known: tuple[NDArray[np.int64], list[str]] | None = None  # perceptual hashes of other splits

    def write(self, batch: list[Prepared]) -> None:
        """Write a batch of samples and enter what was refused. With `config.strict`, raises `ValueError` instead."""
        decoded = iter(self._decoder([made.files[made.extension] for _, made in batch if isinstance(made, Sample)]))
        for item, made in batch:
            if item.skipped:
                self._journal.skip(item.rank, item.skipped)
            refused = made if isinstance(made, Rejected) else None
            if isinstance(made, Sample):
                pixels = next(decoded)
                fault = _fault(made, pixels)
                if fault:
                    refused = Rejected(item.entry.image, made.split, fault)
                else:
                    self._add(item, made, pixels)
            if refused and self._config.strict:
                raise ValueError(f"{self._config.source / refused.file}: {refused.reason} (--strict)")
            if refused:
                self._journal.reject(refused.file, refused.split, refused.reason)

    def finish(self, position: tuple[int, int]) -> None:
        """Finish the tar file in progress; a run that is interrupted later resumes at `position`."""
        finished = self._tars.close() if self._tars else None
        if self._tars and finished:
            self._stage.finish(self._tars.split, finished, position)

    def abort(self) -> None:
        """Drop the tar file in progress."""
        if self._tars:
            self._tars.abort()

    def _add(self, item: WorkItem, sample: Sample, pixels: Any) -> None:
        """Add a sample to its split, unless another split holds the image or one that looks like it."""
        journal, split, position = self._journal, sample.split, (item.rank, item.index)
        if not self._tars or self._tars.split != split:
            self.finish(position)
            first = len(journal.shards(split))
            self._tars = ShardWriter(self._stage.folder, split, self._config.max_shard_bytes, first)
            self._twins = journal.stored(outside=split) > 0
            self._known = journal.perceptual_hashes(split) if self._config.near_duplicates else None
        phash = perceptual_hash(pixels) if self._known else None
        twin = journal.twin(sample.meta["sha256"], split) if self._twins else None
        near = near_duplicate(phash, *self._known) if self._known and phash is not None and not twin else None
        if twin or near:
            what = f"looks like {near[0]} ({near[1]} of 64 bits differ)" if near else f"the same bytes as {twin}"
            journal.reject(item.entry.image, split, f"{what}, which is in another split")
            return
        finished = self._tars.add(sample.key, sample.files)
        if finished:
            self._stage.finish(split, finished, position)
        journal.store(item.rank, split, sample.extension, sample.meta, phash)


def _fault(sample: Sample, pixels: Any) -> str:
    """Return what is wrong with a sample as the training decoder sees it, "" if nothing is."""
    if isinstance(pixels, ValueError):
        try:
            opening.from_bytes(sample.files[sample.extension])  # its reason is more exact, if it fails too
        except ValueError as error:
            return str(error)
        return str(pixels)
    width, height = sample.meta["width"], sample.meta["height"]
    if pixels.shape[:2] != (height, width):
        return f"the training decoder sees {wxh(pixels.shape)} pixels, the file says {width}x{height}"
    return ""


def batches(prepared: Iterable[Prepared]) -> Iterator[list[Prepared]]:
    """Group results, in order, into batches whose samples the decoder takes at once."""
    batch: list[Prepared] = []
    pixels = samples = 0
    for item, made in prepared:
        size = made.meta["width"] * made.meta["height"] if isinstance(made, Sample) else 0
        if batch and (samples == dali.BATCH or pixels + size > _MOST_PIXELS or len(batch) == 4 * dali.BATCH):
            yield batch
            batch, pixels, samples = [], 0, 0
        batch.append((item, made))
        pixels, samples = pixels + size, samples + isinstance(made, Sample)
    if batch:
        yield batch


def perceptual_hash(image: NDArray[Any]) -> int:
    """Return the 64-bit pHash, as a signed integer, of an image (H, W, 1 or 3) uint8 or uint16.

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


def near_duplicate(phash: int, known: NDArray[np.int64], names: list[str]) -> tuple[str, int] | None:
    """Return the name of the known image whose hash is nearest and the number of bits that differ, if that is at most
    `MOST_BITS`.
    """
    if not names:
        return None
    distance = np.bitwise_count(known ^ np.int64(phash))
    nearest = int(distance.argmin())
    return (names[nearest], int(distance[nearest])) if distance[nearest] <= MOST_BITS else None
