"""The second half of the way from a source to shards: records -> tar files. Each image is decoded as training will, and
looked up among those of other splits; what passes is written in the order in which it comes.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from medsass.config import ShardConfig
from medsass.data import dali
from medsass.data.dali import Decoder
from medsass.data.formats.image import wxh
from medsass.data.formats.opening import from_bytes
from medsass.data.sharding.lookalikes import Lookalikes, look
from medsass.data.sharding.prepare import Job, Outcome, Rejected
from medsass.data.sharding.sample import Record
from medsass.data.sharding.staging import Staging
from medsass.data.shards.tar import ShardWriter

_MOST_PIXELS = 1 << 26  # decoded at once


class Admission:
    """Writes records into the tar files of `stage`; what is refused goes into its journal, or stops with `config.strict`."""

    def __init__(self, stage: Staging, config: ShardConfig, workers: int) -> None:
        self._stage, self._journal, self._config = stage, stage.journal, config
        self._decoder = Decoder(config.depth, workers)
        self._writer: ShardWriter | None = None
        self._lookalikes: Lookalikes | None = None
        self._others = False  # whether another split holds anything that an image could be a twin of

    def take(self, batch: list[Outcome]) -> None:
        """Admit a batch of records, and note what there is none of. Raises `ValueError` with `config.strict`."""
        decoded = iter(self._decoder([item.image for _, item in batch if isinstance(item, Record)]))
        for job, item in batch:
            if job.skipped:
                self._journal.skip(job.rank, job.skipped)
            if isinstance(item, Rejected):
                self._reject(item)
            elif item:
                pixels = next(decoded)
                fault = _fault(item, pixels)
                if fault:
                    self._reject(Rejected(job.sample.image, item.split, fault))
                else:
                    self._write(job, item, pixels)

    def finish(self, position: tuple[int, int]) -> None:
        """Finish the tar file in progress; a run that is interrupted later goes on at `position`."""
        finished = self._writer.close() if self._writer else None
        if self._writer and finished:
            self._stage.finish(self._writer.split, finished, position)

    def abort(self) -> None:
        """Drop the tar file in progress."""
        if self._writer:
            self._writer.abort()

    def _write(self, job: Job, record: Record, pixels: Any) -> None:
        if not self._writer or self._writer.split != record.split:
            self.finish((job.rank, job.index))
            held, self._others = len(self._journal.shards(record.split)), self._journal.others(record.split)
            self._writer = ShardWriter(self._stage.folder, record.split, self._config.max_shard_bytes, held)
            self._lookalikes = Lookalikes(self._journal, record.split) if self._config.near_duplicates else None
        alike = look(pixels) if self._lookalikes else None
        twin = self._twin(record, alike)
        if twin:
            self._journal.reject(job.sample.image, record.split, f"{twin}, which is in another split")
            return
        finished = self._writer.add(record.key, record.complete())
        if finished:
            self._stage.finish(record.split, finished, (job.rank, job.index))
        self._journal.store(job.rank, record.split, record.form, record.meta, alike)

    def _twin(self, record: Record, alike: int | None) -> str:
        """What image of another split this one is, or looks like; "" where there is none."""
        twin = self._journal.twin(record.meta["sha256"], record.split) if self._others else None
        if twin:
            return f"the same bytes as {twin}"
        near = self._lookalikes.find(alike) if self._lookalikes and alike is not None else None
        return f"looks like {near[0]} ({near[1]} of 64 bits differ)" if near else ""

    def _reject(self, item: Rejected) -> None:
        if self._config.strict:
            raise ValueError(f"{self._config.source / item.file}: {item.reason} (--strict)")
        self._journal.reject(item.file, item.split, item.reason)


def _fault(record: Record, pixels: Any) -> str:
    """What is wrong with a record as the training decoder sees it; "" where nothing is."""
    if isinstance(pixels, ValueError):
        try:
            from_bytes(record.image)  # says more exactly what is wrong, if it finds it too
        except ValueError as error:
            return str(error)
        return str(pixels)
    width, height = record.meta["width"], record.meta["height"]
    if pixels.shape[:2] != (height, width):
        return f"the training decoder sees {wxh(pixels.shape)} pixels, the file says {width}x{height}"
    return ""


def batches(items: Iterable[Outcome]) -> Iterator[list[Outcome]]:
    """Outcomes in order, in groups of which the decoder takes the records at once."""
    batch: list[Outcome] = []
    pixels = records = 0
    for job, item in items:
        size = item.meta["width"] * item.meta["height"] if isinstance(item, Record) else 0
        if batch and (records == dali.BATCH or pixels + size > _MOST_PIXELS or len(batch) == 4 * dali.BATCH):
            yield batch
            batch, pixels, records = [], 0, 0
        batch.append((job, item))
        pixels, records = pixels + size, records + isinstance(item, Record)
    if batch:
        yield batch
