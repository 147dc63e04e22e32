"""What a shard folder says of itself: `manifest.json`, written last, so that a folder with one is complete.

It holds no date and no absolute path: the same source and recipe give the same bytes.
"""

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from medsass import files
from medsass.data.shards.tar import INDEX, Member, Shard

NAME = "manifest.json"
REJECTED = "rejected.jsonl"  # beside it: one {"file", "split", "reason"} a line
FORMAT = 2


@dataclass
class Split:
    """One split: its tar files; samples, and how many have a mask; samples by class label; the mean share of
    foreground over the masks (None without masks); samples by "width x height"; image files by extension.
    """

    shards: list[Shard] = field(default_factory=list)
    samples: int = 0
    masks: int = 0
    classes: dict[str, int] = field(default_factory=dict)
    mask_coverage: float | None = None
    sizes: dict[str, int] = field(default_factory=dict)
    formats: dict[str, int] = field(default_factory=dict)


@dataclass
class Manifest:
    """A dataset in shards. `recipe` is the recipe as used and `options` are those of `medsass shard` that shaped the
    samples; `converted` counts samples by what was done to their pixels; `rejected` is the number of lines of
    `rejected.jsonl`, which lists what was left out.
    """

    recipe: dict[str, Any]
    splits: dict[str, Split]
    options: dict[str, Any] = field(default_factory=dict)
    converted: dict[str, int] = field(default_factory=dict)
    rejected: int = 0
    notes: list[str] = field(default_factory=list)
    format: int = FORMAT

    @property
    def polarity(self) -> str:
        """The recipe's polarity: "bright", "dark" or "auto"."""
        return str(self.recipe["polarity"])

    @property
    def refine(self) -> str:
        """The recipe's steps that refine labels, "" for none."""
        return str(self.recipe.get("refine", ""))  # shards of older versions have none

    @property
    def depth(self) -> int:
        """Bits of a stored channel: 8, or 16 where images are (H, W) uint16."""
        return int(self.options.get("depth", 8))

    @property
    def tile(self) -> int:
        """Side of the tiles that images were cut into, in pixels; 0 where they are whole."""
        return int(self.options.get("tile", 0))

    def split(self, name: str) -> Split:
        """The split of that name. Raises `ValueError` that names those that exist."""
        if name not in self.splits:
            raise ValueError(
                f"these shards have no split '{name}', only {', '.join(self.splits)}; choose one of them, "
                "or run medsass shard with more images or a recipe of other shares"
            )
        return self.splits[name]

    def save(self, folder: Path) -> None:
        """Write `manifest.json` into `folder`."""
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False)
        files.write(folder / NAME, text + "\n")


def load(folder: Path) -> Manifest:
    """The manifest of a shard folder, after a check that every tar file and index that it names is there, of the size
    it names. Raises `FileNotFoundError` or `ValueError` that name the file and the remedy.
    """
    manifest = read(folder)
    check(folder, manifest)
    return manifest


def read(folder: Path) -> Manifest:
    """The manifest of a shard folder, whatever became of the files that it names. Raises as `load` does."""
    path = folder / NAME
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: {folder} is not a finished shard folder; make one with: medsass shard SOURCE {folder}"
        )
    try:
        return parse(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def parse(data: bytes) -> Manifest:
    """What `Manifest.save` wrote. Raises `ValueError` with the remedy where `data` is something else."""
    try:
        table = json.loads(data.decode("utf-8"))
        if table.pop("format") != FORMAT:
            raise ValueError("it is of another medsass version")
        splits = {name: Split(**{**split, "shards": [Shard(**shard) for shard in split["shards"]]})
                  for name, split in table.pop("splits").items()}  # fmt: skip
        return Manifest(splits=splits, **table)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"not a medsass manifest ({error}); run medsass shard again") from error


def check(folder: Path, manifest: Manifest) -> None:
    """Raise `FileNotFoundError` or `ValueError` where a tar file or index that `manifest` names is not in `folder`, or
    a tar file is not of the size it names; of one that is cut off the error names the first sample that is harmed.
    """
    for split in manifest.splits.values():
        for shard in split.shards:
            _check(folder / shard.file, shard)


def _check(tar: Path, shard: Shard) -> None:
    for path in (tar, tar.with_suffix(INDEX)):
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} is missing though the manifest names it; run medsass shard again with --overwrite"
            )
    size = tar.stat().st_size
    if size != shard.bytes:
        key = _cut(tar, size)
        raise ValueError(
            f"{tar}: {size} bytes, but the manifest says {shard.bytes}{f' (cut off at sample {key})' if key else ''}; "
            f"run: medsass verify {tar.parent}"
        )


def _cut(tar: Path, size: int) -> str:
    """The first sample that is not whole in a tar file of `size` bytes, by its index; "" where none is known."""
    with suppress(OSError, ValueError):
        for line in tar.with_suffix(INDEX).read_text("utf-8").splitlines()[1:]:
            offset, length, name = line.split(" ")[-3:]
            if int(offset) + int(length) > size:
                return Member(name, 0, 0).key
    return ""


def digest(folder: Path) -> str:
    """SHA-256 of the manifest: changes when any sample of the dataset does, because it holds the tar files' hashes."""
    return hashlib.sha256((folder / NAME).read_bytes()).hexdigest()
