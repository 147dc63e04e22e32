"""Samples -> tar files, in the order in which they come: each is looked up among those of other splits, and written."""

import numpy as np
from numpy.typing import NDArray

from medsass.config import ShardConfig
from medsass.data.sharding.levels import DatasetLevels, MasksError
from medsass.data.sharding.phash import near_duplicate
from medsass.data.sharding.sample import Sample
from medsass.data.sharding.staging import Staging
from medsass.data.sharding.workers.tasks import Made, Rejected
from medsass.data.shards.tar import ShardWriter

_ENOUGH = 200  # images, by which is judged whether masks are among them
_MASKS = 1 / 3, 3  # of them must look so: one or two may be scans of text, or of one bit


class Writer:
    """Writes samples into the tar files of `stage`, and what is refused into its journal."""

    def __init__(self, stage: Staging, config: ShardConfig, levels: DatasetLevels, *, named: bool) -> None:
        """Write by `config`; `named` says whether the user, or a layout with masks, tells which files are images."""
        self._stage, self._journal, self._config = stage, stage.journal, config
        self._levels, self._look_at = levels, 0 if named else _ENOUGH
        self._count, self._rank = self._journal.stored(images=True), -1
        self._tars: ShardWriter | None = None
        self._twins = False  # whether another split holds anything that an image could equal
        self._known: tuple[NDArray[np.int64], list[str]] | None = None  # perceptual hashes of other splits

    def write(self, made: list[Made]) -> None:
        """Write samples and enter what was refused. With `config.strict`, raises `ValueError` instead; and `MasksError` where
        the masks hold classes among which no option chooses.
        """
        for each in made:
            if each.skipped:
                self._journal.skip(each.rank, each.skipped)
            if isinstance(each.result, Sample):
                self._add(each, each.result)
            elif each.result:
                self._reject(each.result)

    def finish(self, position: tuple[int, int]) -> None:
        """Finish the tar file in progress; a run that is interrupted later resumes at `position`."""
        finished = self._tars.close() if self._tars else None
        if self._tars and finished:
            self._stage.finish(self._tars.split, finished, position)

    def end(self, total: int) -> None:
        """Finish after the last of `total` images."""
        self.finish((total, 0))
        if self._count <= self._look_at:
            self._look()

    def _look(self) -> None:
        """Raise `MasksError` where masks are among the images by their pixels, at an early time for a dataset that is large."""
        few, first, other = self._journal.flat(*_MASKS)
        if few and other:
            raise MasksError(
                f"{self._config.source}: {few} images hold few values in flat areas, as masks do, such as '{first}', unlike '{other}'; "
                "--images and --masks say what is what; --images '**/*' if all are images"
            )

    def abort(self) -> None:
        """Drop the tar file in progress."""
        if self._tars:
            self._tars.abort()

    def _reject(self, refused: Rejected) -> None:
        if refused.levels:
            self._levels.add(f"the mask of {refused.file}", refused.levels)
        if self._config.strict:
            raise ValueError(f"{self._config.source / refused.file}: {refused.reason} (--strict)")
        self._journal.reject(refused.file, refused.split, refused.reason)

    def _add(self, made: Made, sample: Sample) -> None:
        """Add a sample to its split, unless another split holds the image or one that looks like it."""
        for mask, levels in sample.levels.items():
            self._levels.add(mask, levels)
        journal, split, position = self._journal, sample.split, (made.rank, made.index)
        if not self._tars or self._tars.split != split:
            self.finish(position)
            first = len(journal.shards(split))
            self._tars = ShardWriter(self._stage.folder, split, self._config.max_shard_bytes, first)
            self._twins = journal.stored(outside=split) > 0
            self._known = journal.perceptual_hashes(split) if self._config.near_duplicates else None
        twin = journal.twin(sample.meta["sha256"], split) if self._twins else None
        near = near_duplicate(made.phash, *self._known) if self._known and made.phash is not None and not twin else None
        if twin or near:
            what = f"looks like {near[0]} ({near[1]} of 64 bits differ)" if near else f"the same bytes as {twin}"
            if "frame" in sample.meta:
                what = f"frame {sample.meta['frame']}: {what.replace('bytes', 'pixels')}"
            journal.reject(sample.meta["source"], split, f"{what}, which is in another split")
            return
        finished = self._tars.add(sample.key, sample.files)
        if finished:
            self._stage.finish(split, finished, position)
        if made.rank != self._rank:
            self._rank, self._count = made.rank, self._count + 1
            if self._count == self._look_at + 1:  # of the images before all frames and tiles are stored
                self._look()
        journal.store(made.rank, split, sample.extension, sample.meta, made.phash, made.flat, framed=sample.framed)
