"""A source folder becomes a shard folder: what cannot be read is left out and listed, what is written once stays.

Workers read and encode ahead of the one writer, which takes their records in the catalog's order, has them decoded in
batches by the decoder that training uses, and writes them: the bytes do not depend on the number of workers, nor on how
often the run was killed on the way. Memory is bounded by what is under way, not by the length of the dataset.
"""

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from medsass import __version__, files
from medsass.config import ShardConfig
from medsass.data import dali
from medsass.data.sharding import recipe, staging
from medsass.data.sharding.catalog import Catalog
from medsass.data.sharding.journal import Journal
from medsass.data.sharding.prepare import Intake
from medsass.data.sharding.recipe import Recipe
from medsass.data.sharding.staging import MismatchError, Staging
from medsass.data.sharding.write import Admission, batches
from medsass.data.shards import manifest
from medsass.data.shards.manifest import Manifest, Split

_SHAPING = (
    "variant",
    "group_by",
    "size",
    "tile",
    "stride",
    "min_foreground",
    "level",
    "encode",
    "depth",
    "range",
    "near_duplicates",
    "max_shard_bytes",
)  # fmt: skip - the options that the bytes depend on, beside the recipe


def write(config: ShardConfig, progress: Callable[[int, int], None] | None = None) -> Manifest:
    """Write the shards of `config.source` into `config.out` and return their manifest.

    Everything is written into a folder beside `out`, which takes its place when it is whole: until then, and if anything
    fails, what `out` held stays, and finished tar files are kept for `config.resume`. `progress(done, total)` is called
    as image files are done. Raises `ValueError`, `OSError` or (without DALI) `ImportError`, each with the remedy.
    """
    dali.import_dali()
    chosen, config = resolve(config)
    with staging.opened(config.out, resume=config.resume, overwrite=config.overwrite) as stage:
        if stage is None:
            return _finished(chosen, config)
        found = _catalog(stage.journal, chosen, config, stage.apart)
        _run(stage, found, chosen, config, progress)
        result = _manifest(stage.journal, found, chosen, config)
        if not stage.journal.stored():
            first = next(item for item in stage.journal.rejected() if item["split"])
            raise ValueError(
                f"{config.source}: none of its {len(found)} images can be used; {first['file']}: {first['reason']}"
            )
        lines = (json.dumps(item, ensure_ascii=False) + "\n" for item in stage.journal.rejected())
        files.write(stage.folder / manifest.REJECTED, "".join(lines))
        result.save(stage.folder)
        stage.publish()
    return result


def plan(config: ShardConfig) -> Manifest:
    """What `write` would find, from the names of the files alone: images by split, and remarks. Nothing is written."""
    chosen, config = resolve(config)
    journal = Journal(None)
    found = _catalog(journal, chosen, config)
    splits = {name: Split(samples=count) for name, count in found.counts().items()}
    orphans = sum(1 for _ in journal.rejected())
    return Manifest(asdict(chosen), splits, _options(config), rejected=orphans, notes=found.notes())


def resolve(config: ShardConfig) -> tuple[Recipe, ShardConfig]:
    """The recipe as the options change it, and the options with what the recipe says where they leave it open."""
    chosen = recipe.load(config.recipe, config.variant)
    if config.images or config.masks:
        if chosen.name != "folder":
            raise ValueError(
                f"--images and --masks go with --recipe folder; recipe '{chosen.name}' says itself where they are"
            )
        images = replace(chosen.images[0], path=config.images or chosen.images[0].path, masks=config.masks)
        chosen = replace(chosen, images=(images,), masks=replace(chosen.masks, required=bool(config.masks)))
    if config.foreground:
        chosen = replace(chosen, masks=replace(chosen.masks, foreground=recipe.foreground(config.foreground)))
    tile = chosen.tile if config.tile is None else config.tile
    return chosen, replace(config, tile=tile, range=chosen.range if config.range == "recipe" else config.range)


def _options(config: ShardConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in _SHAPING}


def _state(chosen: Recipe, config: ShardConfig) -> dict[str, Any]:
    """All that the bytes depend on, beside the source, as JSON gives it back."""
    state: dict[str, Any] = json.loads(json.dumps({"recipe": asdict(chosen), **_options(config)}))
    return state


def _compare(before: dict[str, Any], state: dict[str, Any]) -> None:
    """Raise `MismatchError` where a run that is to be gone on with had other options."""
    for name, value in state.items():
        if before.get(name) != value:
            shown = f"--{name.replace('_', '-')}" if name in _SHAPING else name
            seen = "" if name == "recipe" else f": it was {before.get(name)} and is {value}"
            raise MismatchError(
                f"{shown} differs from the interrupted run's{seen}; give the same, or start again with --overwrite"
            )


def _finished(chosen: Recipe, config: ShardConfig) -> Manifest:
    """The manifest of a dataset that --resume found finished."""
    held = manifest.load(config.out)
    _compare({"recipe": held.recipe, **held.options}, _state(chosen, config))
    return held


def _catalog(journal: Journal, chosen: Recipe, config: ShardConfig, apart: Iterable[Path] = ()) -> Catalog:
    """The catalog: of the interrupted run, after a check that nothing has changed since, or made now."""
    found = Catalog(journal.database, apart)
    state = {"version": __version__, **_state(chosen, config)}
    before = journal["state"]
    if before is not None:
        _compare(before, state)
        changed = found.listing.changed(config.source)
        if changed:
            raise MismatchError(
                f"{config.source} has changed since the run was interrupted ({', '.join(changed)}); start again with --overwrite"
            )
        return found
    found.fill(config.source, chosen, config.group_by)
    for orphan in () if chosen.masks.spare else found.orphans():
        if config.strict:
            raise ValueError(f"{config.source / orphan}: mask without an image (--strict)")
        journal.reject(orphan, "", "mask without an image")
    journal["state"] = state
    journal.commit()
    return found


def _run(
    stage: Staging, found: Catalog, chosen: Recipe, config: ShardConfig, progress: Callable[[int, int], None] | None
) -> None:
    """Write every sample that is not in a finished tar file yet."""
    workers, total = config.workers or os.cpu_count() or 1, len(found)
    intake, admission = Intake(chosen, config, stage.fetched, workers), Admission(stage, config, workers)
    position = stage.journal.position()
    listed = (
        (rank, sample, found.listing.stats((sample.image, *sample.masks)))
        for rank, sample in found.samples(position[0])
    )
    try:
        for batch in batches(intake.outcomes(listed, position)):
            admission.take(batch)
            if progress:
                progress(batch[-1][0].rank + 1, total)
        admission.finish((total, 0))
    except BaseException:
        admission.abort()
        raise


def _manifest(journal: Journal, found: Catalog, chosen: Recipe, config: ShardConfig) -> Manifest:
    splits = {name: journal.split(name) for name in found.counts()}
    splits = {name: split for name, split in splits.items() if split.samples}
    rejected = sum(1 for _ in journal.rejected())
    notes = [*found.notes(), *journal.notes()]
    return Manifest(asdict(chosen), splits, _options(config), journal.converted(), rejected, notes)
