"""Is a shard folder what its manifest says, to the byte? And where not: which byte of which sample, and what to do.

The SHA-256 in the manifest says whether a tar file is right; its checksums say where it is not. Every tar file is read
once, in pieces, from a folder or from an address.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from medsass.data.shards import damage, manifest, tar
from medsass.data.shards.census import Census
from medsass.data.shards.damage import NEW, SIDE, TOGETHER
from medsass.data.shards.damage import Problem as Problem
from medsass.data.shards.manifest import Manifest, Split
from medsass.data.shards.tar import Shard

_STRAY = "delete it, or move it elsewhere: it is no part of this dataset"
_OURS = (".tar", tar.INDEX, tar.CHECKSUMS, ".part")
_ROUNDING = 0.5e-6 + 1e-9  # the manifest holds coverage to 6 digits
_FEW = 3  # differences that one line names


def verify(folder: Path, progress: Callable[[int, int], None] | None = None) -> list[Problem]:
    """All that is wrong with a shard folder, in the manifest's order; nothing if it is intact.

    `folder` may be an address. `progress(done, total)` is called with bytes of tar files as they are read.
    """
    try:
        stated = _stated(folder)
    except (OSError, ValueError) as error:
        text, _, remedy = str(error).removeprefix(str(folder / manifest.NAME)).lstrip(": ").rpartition("; ")
        return [Problem(manifest.NAME, None, text, remedy)]
    return list(_Verifier(folder, stated, progress).problems())


def _stated(folder: Path) -> Manifest:
    """The manifest, after a check that its list of tar files can be gone through. Raises what `manifest.read` raises."""
    stated = manifest.read(folder)
    shards = [shard for split in stated.splits.values() for shard in split.shards]
    names = {shard.file for shard in shards if _plausible(shard)}
    if len(names) < len(shards):
        raise ValueError("its list of tar files makes no sense; run medsass shard again")
    return stated


def _plausible(shard: Shard) -> bool:
    """Whether the fields have their types, and the name is that of a tar file in the folder itself."""
    numbers = (shard.samples, shard.bytes)
    texts = isinstance(shard.file, str) and isinstance(shard.sha256, str)
    plain = texts and shard.file.endswith(".tar") and Path(shard.file).name == shard.file
    return plain and all(isinstance(number, int) and number >= 0 for number in numbers)


class _Verifier:
    """Goes through a folder once, from the manifest's first tar file to the last."""

    def __init__(self, folder: Path, stated: Manifest, progress: Callable[[int, int], None] | None) -> None:
        self.folder, self.stated, self.progress = folder, stated, progress
        self.shards = [shard for split in stated.splits.values() for shard in split.shards]
        self.hashes = {shard.sha256: shard.file for shard in self.shards}
        self.seen: dict[str, str] = {}  # the tar file of each key
        self.done = 0
        self.total = sum(_size(folder / shard.file) for shard in self.shards)

    def problems(self) -> Iterator[Problem]:
        for name, split in self.stated.splits.items():
            parts = []
            for shard in split.shards:
                found, census = damage.find(self.folder, shard, self.hashes, self._tick)
                yield from found
                yield from self._twice(shard, census.keys if census else [])
                parts.append(census)
            yield from _split(name, split, parts)
        yield from self._rejected()
        yield from self._stray()

    def _tick(self, count: int) -> None:
        self.done += count
        if self.progress:
            self.progress(self.done, max(self.done, self.total))

    def _twice(self, shard: Shard, keys: list[str]) -> Iterator[Problem]:
        for key in keys:
            if key in self.seen:
                yield Problem(shard.file, None, f"sample {key} is also in {self.seen[key]}", NEW)
            self.seen[key] = shard.file

    def _rejected(self) -> Iterator[Problem]:
        path = self.folder / manifest.REJECTED
        stated = self.stated.rejected
        if not path.is_file():
            if stated:
                yield Problem(path.name, None, f"is missing, but the manifest says that it has {stated} lines", SIDE)
        elif (lines := path.read_bytes().count(b"\n")) != stated:
            yield Problem(path.name, None, f"has {lines} lines, but the manifest says {stated}", SIDE)

    def _stray(self) -> Iterator[Problem]:
        named = {shard.file.removesuffix(".tar") + suffix
                 for shard in self.shards for suffix in (".tar", tar.INDEX, tar.CHECKSUMS)}  # fmt: skip
        try:
            names = sorted(path.name for path in self.folder.iterdir())
        except (OSError, NotImplementedError):
            return  # an address that lists nothing
        for name in names:
            if name.endswith(_OURS) and name not in named:
                text = "is a rest of an interrupted run" if name.endswith(".part") else "is not named in the manifest"
                yield Problem(name, None, text, _STRAY)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _split(name: str, split: Split, parts: list[Census | None]) -> Iterator[Problem]:
    """Where the manifest's counts of a split are not those of its tar files, as far as these can be counted."""
    total = Census()
    for part in parts:
        if part is None:
            samples = sum(shard.samples for shard in split.shards)
            if samples != split.samples:
                yield _differs(name, "samples", split.samples, f"{samples} in its list of tar files")
            return
        total.merge(part)
    counts = total.counts
    for what in ("samples", "masks"):
        if getattr(split, what) != getattr(counts, what):
            yield _differs(name, what, getattr(split, what), getattr(counts, what))
    for what in ("classes", "sizes", "formats"):
        stated, counted = getattr(split, what), getattr(counts, what)
        if not isinstance(stated, dict):
            yield _differs(name, what, stated, counted)
        else:
            keys = [key for key in sorted({*stated, *counted}, key=str) if stated.get(key, 0) != counted.get(key, 0)]
            for key in keys[:_FEW]:
                yield _differs(name, f"{what}, {key}", stated.get(key, 0), counted.get(key, 0))
            if keys[_FEW:]:
                yield Problem(manifest.NAME, None, f"split {name}: {len(keys) - _FEW} more {what} differ", TOGETHER)
    mean = (counts.mask_coverage or 0.0) / counts.masks if counts.masks else None
    if not _same(split.mask_coverage, mean):
        shown = None if mean is None else round(mean, 6)
        yield _differs(name, "mask_coverage", split.mask_coverage, shown)


def _differs(split: str, what: str, stated: Any, counted: Any) -> Problem:
    text = (
        f"split {split}: {what}: says {stated!r:.80}, the tar files hold {counted if counted is not None else 'none'}"
    )
    return Problem(manifest.NAME, None, text, TOGETHER)


def _same(stated: Any, mean: float | None) -> bool:
    if mean is None or not isinstance(stated, float | int):
        return stated is mean
    return abs(stated - mean) <= _ROUNDING
