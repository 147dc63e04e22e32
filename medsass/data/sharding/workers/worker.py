"""What a worker process does: images -> samples, read, encoded, and decoded once as training will decode them.

A decoder that dies of a file takes this process with it, and one that never returns is ended by a limit of processor time.
The parent then tries the images of the task one by one, and leaves out the one in whose turn the worker dies again.
"""

import os
import queue
import signal
import tempfile
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

import cv2
import imagecodecs

from medsass import budget, foreign
from medsass.config import ShardConfig
from medsass.data import dali
from medsass.data.formats.mask import LevelsError
from medsass.data.sharding import sample
from medsass.data.sharding.recipe import Recipe
from medsass.data.sharding.sample import Sample
from medsass.data.sharding.source import Source, reason
from medsass.data.sharding.source_file import Region, SourceFile
from medsass.data.sharding.workers import decodable
from medsass.data.sharding.workers.tasks import Answer, Made, Rejected, Setup, Task, WorkItem, by_region

_PART_PIXELS, _PART = 1 << 22, 64  # of the regions that are one part of a file, and most regions of it

for name in ("nvidia.dali", "nvidia.dali.fn", "nvidia.dali.types"):  # once, in the process that workers are forked from
    dali.import_dali(name)
for name in (
    "deflate_decode",
    "delta_decode",
    "png_decode",
    "png_encode",
):  # which imagecodecs imports when they are used
    getattr(imagecodecs, name)


@dataclass
class _Open:
    """An open file, its regions, the number of them skipped, and how many make a part."""

    file: SourceFile
    regions: list[Region]
    skipped: int
    part: int


def run(connection: "Connection[Any, Any]") -> NoReturn:
    """Take a `Setup`, a `Recipe`, and then tasks, which are answered, until the other end is closed. Each answer is a pair of
    `Answer` and error, of which one is None.
    """
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def listen() -> None:
        try:
            while True:
                inbox.put(connection.recv())
        except (EOFError, OSError):
            os._exit(0)  # in the middle of a task, too: nobody waits for it

    threading.Thread(target=listen, daemon=True).start()
    try:
        begin = _set_up(inbox.get())
    except BaseException as error:  # the first task will tell
        begin = partial(_raise, error)
    recipe: Recipe = inbox.get()
    make: Callable[[Task], Answer] | None = None
    while True:
        task: Task = inbox.get()
        try:
            make = make or begin(recipe)
            signal.setitimer(signal.ITIMER_PROF, task.seconds)
            answer: Any = make(task), None
        except BaseException as error:
            error.add_note(traceback.format_exc())  # a traceback does not pass from process to process
            answer = None, error
        signal.setitimer(signal.ITIMER_PROF, 0)
        connection.send(answer)


def _raise(error: BaseException, _recipe: Recipe) -> NoReturn:
    raise error


def _set_up(setup: Setup) -> Callable[[Recipe], Callable[[Task], Answer]]:
    """Make this process like the one that it works for, and return what makes, of a recipe, what answers tasks."""
    os.chdir(setup.folder)
    os.environ.clear()
    os.environ.update(setup.environment)
    tempfile.tempdir = str(setup.copies)  # what a killed worker leaves goes with that folder
    cv2.setNumThreads(1)  # there is a worker for each core
    heard = foreign.listen() if setup.catch else dict
    check = decodable.checker(setup.config)

    def begin(recipe: Recipe) -> Callable[[Task], Answer]:
        maker = Maker(recipe, setup.config, setup.copies, check)

        def make(task: Task) -> Answer:
            budget.share(None if task.alone else setup.share)
            return replace(maker(task), messages=heard())

        return make

    return begin


class Maker:
    """Makes samples of a source's images, and has them looked at by `check`. Copies of remote files go into the folder `copies`."""

    def __init__(self, recipe: Recipe, config: ShardConfig, copies: Path, check: decodable.Check) -> None:
        self._recipe, self._config = recipe, config
        self._source = Source(config.source, copies)
        self._check_decodes = check
        self._open: dict[int, _Open] = {}

    def __call__(self, task: Task) -> Answer:
        """Make the samples of a task."""
        if task.several:
            return self._part(task)
        return Answer(self._check_decodes([Made(item.rank, 0, self._make(item)) for item in task.items]))

    def _part(self, task: Task) -> Answer:
        """Make the samples of a part of a file."""
        (item,) = task.items
        for rank in [rank for rank in self._open if rank < task.finished]:
            self._open.pop(rank).file.close()
        try:
            held = self._open.get(item.rank) or self._regions(item)
        except (ValueError, OSError) as error:
            return Answer([Made(item.rank, 0, Rejected(item.entry.image, item.entry.split, reason(error)))])
        count, skipped = len(held.regions), held.skipped
        if not count:
            return Answer([Made(item.rank, 0, None, skipped)])
        stop = min(count, task.start + held.part) if task.stop is None else task.stop
        made = [
            Made(item.rank, index, self._make(item, held.file, held.regions[index]), skipped)
            for index in range(task.start, stop)
        ]
        try:
            self._check(item)
        except (ValueError, OSError) as error:
            changed = Rejected(item.entry.image, item.entry.split, reason(error))
            made = [replace(one, result=changed) for one in made]
        return Answer(self._check_decodes(made), count, held.part, held.file.image.streams)

    def _regions(self, item: WorkItem) -> _Open:
        """Open a file that may hold several images, and find its regions."""
        self._check(item)
        with foreign.reading(item.entry.image):
            file = self._opened(item)
            try:
                regions, skipped = file.regions()
                side = self._config.tile or max(file.image.height, file.image.width)
            except BaseException:
                file.close()
                raise
        held = _Open(file, regions, skipped, max(1, min(_PART, _PART_PIXELS // (side * side))))
        self._open[item.rank] = held
        return held

    def _make(self, item: WorkItem, held: SourceFile | None = None, region: Region | None = None) -> Sample | Rejected:
        """Make a sample of an image, or of a region of a file that is open. That a file changed is the reason before any
        other.
        """
        file = held
        try:
            try:
                with foreign.reading(item.entry.image):
                    file = file or self._opened(item)
                    made = sample.encode(file, region)
            except (ValueError, OSError) as error:
                reason(error)
                if not held:
                    self._check(item)
                raise
            finally:
                if file and not held:
                    file.close()
                    self._source.release(item.entry.key, *item.entry.paths)
            if not held:  # else the part is checked
                self._check(item)
        except (ValueError, OSError) as error:
            levels = error.levels if isinstance(error, LevelsError) else ()
            return Rejected(item.entry.image, item.entry.split, reason(error), levels)
        return made

    def _check(self, item: WorkItem) -> None:
        """Raise `ValueError` or `OSError` where a file is not what was listed."""
        for path, stat in zip(item.entry.paths, item.stats, strict=True):
            try:
                self._source.check(path, stat)
            except (ValueError, OSError) as error:
                if path == item.entry.image:
                    raise
                raise ValueError(f"{'slice' if item.entry.slices else 'mask'} {path}: {reason(error)}") from error

    def _opened(self, item: WorkItem) -> SourceFile:
        entry = item.entry
        if self._recipe.masks.required and not entry.masks:
            raise ValueError("image without a mask; give it one, or let the recipe not require masks")
        whole = not by_region(self._recipe, self._config, entry)
        listed = zip(entry.paths, item.stats, strict=True)
        image, *others = (self._source.fetch(path, stat, entry.key, whole=whole) for path, stat in listed)
        return SourceFile(entry, self._recipe, self._config, image, others)
