"""The first half of the way from a source to shards: samples -> records, read and encoded by several threads ahead of
whoever takes them, in the catalog's order. Decoders and encoders release the interpreter's lock.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import TypeVar

from medsass.config import ShardConfig
from medsass.data.sharding.catalog import Sample
from medsass.data.sharding.recipe import Recipe
from medsass.data.sharding.sample import Record, prepare
from medsass.data.sharding.source import Access, Stat, reason
from medsass.data.sharding.source_file import Opened, Part

_AHEAD = 4  # groups of jobs under way for each worker
_GROUP = 16  # whole images of a group at most: handing over each alone would cost as much as reading it
_GROUP_BYTES = 1 << 20

T = TypeVar("T")
R = TypeVar("R")
Listed = tuple[int, Sample, tuple[Stat, ...]]  # rank, sample, and the stats of its image and of each mask


@dataclass(frozen=True)
class Rejected:
    """A file that was left out, and why."""

    file: str
    split: str
    reason: str


@dataclass(frozen=True)
class Job:
    """One part of one sample to be prepared; `opened` is shared by the parts of a file, None for one whole image.
    `last`: of its file. `skipped`: tiles of the file that have too little foreground.
    """

    rank: int
    sample: Sample
    stats: tuple[Stat, ...]
    index: int = 0
    part: Part | None = None
    opened: Opened | None = None
    last: bool = True
    skipped: int = 0
    error: str = ""


Outcome = tuple[Job, Record | Rejected | None]  # None where a file has no part with enough foreground


class Intake:
    """Makes records of samples by `recipe` and `config`. fetched: a folder for copies of files at an address."""

    def __init__(self, recipe: Recipe, config: ShardConfig, fetched: Path, workers: int) -> None:
        self._recipe, self._config, self._workers = recipe, config, workers
        self._in_parts = bool(config.tile) or any(images.frames == "all" for images in recipe.images)
        self._access = Access(config.source, fetched, pieces=self._in_parts)

    def outcomes(self, samples: Iterable[Listed], position: tuple[int, int]) -> Iterator[Outcome]:
        """What becomes of each part of `samples`, in order, from `position` on (rank, number of the part)."""
        with ThreadPoolExecutor(self._workers) as pool:
            if self._in_parts:
                planned = chain.from_iterable(_in_order(pool, self._plan, samples, 2))
                groups: Iterable[list[Job]] = ([job] for job in planned if (job.rank, job.index) >= position)
            else:
                groups = _grouped(Job(*item) for item in samples)
            for group in _in_order(pool, self._work, groups, _AHEAD * self._workers):
                for job, item in group:
                    if job.opened and job.last:
                        self._close(job.opened)  # here, in order, every other part of the file is done
                    yield job, item

    def _plan(self, item: Listed) -> list[Job]:
        """The jobs of a file that may hold several samples."""
        rank, sample, stats = item
        opened: Opened | None = None
        try:
            self._check(sample, stats)
            opened = self._open(sample)
            parts = list(opened.parts())
            skipped = opened.boxes() - len(parts) if self._config.tile else 0
        except (ValueError, OSError) as error:
            if opened:
                self._close(opened)
            return [Job(rank, sample, stats, error=reason(error))]
        if not parts:
            self._close(opened)
            return [Job(rank, sample, stats, skipped=skipped)]
        last = len(parts) - 1
        return [Job(rank, sample, stats, i, part, opened, i == last, skipped) for i, part in enumerate(parts)]

    def _work(self, group: list[Job]) -> list[Outcome]:
        return [(job, self._outcome(job)) for job in group]

    def _outcome(self, job: Job) -> Record | Rejected | None:
        if job.skipped and not job.part and not job.error:
            return None
        try:
            if job.error:
                raise ValueError(job.error)
            return self._record(job)
        except (ValueError, OSError) as error:
            return Rejected(job.sample.image, job.sample.split, reason(error))

    def _record(self, job: Job) -> Record:
        """Raises `ValueError` or `OSError` with the reason where there is none; that a file changed goes before others."""
        opened = job.opened
        try:
            if not opened:
                self._check_masks(job.sample)
                opened = self._open(job.sample)
            record = prepare(opened, job.part or Part(), self._recipe, self._config)
        except (ValueError, OSError) as error:
            reason(error)
            self._check(job.sample, job.stats)
            raise
        finally:
            if opened and not job.opened:
                self._close(opened)
        self._check(job.sample, job.stats)
        return record

    def _check_masks(self, sample: Sample) -> None:
        if self._recipe.masks.required and not sample.masks:
            raise ValueError("image without a mask")

    def _check(self, sample: Sample, stats: tuple[Stat, ...]) -> None:
        """Raise `ValueError` or `OSError` where a file of the sample is not what was listed."""
        self._check_masks(sample)
        self._access.check(sample.image, stats[0])
        for mask, stat in zip(sample.masks, stats[1:], strict=True):
            try:
                self._access.check(mask, stat)
            except (ValueError, OSError) as error:
                raise ValueError(f"mask {PurePosixPath(mask).name}: {reason(error)}") from error

    def _open(self, sample: Sample) -> Opened:
        image, *masks = (self._access.at_hand(path) for path in (sample.image, *sample.masks))
        return Opened(sample, self._recipe, self._config, image, masks)

    def _close(self, opened: Opened) -> None:
        opened.close()
        self._access.release(opened.sample.image, *opened.sample.masks)


def _grouped(jobs: Iterable[Job]) -> Iterator[list[Job]]:
    """Jobs of whole images in groups of about equal work."""
    group: list[Job] = []
    size = 0
    for job in jobs:
        group.append(job)
        size += sum(stat[0] for stat in job.stats)
        if len(group) == _GROUP or size > _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _in_order(pool: ThreadPoolExecutor, work: Callable[[T], R], items: Iterable[T], ahead: int) -> Iterator[R]:
    """`map` over a thread pool, in order and a bounded number of items ahead of what was taken."""
    pending: deque[Future[R]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) >= ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
