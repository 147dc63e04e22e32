"""Recipe + source folder -> tar shards, DALI index and manifest.

Every image is read and then decoded once with the decoder that training uses; what fails is left out, counted and
listed. Reading runs in threads (decoders release the GIL) a bounded number of samples ahead of the one writer, which
takes them in the catalog's order: the bytes do not depend on the number of threads.
"""

import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from medsass.config import ShardConfig
from medsass.data import catalog, decoder, manifest, recipe
from medsass.data.catalog import Sample
from medsass.data.manifest import Manifest, Split
from medsass.data.recipe import Images, Masks, Recipe
from medsass.data.record import Record, prepare
from medsass.data.tar import ShardWriter

_AHEAD = 64  # samples in memory at most
_OURS = re.compile(rf"({re.escape(manifest.NAME)}|[a-z][a-z0-9_]*-\d{{6}}\.(tar|idx))(\.part)?")

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Rejected:
    """A file that was left out, and why."""

    file: str
    reason: str


def write(config: ShardConfig, progress: Callable[[int, int], None] | None = None) -> Manifest:
    """Write the shards of `config.source` into `config.out` and return their manifest.

    Everything is written into `<out>.part`, which takes the place of `out` when it is whole: until then, and if anything
    fails, what `out` held stays. `progress(done, total)` is called after each sample. Raises `ValueError`,
    `FileNotFoundError`, `FileExistsError` or (without DALI) `ImportError`, each with the remedy.
    """
    decoder.import_dali()
    chosen = _with_globs(recipe.load(config.recipe), config)
    found = catalog.find(config.source, chosen)
    rejected = [Rejected(path, "mask without an image") for path in found.orphans]
    if config.strict and rejected:
        raise ValueError(f"{config.source / rejected[0].file}: {rejected[0].reason} (--strict)")
    _check_out(config.out, config.overwrite)
    out = config.out.resolve()  # a link keeps pointing at the folder that is replaced
    staging, old = out.with_name(out.name + ".part"), out.with_name(out.name + ".old")
    _remove(staging)
    staging.mkdir(parents=True)
    result = Manifest(
        asdict(chosen), {sample.split: Split() for sample in found.samples}, config.size, notes=found.notes
    )
    writers = {name: ShardWriter(staging, name, config.max_shard_bytes) for name in result.splits}

    def work(sample: Sample) -> Record | Rejected:
        try:
            return prepare(sample, config.source, chosen.masks, config.size)
        except (ValueError, OSError) as error:
            return Rejected(sample.image, str(error))

    try:
        with ThreadPoolExecutor(config.workers or os.cpu_count()) as pool:
            for done, item in enumerate(_in_order(pool, work, found.samples), 1):
                if isinstance(item, Record):
                    writers[item.split].add(item.key, item.files)
                    _count(result, item)
                elif config.strict:
                    raise ValueError(f"{config.source / item.file}: {item.reason} (--strict)")
                else:
                    rejected.append(item)
                if progress:
                    progress(done, len(found.samples))
        for name, split in result.splits.items():
            split.shards = writers[name].close()
        result.rejected = [asdict(item) for item in rejected]
        if not any(split.samples for split in result.splits.values()):
            bad = next(item for item in rejected if item.file not in found.orphans)
            raise ValueError(
                f"{config.source}: none of its {len(found.samples)} images can be used; {bad.file}: {bad.reason}"
            )
        _summarise(result)
        result.save(staging)
    except BaseException:
        for writer in writers.values():
            writer.abort()
        _remove(staging)
        raise
    if out.is_dir():
        out.replace(old)
    staging.replace(out)
    _remove(old)
    return result


def _with_globs(chosen: Recipe, config: ShardConfig) -> Recipe:
    """The recipe 'folder' with the globs of --images and --masks; any other recipe as it is, which says where they are."""
    if not (config.images or config.masks):
        return chosen
    if chosen.name != "folder":
        raise ValueError(
            f"--images and --masks go with --recipe folder; recipe '{chosen.name}' says itself where they are"
        )
    images = Images(config.images or chosen.images[0].path, config.masks)
    return replace(chosen, images=(images,), masks=Masks(required=bool(config.masks)))


def _check_out(out: Path, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out} is a file; OUT must be a folder")
    existing = sorted(out.iterdir()) if out.is_dir() else []
    if existing and not overwrite:
        raise FileExistsError(f"{out} is not empty; choose another folder, or replace its shards with --overwrite")
    if out.is_mount():
        raise FileExistsError(f"{out} is a mount point and cannot be replaced; take a folder inside of it as OUT")
    for path in existing:
        if not _OURS.fullmatch(path.name):
            raise FileExistsError(f"{out} holds files that are not shards, such as {path.name}; choose another folder")


def _remove(folder: Path) -> None:
    """Remove a shard folder if it is there, and nothing from it but what medsass wrote."""
    if folder.is_dir():
        for path in folder.iterdir():
            if _OURS.fullmatch(path.name):
                path.unlink()
        folder.rmdir()


def _in_order(pool: ThreadPoolExecutor, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """`map` over a thread pool, in order and a bounded number of items ahead of what was taken."""
    pending: deque[Future[R]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) >= _AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


def _count(result: Manifest, record: Record) -> None:
    split, meta = result.splits[record.split], record.meta
    split.samples += 1
    if "mask_coverage" in meta:
        split.masks += 1
        split.mask_coverage = (split.mask_coverage or 0.0) + meta["mask_coverage"]  # the sum, until _summarise
    _add(split.sizes, f"{meta['width']}x{meta['height']}")
    if meta["class"] is not None:
        _add(split.classes, meta["class"])
    if meta["converted"]:
        _add(result.converted, meta["converted"])


def _add(counts: dict[str, int], key: Any) -> None:
    counts[key] = counts.get(key, 0) + 1


def _summarise(result: Manifest) -> None:
    result.splits = {name: split for name, split in result.splits.items() if split.samples}
    for split in result.splits.values():
        if split.mask_coverage is not None:
            split.mask_coverage = round(split.mask_coverage / split.masks, 6)
        split.sizes, split.classes = dict(sorted(split.sizes.items())), dict(sorted(split.classes.items()))
    result.converted = dict(sorted(result.converted.items()))
