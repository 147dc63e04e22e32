"""`medsass shard`: a source folder becomes a shard folder. Files that cannot be read are left out and listed.

Worker processes read, encode and check ahead of the one writer, which takes their samples in the catalog's order and writes
them. So nothing that a file does to a decoder ends the run, the bytes depend neither on the number of workers nor on
how often the run was killed, and memory is bounded by what is in flight, not by the length of the dataset.
"""

import json
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, cast

from medsass import __version__, files
from medsass.config import ShardConfig, schema
from medsass.data import dali
from medsass.data.sharding import recipe, staging
from medsass.data.sharding.catalog import globs, names, tars
from medsass.data.sharding.catalog.catalog import Catalog
from medsass.data.sharding.journal import LAYOUT, Journal
from medsass.data.sharding.levels import DatasetLevels
from medsass.data.sharding.recipe import Recipe
from medsass.data.sharding.staging import MismatchError
from medsass.data.sharding.workers.prepare import Preparation
from medsass.data.sharding.write import Writer
from medsass.data.shards import manifest
from medsass.data.shards.manifest import Manifest, Options, Split, StoredRecipe

_SHOWN = 10  # pairs of a dry run
_SHAPING = [item.name for item in fields(Options)]  # the options that the bytes depend on, beside the recipe


def write(config: ShardConfig, progress: Callable[[int, int], None] | None = None) -> Manifest:
    """Write the shards of `config.source` into `config.out` and return their manifest.

    Everything is written into a folder beside `out`, which takes its place when it is complete: until then, and if
    anything fails, what `out` held stays, and finished tar files are kept for `config.resume`. `progress(done, total)` is
    called as image files are done. Raises `ValueError`, `OSError` or (without DALI) `ImportError`, each with the remedy.
    """
    dali.check()
    chosen, config = resolve(config)
    given = chosen.images[0].path
    with staging.opened(config.out, resume=config.resume, overwrite=config.overwrite) as stage:
        if stage is None:
            held = manifest.load(config.out)
            state = _state(chosen, config)
            if chosen.tars or not given:  # the layout that was recognised stands in the manifest
                state["recipe"] |= {name: dict(held.recipe)[name] for name in ("images", "splits")}
            _compare({"recipe": held.recipe, **asdict(held.options)}, state)
            return held
        journal = stage.journal
        with closing(Preparation(config, stage.copies)) as preparation:  # its workers start while the catalog is made
            catalog, chosen = _catalog(journal, chosen, config, stage.excluded)
            levels = DatasetLevels(journal.database, chosen.masks.foreground)
            named = bool(given) or any(images.masks for images in chosen.images)
            writer = Writer(stage, config, levels, named=named)
            _write_samples(writer, journal, catalog, preparation, chosen, progress)
        if not journal.stored():
            first = next((f"{item['file']}: {item['reason']}" for item in journal.rejected() if item["split"]), "")
            first = first or f"all tiles have less foreground than --min-foreground {config.min_foreground:g}; lower it"
            raise ValueError(
                f"{config.source}: none of its {sum(catalog.counts().values())} images can be used; {first}"
            )
        rejected = [json.dumps(item, ensure_ascii=False) + "\n" for item in journal.rejected()]
        files.write(stage.folder / manifest.REJECTED, "".join(rejected))
        splits = {name: split for name in catalog.counts() if (split := journal.split(name)).samples}
        lost = [
            f"WARNING: split '{name}' is empty, because its images were left out; mend them, or share anew without them"
            for name in catalog.counts()
            if name not in splits
        ]
        masks = sum(split.masks for split in splits.values())
        unseen = levels.unseen() if masks else []
        notes = [*catalog.notes(), *lost, *unseen, *journal.notes()]
        result = Manifest(
            cast(StoredRecipe, asdict(chosen)), splits, _options(config), journal.converted(), len(rejected), notes
        )
        result.save(stage.folder, sealed=True)
        stage.publish()
    return result


def plan(config: ShardConfig) -> tuple[Manifest, list[tuple[str, tuple[str, ...]]]]:
    """Return what `write` would find, from the names of the files alone: images by split, notes, and the first pairs of an
    image and its masks. Writes nothing.
    """
    chosen, config = resolve(config)
    journal = Journal(None)
    apart = [folder for folder in staging.apart(config.out) if folder != config.source]
    catalog, chosen = _catalog(journal, chosen, config, apart)
    splits = {name: Split(samples=count) for name, count in catalog.counts().items()}
    orphans = sum(1 for _ in journal.rejected())
    found = Manifest(
        cast(StoredRecipe, asdict(chosen)), splits, _options(config), rejected=orphans, notes=catalog.notes()
    )
    return found, catalog.pairs(_SHOWN)


def resolve(config: ShardConfig) -> tuple[Recipe, ShardConfig]:
    """Return the recipe as the options change it, and the options with the recipe's values where they leave a choice."""
    chosen = recipe.load(config.recipe, config.variant)
    if chosen.tars:
        source, pattern = tars.split_pattern(config.source)
        chosen, config = replace(chosen, tars=pattern or chosen.tars), replace(config, source=source)
    if config.images or config.masks:
        if chosen.name != recipe.FOLDER:
            raise ValueError(
                f"--images and --masks go with --recipe folder; recipe '{chosen.name}' says itself where they are"
            )
        folder = next(filter(None, map(names.masks_folder, globs.expand(config.images))), "")
        if folder and not names.may_be_task(folder):
            raise ValueError(
                f"--images '{config.images}' names a folder of masks, '{folder}'; rename it if it holds images"
            )
        images = replace(chosen.images[0], path=config.images or "**/*", masks=config.masks)
        chosen = replace(chosen, images=(images,))
    masks = chosen.masks
    if config.foreground:
        masks = replace(masks, foreground=recipe.parse_foreground(config.foreground))
    masks = replace(masks, resize=masks.resize or config.resize_masks, turn=masks.turn or config.turn_masks)
    chosen = replace(chosen, masks=masks, window=config.bounds() or chosen.window)
    if config.split:
        if all(images.split for images in chosen.images):
            raise ValueError(f"--split: recipe '{chosen.name}' has the splits of its owners; drop the option")
        chosen = replace(chosen, splits=recipe.parse_shares(config.split), exact_splits=True)
    if given := config.selected():
        chosen = replace(chosen, images=tuple(replace(images, **given) for images in chosen.images))
    tile = chosen.tile if config.tile is None else config.tile
    rule = chosen.range if config.range == "recipe" else config.range
    return chosen, replace(config, tile=tile, range=rule, **_reading(chosen))


def _reading(chosen: Recipe) -> dict[str, Any]:
    """Return the values of `Reading` that all images of a recipe share; None where they differ, or nothing is said."""
    found: dict[str, Any] = {}
    for name in ("array", "channels", "frames", "axis", "every"):
        values = {getattr(images, name) for images in chosen.images}
        found[name] = values.pop() if len(values) == 1 else None
    shown = {"channels": ",".join(map(str, found["channels"] or ())), "frames": str(found["frames"] or "")}
    window = ",".join(str(end).removesuffix(".0") for end in chosen.window or ())
    texts = (*shown.items(), ("window", window), *((name, found[name]) for name in ("array", "axis")))
    return found | {name: text or None for name, text in texts}


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
            if name in ("version", "journal"):
                raise MismatchError(
                    "the interrupted run is of another version of medsass; start again with --overwrite"
                )
            seen = "" if name == "recipe" else f": it was {before.get(name)} and is {value}"
            raise MismatchError(
                f"{shown} differs from the interrupted run's{seen}; give the same, or start again with --overwrite"
            )


def _catalog(
    journal: Journal, chosen: Recipe, config: ShardConfig, excluded: Iterable[Path] = ()
) -> tuple[Catalog, Recipe]:
    """Return the interrupted run's catalog, after a check that nothing has changed since, or make one; and the recipe with the
    layout that was recognised.
    """
    catalog = Catalog(journal.database, excluded, follow=config.follow_links)
    state = {"version": __version__, "journal": LAYOUT, **_state(chosen, config)}
    before = journal["state"]
    if before is not None:
        _compare(before, state)
        found = globs.expand(chosen.tars) if chosen.tars else ()
        if changed := ", ".join(catalog.listing.changed(config.source, found, chosen.classes.extension)):
            reason = f"{config.source} has changed since the run was interrupted ({changed})"
            raise MismatchError(f"{reason}; start again with --overwrite")
        return catalog, schema.check(Recipe, journal["recipe"])
    chosen = catalog.fill(config.source, chosen, config.group_by)
    journal["recipe"] = asdict(chosen)
    for orphan in () if chosen.masks.spare else catalog.orphans():
        if config.strict:
            raise ValueError(f"{config.source / orphan}: mask without an image (--strict)")
        journal.reject(orphan, "", "mask without an image")
    for tar, fault in catalog.listing.damaged.items():
        if config.strict:
            raise ValueError(f"{config.source / tar}: {fault} (--strict)")
        journal.reject(tar, "", fault)
    journal["state"] = state
    journal.commit()
    return catalog, chosen


def _write_samples(
    writer: Writer,
    journal: Journal,
    catalog: Catalog,
    preparation: Preparation,
    chosen: Recipe,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Write every sample that is not in a finished tar file yet."""
    total = sum(catalog.counts().values())
    rank, region = journal["position"] or (0, 0)
    try:
        for made in preparation.prepare(chosen, catalog.listed(rank), (rank, region)):
            writer.write(made)
            if progress and made:
                progress(made[-1].rank + 1, total)
        writer.end(total)
    except BaseException:
        writer.abort()
        raise
