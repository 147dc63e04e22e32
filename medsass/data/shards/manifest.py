"""The manifest of a shard folder, `manifest.json`. It is written last, so a folder that has one is complete.

It holds no date and no absolute path: the same source and recipe give the same bytes.
"""

import hashlib
import json
import re
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, field
from pathlib import Path
from typing import Annotated, Literal, NotRequired

from annotated_types import Ge, Le
from pydantic import ConfigDict, NonNegativeInt, WrapValidator, with_config
from pydantic.dataclasses import dataclass
from typing_extensions import TypedDict

from medsass import files
from medsass.config import schema
from medsass.config.options import SPLIT, Amount, Encoding, Polarity, Range, Reading, unconverted
from medsass.data.shards import tar
from medsass.data.shards.tar import Extension, Shard

NAME = "manifest.json"
REJECTED = "rejected.jsonl"  # beside it: one {"file", "split", "reason"} a line
FORMAT = 2

Share = Annotated[float, Ge(0), Le(1)]


@with_config(ConfigDict(strict=True, extra="allow"))
class StoredRecipe(TypedDict):
    """The keys of a recipe that are read from a manifest. The others are there to be compared and looked at."""

    name: str
    polarity: Polarity
    refine: NotRequired[str]
    title: NotRequired[str]
    homepage: NotRequired[str]
    licence: NotRequired[str]
    citation: NotRequired[str]


@dataclass(frozen=True, kw_only=True, config=schema.CLOSED)
class Options(Reading):
    """The options of `medsass shard` that shaped the samples, with the recipe's values where the options leave them to it. Defaults are for options that older versions did not have."""

    variant: str = ""
    group_by: str = ""
    size: NonNegativeInt = 0
    tile: NonNegativeInt = 0
    stride: NonNegativeInt = 0
    min_foreground: Amount = 0.0
    level: NonNegativeInt = 0
    encode: Encoding = "keep"
    depth: Literal[8, 16] = 8
    range: Range = "minmax"
    near_duplicates: bool = False
    max_shard_bytes: NonNegativeInt = 256 << 20


@dataclass(config=schema.CLOSED)
class Split:
    """One split of a dataset.

    Args:
        shards: its tar files.
        samples: number of samples.
        masks: number of samples that have a mask.
        classes: number of samples by class label.
        mask_coverage: mean share of foreground over the masks; None without masks.
        sizes: number of samples by "width x height".
        formats: number of image files by extension.
    """

    shards: list[Shard] = field(default_factory=list)
    samples: NonNegativeInt = 0
    masks: NonNegativeInt = 0
    classes: dict[str, NonNegativeInt] = field(default_factory=dict)
    mask_coverage: Share | None = None
    sizes: dict[str, NonNegativeInt] = field(default_factory=dict)
    formats: dict[Extension, NonNegativeInt] = field(default_factory=dict)


@dataclass(config=schema.CLOSED)
class Manifest:
    """A dataset in shards.

    Args:
        recipe: the recipe as used.
        splits: the splits by name.
        converted: number of samples by what was done to their pixels.
        rejected: number of lines of `rejected.jsonl`, which lists the files that were left out.
        notes: remarks for the user.
        format: version of this table.
        seal: see `is_sealed`; "" where nothing is vouched for.

    Attributes:
        sha256: SHA-256 of the file that it was read from, "" where it was not read. It changes with any sample, because the
            manifest holds the tar files' hashes.
    """

    recipe: Annotated[StoredRecipe, WrapValidator(unconverted)]  # keeps the order of its keys
    splits: dict[str, Split]
    options: Options = field(default_factory=Options)
    converted: dict[str, NonNegativeInt] = field(default_factory=dict)
    rejected: NonNegativeInt = 0
    notes: list[str] = field(default_factory=list)
    format: int = FORMAT
    seal: str = ""
    sha256: str = field(default="", init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ValueError("it is of another medsass version")
        for name, split in self.splits.items():
            if not re.fullmatch(SPLIT, name):
                raise ValueError(f"a split's name is lower-case letters, digits and _; got {name!r:.80}")
            for shard, count in Counter(shard.file for shard in split.shards).items():
                if not re.fullmatch(rf"{name}-\d{{6}}\.tar", shard) or count > 1:
                    raise ValueError(
                        f"tar files of split '{name}' must be {name}-000000.tar, {name}-000001.tar, ...; got {shard!r:.80}"
                    )

    def split(self, name: str) -> Split:
        """Return the split of that name. Raises `ValueError` that names those that exist."""
        if name not in self.splits:
            raise ValueError(
                f"these shards have no split '{name}', only {', '.join(self.splits)}; choose one of them, "
                "or run medsass shard with more images or a recipe of other shares"
            )
        return self.splits[name]

    @property
    def followed(self) -> str:
        """The split whose loss a training follows: "val", or "train" where all images are of one group, as of one volume."""
        return "val" if "val" in self.splits else "train"

    def save(self, folder: Path, *, sealed: bool = False) -> None:
        """Write `manifest.json` into `folder`; `sealed` anew, by a program that has just written all that it names."""
        table = {name: value for name, value in asdict(self).items() if name != "sha256"}

        def text(seal: str) -> str:
            return json.dumps({**table, "seal": seal}, indent=1, ensure_ascii=False) + "\n"

        self.seal = _sha256(text("").encode()) if sealed else self.seal
        files.write(folder / NAME, text(self.seal))


def is_sealed(folder: Path, manifest: Manifest) -> bool:
    """Return whether the seal of a manifest fits: a SHA-256 of all else in its file, which the program that wrote the tar files has
    set. Then tar files and indexes of the right SHA-256 hold what the manifest says.
    """
    unsealed = files.read(folder / NAME).replace(manifest.seal.encode(), b"", 1)
    return bool(manifest.seal) and _sha256(unsealed) == manifest.seal


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def load(folder: Path) -> Manifest:
    """Read the manifest of a shard folder and check that the files it names are there (see `check`).

    Raises `FileNotFoundError` or `ValueError` that name the file and the remedy.
    """
    manifest = read(folder)
    check(folder, manifest)
    return manifest


def read(folder: Path) -> Manifest:
    """Read the manifest of a shard folder without a look at the files that it names. Raises as `load` does."""
    path = folder / NAME
    if not files.is_file(path):
        if files.is_local(folder) and any(folder.glob("*.tar")) and folder.suffix != ".part":
            adopt = f"medsass shard '{folder}/*.tar' OUT --recipe webdataset"
            raise FileNotFoundError(
                f"{path} is missing; if these are tar files of images, make shards of them with: {adopt}"
            )
        raise FileNotFoundError(
            f"{path} is missing: {folder} is not a finished shard folder; make one with: medsass shard SOURCE {folder}"
        )
    return parse(files.read(path), path)


def parse(data: bytes, path: Path) -> Manifest:
    """Make a manifest of what `path` holds. Raises `ValueError` that names it and the remedy where that is none."""
    try:
        manifest = schema.check_json(Manifest, data)
        if b'"format":' not in data:  # its default is for manifests that are being made
            raise ValueError("it does not say its format")
        # Not a rule of Split: a dry run counts images before there are shards.
        if not manifest.splits:
            raise ValueError("it names no split, and so no image")
        for name, split in manifest.splits.items():
            if not split.samples:
                raise ValueError(f"split '{name}' holds no sample")
            if split.samples != (held := sum(shard.samples for shard in split.shards)):
                raise ValueError(f"split '{name}' says {split.samples} samples, but its shards hold {held}")
    except ValueError as error:
        raise ValueError(f"{path}: not a medsass manifest ({error}); run medsass shard again") from error
    manifest.sha256 = _sha256(data)
    return manifest


def check(folder: Path, manifest: Manifest) -> None:
    """Check that every tar file and index that `manifest` names is in `folder`, and that the tar files have their size.

    Raises `FileNotFoundError` or `ValueError`, which names the first damaged sample of a tar file that is cut off.
    """
    for shard in [shard for split in manifest.splits.values() for shard in split.shards]:
        path = folder / shard.file
        for needed in (path, path.with_suffix(tar.INDEX)):
            if files.is_local(folder) and files.leads_out(needed, folder):
                raise ValueError(
                    f"{needed}: a symbolic link out of the folder; put a copy in its place, or set {files.FOLLOW}=1"
                )
            if not needed.is_file():
                raise FileNotFoundError(
                    f"{needed} is missing though the manifest names it; run medsass shard again with --overwrite"
                )
        size = path.stat().st_size
        if size != shard.bytes:
            cut = ""
            with suppress(OSError, ValueError):  # a damaged index names no sample
                index = tar.read_index(files.read(path.with_suffix(tar.INDEX), shard.most).decode())
                ends = ((members[-1].key, members[-1].offset + members[-1].size) for members in index)
                cut = next((f" (cut off at sample {key})" for key, end in ends if end > size), "")
            raise ValueError(
                f"{path}: {size} bytes, but the manifest says {shard.bytes}{cut}; run: medsass verify {folder}"
            )
