"""Check of a shard folder against its manifest, to the byte. Every tar file is read, from a folder or an address; what its samples say
is looked into where no seal vouches for it, as in a manifest that was edited.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from medsass import files
from medsass.data.shards import manifest, parallel, tar
from medsass.data.shards.damage import NEW, SIDE, TOGETHER, Problem
from medsass.data.shards.manifest import Manifest, Split

_STRAY = "delete it, or move it elsewhere: it is not part of this dataset"
_SUFFIXES = (".tar", tar.INDEX, tar.CHECKSUMS)
_ROUNDING = 0.5e-6 + 1e-9  # the manifest holds coverage to 6 digits
_MOST = 8  # counts of a split that differ and are named


def verify(folder: Path, progress: Callable[[int, int], None] | None = None, *, trusting: bool = True) -> list[Problem]:
    """List everything that is wrong with a shard folder, in the manifest's order; empty if it is intact.

    Args:
        folder: the shard folder or its address.
        progress: is called as `progress(done, total)` with bytes of tar files as they are read.
        trusting: whether a seal that fits counts.
    """
    try:
        stated = manifest.read(folder)
    except files.UnreachableError:
        raise
    except (OSError, ValueError) as error:
        text, _, remedy = str(error).removeprefix(str(folder / manifest.NAME)).lstrip(": ").rpartition("; ")
        return [Problem(manifest.NAME, text, remedy)]
    shards = [shard for split in stated.splits.values() for shard in split.shards]
    paths = [folder / shard.file for shard in shards]
    total, done = sum(path.stat().st_size for path in paths if path.is_file()), 0

    def tick(count: int) -> None:
        nonlocal done
        done += count
        if progress:
            progress(done, max(done, total))

    problems: list[Problem] = []
    holders: dict[str, str] = {}  # the tar file of each key
    results = parallel.find(folder, shards, tick, sealed=trusting and manifest.is_sealed(folder, stated))
    for name, split in stated.splits.items():
        counted, covered, intact = Counter[tuple[str, ...]](), 0.0, True
        for shard in split.shards:
            found, tally = next(results)
            problems += found
            if not tally:
                intact = False
                continue
            counted.update(tally.counts)
            covered += tally.coverage
            for key in tally.keys:
                if key in holders:
                    problems.append(Problem(shard.file, f"sample {key} is also in {holders[key]}", NEW))
                holders[key] = shard.file
        problems += _counts(name, split, counted, covered) if intact else ()
    links = [path.name for path in paths if files.is_local(folder) and files.leads_out(path, folder)]
    problems += [Problem(name, "is a symbolic link out of the folder", "put a copy in its place") for name in links]
    return [*problems, *_beside(folder, stated, {path.stem for path in paths})]


def _counts(name: str, split: Split, counted: Counter[tuple[str, ...]], covered: float) -> Iterator[Problem]:
    """Find counts of a split that are not those of its tar files.

    Args:
        name: of the split.
        split: what the manifest says.
        counted: as in `Contents.counts`.
        covered: share of foreground, summed over the masks.
    """
    said = Counter[tuple[str, ...]]({("samples",): split.samples, ("masks",): split.masks})
    for what in ("classes", "sizes", "formats"):
        said.update({(what, key): count for key, count in getattr(split, what).items()})
    text = f"split {name}: {{}}: says {{}}, the tar files hold {{}}"
    keys = [key for key in dict.fromkeys([*said, *counted]) if said[key] != counted[key]]
    for key in keys[:_MOST]:
        yield Problem(manifest.NAME, text.format(", ".join(key), said[key], counted[key]), TOGETHER)
    if more := len(keys[_MOST:]):
        yield Problem(manifest.NAME, f"split {name}: {more} more counts differ", TOGETHER)
    mean, coverage = covered / masks if (masks := counted["masks",]) else None, split.mask_coverage
    if (mean is None) != (coverage is None) or abs((mean or 0) - (coverage or 0)) > _ROUNDING:
        yield Problem(manifest.NAME, text.format("mask_coverage", coverage, mean and round(mean, 6)), TOGETHER)


def _beside(folder: Path, stated: Manifest, stems: set[str]) -> Iterator[Problem]:
    """Find what is wrong with `rejected.jsonl`, and files of medsass that belong to none of the tar files `stems`."""
    path = folder / manifest.REJECTED
    lines = files.read(path, 1 << 30).count(b"\n") if path.is_file() else None
    if lines is None and stated.rejected:
        yield Problem(path.name, f"is missing, but the manifest says that it has {stated.rejected} lines", SIDE)
    elif lines is not None and lines != stated.rejected:
        yield Problem(path.name, f"has {lines} lines, but the manifest says {stated.rejected}", SIDE)
    try:
        names = sorted(path.name for path in folder.iterdir())
    except (OSError, NotImplementedError):
        return  # an address that lists nothing
    for name in names:
        if name.endswith(".part"):
            yield Problem(name, "is left over from an interrupted run", _STRAY)
        elif name.endswith(_SUFFIXES) and Path(name).stem not in stems:
            yield Problem(name, "is not named in the manifest", _STRAY)
