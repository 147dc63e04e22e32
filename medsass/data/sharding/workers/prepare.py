"""Images of the catalog -> samples: worker processes read, encode and check them ahead of the writer, in the catalog's order.

No file of the source is decoded in this process. Where a worker dies, the images of its task are tried one by one, and the
one that kills its worker again is left out.
"""

import os
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path

from medsass import budget, files, foreign
from medsass.config import ShardConfig
from medsass.data.formats import damage
from medsass.data.sharding.catalog.entry import Entry
from medsass.data.sharding.catalog.listing import Stat
from medsass.data.sharding.recipe import Recipe
from medsass.data.sharding.source import Source
from medsass.data.sharding.workers.pool import Pool, Ticket, WorkerDiedError
from medsass.data.sharding.workers.tasks import Answer, Made, Rejected, Setup, Task, WorkItem, by_region

_AHEAD = 4  # tasks in flight for each worker
_GROUP = 16  # most whole images of a task: handing over each alone would cost as much as reading it
_GROUP_BYTES = 1 << 20

Listed = tuple[int, Entry, tuple[Stat, ...]]  # rank, entry, and the stats of its files


class Preparation:
    """Makes samples of a source's images in processes, which start at once and run until `close`. Copies of remote files go
    into the folder `copies`.
    """

    def __init__(self, config: ShardConfig, copies: Path) -> None:
        self._config, self._source = config, Source(config.source, copies)
        self._workers = config.workers or os.cpu_count() or 1
        environment = {**os.environ, budget.VARIABLE: str(budget.limit()), files.SOURCE: str(config.source)}
        environment |= {files.FOLLOW: "1"} if config.follow_links else {}
        share = budget.limit() // self._workers
        setup = Setup(config, copies, foreign.catching(), str(Path.cwd()), environment, share)
        self._pool = Pool(self._workers, setup)

    def close(self) -> None:
        """End the processes."""
        self._pool.close()

    def prepare(self, recipe: Recipe, listed: Iterable[Listed], position: tuple[int, int]) -> Iterator[list[Made]]:
        """Yield what became of the images or regions, some at a time, in order, from `position` (rank, index) on."""
        self._pool.tell(recipe)
        self._several = partial(by_region, recipe, self._config)
        return self._parts((WorkItem(*item) for item in listed), position)

    def _parts(self, items: Iterable[WorkItem], position: tuple[int, int]) -> Iterator[list[Made]]:
        """Yield what became of groups of images and, part by part, of the regions of files that may hold several.

        The first task of such a file finds its regions. Files that are decoded whole stay with the worker that has done it.
        """
        done, ends = position[0], dict[int, int]()  # the rank of the first file that is not done; last regions of files

        def firsts() -> Iterator[tuple[Task, None]]:
            for several, run in groupby(items, lambda item: self._several(item.entry)):
                if not several:
                    yield from ((Task(tuple(group)), None) for group in _grouped(run))
                    continue
                for item in run:
                    start = position[1] if item.rank == position[0] else 0
                    yield Task((item,), start, finished=done, several=True, home=item.rank), None

        def parts() -> Iterator[tuple[Task, Answer | None]]:
            for task, answer in self._answers(firsts(), 2 * self._workers + 1):
                yield task, answer
                if not task.several:
                    continue
                ends[task.items[0].rank] = answer.regions - 1
                home = None if answer.streams else task.home
                for start in range(task.start + len(answer.made), answer.regions, answer.part):
                    yield (
                        replace(
                            task, start=start, stop=min(start + answer.part, answer.regions), finished=done, home=home
                        ),
                        None,
                    )

        for task, answer in self._answers(parts(), _AHEAD * self._workers):
            yield answer.made
            last = task.items[-1]
            if last.rank in ends and task.start + len(answer.made) > ends[last.rank]:
                self._source.release(last.entry.key, *last.entry.paths)
                del ends[last.rank]
                done = last.rank + 1

    def _answers(self, tasks: Iterable[tuple[Task, Answer | None]], ahead: int) -> Iterator[tuple[Task, Answer]]:
        """Yield tasks with their answers in order, at most `ahead` before the one that is taken. Some are answered already."""
        pending: deque[tuple[Task, Answer | Ticket]] = deque()
        for task, answer in tasks:
            pending.append((task, answer or self._pool.submit(task, task.home)))
            if len(pending) >= ahead:
                yield self._taken(*pending.popleft())
        while pending:
            yield self._taken(*pending.popleft())

    def _taken(self, task: Task, ticket: Answer | Ticket) -> tuple[Task, Answer]:
        if isinstance(ticket, Answer):
            return task, ticket
        try:
            return task, self._answer(self._pool.result(ticket))
        except WorkerDiedError:
            pass
        except MemoryError:  # more than its share of the budget
            if task.several and task.stop is None:
                return task, self._alone(task)
        if not task.several:
            apart = [Task((item,)) for item in task.items]
        elif task.stop is None:
            return task, self._alone(replace(task, stop=task.start))  # nothing but the regions of the file
        else:
            apart = [replace(task, start=index, stop=index + 1) for index in range(task.start, task.stop)]
        return task, Answer([made for one in apart for made in self._alone(one).made])

    def _alone(self, task: Task) -> Answer:
        """Answer a task of one image or region, which is rejected where its worker dies, or memory does not suffice for it alone."""
        (item,) = task.items
        try:
            try:
                return self._answer(self._pool.result(self._pool.submit(task, task.home, urgent=True)))
            except MemoryError:
                return self._answer(self._pool.alone(replace(task, alone=True), task.home))
        except MemoryError:
            rejected = Rejected(item.entry.image, item.entry.split, budget.TOO_MUCH.format(budget.limit() / 1e9))
            return Answer([Made(item.rank, task.start, rejected)])
        except WorkerDiedError as death:
            if death.killed:
                raise MemoryError(f"a worker process was killed while it read {item.entry.image}") from death
            rejected = Rejected(item.entry.image, item.entry.split, _why(death.code, task))
            return Answer([Made(item.rank, task.start, rejected)])

    def _answer(self, answer: Answer) -> Answer:
        foreign.add(answer.messages)
        return answer


def _why(code: int, task: Task) -> str:
    if code == -signal.SIGPROF:
        end = f"did not come to an end within {task.seconds / 60:.0f} minutes"
    else:
        end = f"died (signal {-code}) on it" if code < 0 else f"ended its process (exit code {code})"
    return f"the decoder {end}; {damage.REMEDY}"


def _grouped(items: Iterable[WorkItem]) -> Iterator[list[WorkItem]]:
    """Group whole images into about equal work."""
    group: list[WorkItem] = []
    size = 0
    for item in items:
        group.append(item)
        size += sum(stat.size for stat in item.stats)
        if len(group) == _GROUP or size > _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group
