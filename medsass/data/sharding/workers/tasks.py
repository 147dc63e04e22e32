"""What passes between `medsass shard` and its worker processes: tasks one way, answers the other."""

from dataclasses import dataclass, field
from pathlib import Path

from medsass.config import ShardConfig
from medsass.data.formats import kinds
from medsass.data.formats.mask import Levels
from medsass.data.sharding.catalog.entry import Entry
from medsass.data.sharding.catalog.listing import Stat
from medsass.data.sharding.recipe import Recipe
from medsass.data.sharding.sample import Sample

_SECONDS, _BYTES = 600, 1_000_000  # processor time for an image, and bytes of it for which there is a second more


@dataclass(frozen=True)
class WorkItem:
    """An image: its rank in the catalog, and its files as they were listed, in the order of `Entry.paths`."""

    rank: int
    entry: Entry
    stats: tuple[Stat, ...]


@dataclass(frozen=True)
class Task:
    """Images of which to make samples. Where files may hold several, a part of one: its regions from `start` to `stop`.

    Args:
        items: the images.
        start, stop: as in a slice; without `stop` as many as make a good part.
        finished: images of a lower rank are done with, and their files can be closed.
        several: whether the file may hold several images.
        home: tasks of the same home go to the same worker, because it holds the decoded file.
        alone: whether no other task runs meanwhile, so that it may take all of the memory's budget.
    """

    items: tuple[WorkItem, ...]
    start: int = 0
    stop: int | None = None
    finished: int = 0
    several: bool = False
    home: int | None = None
    alone: bool = False

    @property
    def seconds(self) -> float:
        """The limit of processor time."""
        return sum(_SECONDS + sum(max(0, stat.size) for stat in item.stats) / _BYTES for item in self.items)


@dataclass(frozen=True)
class Rejected:
    """A file that is left out, and why; `levels` are those of a mask that has more than two, but few."""

    file: str
    split: str
    reason: str
    levels: Levels = ()


@dataclass(frozen=True)
class Made:
    """What became of an image or region.

    Attributes:
        rank, index: of the image in the catalog, and of the region in its file.
        result: None where every tile of a file was skipped.
        skipped: tiles of the file with too little foreground.
        phash: perceptual hash of the image, where asked for.
        flat: whether the image holds few values in flat areas, as masks do; None where it holds one.
    """

    rank: int
    index: int
    result: Sample | Rejected | None
    skipped: int = 0
    phash: int | None = None
    flat: bool | None = False


@dataclass(frozen=True)
class Answer:
    """What became of a task's images, in order.

    Attributes:
        made: one for each image or region.
        regions: number of regions of the file.
        part: number of regions that make a good part of it.
        streams: whether parts can be read without decoding the whole file.
        messages: of other libraries, as `foreign.listen` counts them.
    """

    made: list[Made]
    regions: int = 0
    part: int = 1
    streams: bool = True
    messages: dict[str, tuple[int, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Setup:
    """What a worker is told first, before the catalog is made. `catch` says whether messages of other libraries are counted, and
    `share` how many bytes of memory a task may take that does not run alone.
    """

    config: ShardConfig
    copies: Path
    catch: bool
    folder: str
    environment: dict[str, str]
    share: int | None = None


def by_region(recipe: Recipe, config: ShardConfig, entry: Entry) -> bool:
    """Return whether a file may hold several images to store."""
    return bool(config.tile) or recipe.images[entry.table].frames == "all" or not kinds.is_photo(entry.image)
