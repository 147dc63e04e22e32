"""`medsass shard`: a source folder becomes a shard folder. Files that cannot be read are left out and listed.

Worker processes read, encode and check ahead of the one writer, which takes their samples in the catalog's order and writes
them. So nothing that a file does to a decoder ends the run, the bytes depend neither on the number of workers nor on
how often the run was killed, and memory is bounded by what is in flight, not by the length of the dataset.
"""

import json
import os
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, cast

from medsass import __version__, files
from medsass.config import ShardConfig
from medsass.data import dali
from medsass.data.sharding import forkserver, recipe, staging
from medsass.data.sharding.catalog import Catalog
from medsass.data.sharding.journal import Journal
from medsass.data.sharding.prepare import Preparation
from medsass.data.sharding.recipe import Recipe
from medsass.data.sharding.staging import MismatchError, Staging
from medsass.data.sharding.write import Writer
from medsass.data.shards import manifest
from medsass.data.shards.manifest import Manifest, Options, Split, StoredRecipe

_SHAPING = [item.name for item in fields(Options)]  # the options that the bytes depend on, beside the recipe


def write(config: ShardConfig, progress: Callable[[int, int], None] | None = None) -> Manifest:
    """Write the shards of `config.source` into `config.out` and return their manifest.

    Everything is written into a folder beside `out`, which takes its place when it is complete: until then, and if
    anything fails, what `out` held stays, and finished tar files are kept for `config.resume`. `progress(done, total)` is
    called as image files are done. Raises `ValueError`, `OSError` or (without DALI) `ImportError`, each with the remedy.
    """
    dali.check()
    chosen, config = resolve(config)
    with staging.opened(config.out, resume=config.resume, overwrite=config.overwrite) as stage:
        if stage is None:
            held = manifest.load(config.out)
            _compare({"recipe": held.recipe, **asdict(held.options)}, _state(chosen, config))
            return held
        forkserver.launch()
        journal, catalog = stage.journal, _catalog(stage.journal, chosen, config, stage.excluded)
        _write_samples(stage, catalog, chosen, config, progress)
        if not journal.stored():
            first = next(item for item in journal.rejected() if item["split"])
            reason = (
                f"none of its {sum(catalog.counts().values())} images can be used; {first['file']}: {first['reason']}"
            )
            raise ValueError(f"{config.source}: {reason}")
        rejected = [json.dumps(item, ensure_ascii=False) + "\n" for item in journal.rejected()]
        files.write(stage.folder / manifest.REJECTED, "".join(rejected))
        splits = {name: split for name in catalog.counts() if (split := journal.split(name)).samples}
        notes = [*catalog.notes(), *journal.notes()]
        result = Manifest(
            cast(StoredRecipe, asdict(chosen)), splits, _options(config), journal.converted(), len(rejected), notes
        )
        result.save(stage.folder)
        stage.publish()
    return result


def plan(config: ShardConfig) -> Manifest:
    """Return what `write` would find, from the names of the files alone: images by split, and notes. Writes nothing."""
    chosen, config = resolve(config)
    journal = Journal(None)
    catalog = _catalog(journal, chosen, config)
    splits = {name: Split(samples=count) for name, count in catalog.counts().items()}
    orphans = sum(1 for _ in journal.rejected())
    return Manifest(
        cast(StoredRecipe, asdict(chosen)), splits, _options(config), rejected=orphans, notes=catalog.notes()
    )


def resolve(config: ShardConfig) -> tuple[Recipe, ShardConfig]:
    """Return the recipe as the options change it, and the options with the recipe's values where they leave a choice."""
    chosen = recipe.load(config.recipe, config.variant)
    if config.images or config.masks:
        if chosen.name != "folder":
            raise ValueError(
                f"--images and --masks go with --recipe folder; recipe '{chosen.name}' says itself where they are"
            )
        images = replace(chosen.images[0], path=config.images or chosen.images[0].path, masks=config.masks)
        chosen = replace(chosen, images=(images,), masks=replace(chosen.masks, required=bool(config.masks)))
    if config.foreground:
        chosen = replace(chosen, masks=replace(chosen.masks, foreground=recipe.parse_foreground(config.foreground)))
    tile = chosen.tile if config.tile is None else config.tile
    return chosen, replace(config, tile=tile, range=chosen.range if config.range == "recipe" else config.range)


def _options(config: ShardConfig) -> Options:
    return Options(**{name: getattr(config, name) for name in _SHAPING})


def _state(chosen: Recipe, config: ShardConfig) -> dict[str, Any]:
    """Return everything that the bytes depend on, beside the source, as JSON gives it back."""
    state: dict[str, Any] = json.loads(json.dumps({"recipe": asdict(chosen), **asdict(_options(config))}))
    return state


def _compare(before: dict[str, Any], state: dict[str, Any]) -> None:
    """Raise `MismatchError` where the run that is to be resumed had other options."""
    for name, value in state.items():
        if before.get(name) != value:
            shown = f"--{name.replace('_', '-')}" if name in _SHAPING else name
            seen = "" if name == "recipe" else f": it was {before.get(name)} and is {value}"
            raise MismatchError(
                f"{shown} differs from the interrupted run's{seen}; give the same, or start again with --overwrite"
            )


def _catalog(journal: Journal, chosen: Recipe, config: ShardConfig, excluded: Iterable[Path] = ()) -> Catalog:
    """Return the interrupted run's catalog, after a check that nothing has changed since, or make one."""
    catalog = Catalog(journal.database, excluded)
    state = {"version": __version__, **_state(chosen, config)}
    before = journal["state"]
    if before is not None:
        _compare(before, state)
        if changed := ", ".join(catalog.listing.changed(config.source)):
            reason = f"{config.source} has changed since the run was interrupted ({changed})"
            raise MismatchError(f"{reason}; start again with --overwrite")
        return catalog
    catalog.fill(config.source, chosen, config.group_by)
    for orphan in () if chosen.masks.spare else catalog.orphans():
        if config.strict:
            raise ValueError(f"{config.source / orphan}: mask without an image (--strict)")
        journal.reject(orphan, "", "mask without an image")
    journal["state"] = state
    journal.commit()
    return catalog


def _write_samples(
    stage: Staging, catalog: Catalog, chosen: Recipe, config: ShardConfig, progress: Callable[[int, int], None] | None
) -> None:
    """Write every sample that is not in a finished tar file yet."""
    workers, total = config.workers or os.cpu_count() or 1, sum(catalog.counts().values())
    preparation, writer = Preparation(chosen, config, stage.copies, workers), Writer(stage, config)
    rank, region = stage.journal["position"] or (0, 0)
    stats = catalog.listing.stats
    listed = ((rank, entry, stats((entry.image, *entry.masks))) for rank, entry in catalog.entries(rank))
    try:
        with closing(preparation.prepare(listed, (rank, region))) as prepared:  # or workers would outlast an error
            for made in prepared:
                writer.write(made)
                if progress and made:
                    progress(made[-1].rank + 1, total)
        writer.finish((total, 0))
    except BaseException:
        writer.abort()
        raise
