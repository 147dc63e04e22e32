"""Images of the catalog -> samples: several threads read and encode ahead of the writer, in the catalog's order.

Decoders and encoders release the interpreter's lock.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain, groupby
from pathlib import Path, PurePosixPath
from typing import TypeVar

from medsass import foreign
from medsass.config import ShardConfig
from medsass.data.formats import kinds
from medsass.data.sharding import sample
from medsass.data.sharding.catalog import Entry
from medsass.data.sharding.recipe import Recipe
from medsass.data.sharding.sample import Sample
from medsass.data.sharding.source import Source, Stat, reason
from medsass.data.sharding.source_file import Region, SourceFile

_AHEAD = 4  # groups in flight for each worker
_GROUP = 16  # most whole images of a group: handing over each alone would cost as much as reading it
_GROUP_BYTES = 1 << 20

T = TypeVar("T")
R = TypeVar("R")
Listed = tuple[int, Entry, tuple[Stat, ...]]  # rank, entry, and the stats of its image and of each mask


@dataclass(frozen=True)
class Rejected:
    """A file that is left out, and why."""

    file: str
    split: str
    reason: str


@dataclass(frozen=True)
class WorkItem:
    """One region to make a sample of.

    Attributes:
        rank, entry, stats: the image in the catalog, and its files as they were listed.
        region: None for a whole image, and where every tile of the file was skipped.
        index: number of the region in its file; `last` marks the final one.
        file: the open file that its regions share; None where the file is opened for this item alone.
        skipped: tiles of the file with too little foreground.
        error: why the file cannot be used, "" where nothing is known against it.
    """

    rank: int
    entry: Entry
    stats: tuple[Stat, ...]
    region: Region | None = None
    index: int = 0
    last: bool = True
    file: SourceFile | None = None
    skipped: int = 0
    error: str = ""


Prepared = tuple[WorkItem, Sample | Rejected | None]  # None where every tile of a file was skipped


class Preparation:
    """Makes samples of a source's images. Copies of remote files go into the folder `copies`."""

    def __init__(self, recipe: Recipe, config: ShardConfig, copies: Path, workers: int) -> None:
        self._recipe, self._config, self._workers = recipe, config, workers
        self._source = Source(config.source, copies, by_region=bool(config.tile))

    def prepare(self, listed: Iterable[Listed], position: tuple[int, int]) -> Iterator[Prepared]:
        """Yield the sample of each region, or why there is none, in order, from `position` (rank, index) on."""
        error, needed = "image without a mask", self._recipe.masks.required
        items = (WorkItem(*item, error=error if needed and not item[1].masks else "") for item in listed)
        with ThreadPoolExecutor(self._workers) as pool:
            groups, ahead = self._groups(pool, items, position), _AHEAD * self._workers
            for group in _in_order(pool, lambda group: [(item, self._make(item)) for item in group], groups, ahead):
                for item, made in group:
                    if item.file and item.last:
                        self._close(item.file)  # results come in order: every other region of the file is done
                    yield item, made

    def _groups(
        self, pool: ThreadPoolExecutor, items: Iterable[WorkItem], position: tuple[int, int]
    ) -> Iterator[list[WorkItem]]:
        """Yield groups of photographs, which are one sample each, and each region of other files alone, in order."""
        for whole, some in groupby(items, self._is_whole):
            if whole:
                yield from _grouped(some)
            else:
                regions = chain.from_iterable(_in_order(pool, self._plan, some, 2))
                yield from ([item] for item in regions if (item.rank, item.index) >= position)

    def _is_whole(self, item: WorkItem) -> bool:
        """Return whether a file is by its name one that holds one image, which is stored whole."""
        kind = kinds.SUFFIXES.get(PurePosixPath(item.entry.image).suffix.lower())
        one = self._recipe.images[item.entry.table].frames in ("auto", "first")
        return one and kind == "photo" and not self._config.tile

    def _plan(self, item: WorkItem) -> list[WorkItem]:
        """Split the item of a file that may hold several samples into one for each region."""
        file: SourceFile | None = None
        try:
            if item.error:
                return [item]
            self._check(item)
            with foreign.reading(item.entry.image):
                file = self._open(item.entry)
                regions, skipped = file.regions()
        except (ValueError, OSError) as error:
            if file:
                self._close(file)
            return [replace(item, error=reason(error))]
        if not regions:
            self._close(file)
            return [replace(item, skipped=skipped)]
        last = len(regions) - 1
        return [
            replace(item, region=region, index=i, last=i == last, file=file, skipped=skipped)
            for i, region in enumerate(regions)
        ]

    def _make(self, item: WorkItem) -> Sample | Rejected | None:
        """Make an item's sample. That a file changed is the reason before any other."""
        if item.skipped and not item.region:
            return None
        file = item.file
        try:
            if item.error:
                raise ValueError(item.error)
            try:
                with foreign.reading(item.entry.image):
                    file = file or self._open(item.entry)
                    made = sample.encode(file, item.region or Region())
                    if not item.region and made.meta.get("frame") is not None:
                        raise ValueError(f"{file.image.frames} frames under the name of a photograph; give it the suffix of its kind")
            except (ValueError, OSError) as error:
                reason(error)
                self._check(item)
                raise
            finally:
                if file and not item.file:
                    self._close(file)
            self._check(item)
        except (ValueError, OSError) as error:
            return Rejected(item.entry.image, item.entry.split, reason(error))
        return made

    def _check(self, item: WorkItem) -> None:
        """Raise `ValueError` or `OSError` where a file is not what was listed."""
        self._source.check(item.entry.image, item.stats[0])
        for mask, stat in zip(item.entry.masks, item.stats[1:], strict=True):
            try:
                self._source.check(mask, stat)
            except (ValueError, OSError) as error:
                raise ValueError(f"mask {PurePosixPath(mask).name}: {reason(error)}") from error

    def _open(self, entry: Entry) -> SourceFile:
        image, *masks = (self._source.fetch(path) for path in (entry.image, *entry.masks))
        return SourceFile(entry, self._recipe, self._config, image, masks)

    def _close(self, file: SourceFile) -> None:
        file.close()
        self._source.release(file.entry.image, *file.entry.masks)


def _grouped(items: Iterable[WorkItem]) -> Iterator[list[WorkItem]]:
    """Group whole images into about equal work."""
    group: list[WorkItem] = []
    size = 0
    for item in items:
        group.append(item)
        size += sum(stat[0] for stat in item.stats)
        if len(group) == _GROUP or size > _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _in_order(pool: ThreadPoolExecutor, work: Callable[[T], R], items: Iterable[T], ahead: int) -> Iterator[R]:
    """Map over a thread pool in order, at most `ahead` items before the one that is taken."""
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
