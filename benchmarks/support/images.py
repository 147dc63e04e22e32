"""The real images that loaders read: the shards of each case, and the place of each image in them."""

import shutil
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medsass.config import ShardConfig
from medsass.data.sharding import shard

_SHARD_BYTES = 4 << 20  # small tar files, so that webdataset has many to draw from
_RECIPE = 'name = "copies"\n[[images]]\npath = "*.jpg"\nsplit = "train"\n'


@dataclass(frozen=True)
class Case:
    """Images of a folder of DATA, and how they are stored.

    folder: below DATA. options: of `ShardConfig`. batch: images of a batch. copies: of each image, if there are few; 0
    takes the split "train" of the recipe.
    """

    name: str
    folder: str
    options: dict[str, Any] = field(default_factory=dict)
    batch: int = 64
    copies: int = 0


_ISIC = {"recipe": "isic2017", "size": 256}
CASES = (
    Case("JPEG 256²", "isic2017", {**_ISIC, "encode": "jpeg"}),
    Case("PNG 256²", "isic2017", {**_ISIC, "encode": "png"}),
    Case("JPEG 2000 256²", "isic2017", {**_ISIC, "encode": "jpeg2000"}),
    Case("JPEG, full size", "isic2017_fullsize/ISIC-2017_Validation_Data", batch=16, copies=8),
)


@dataclass(frozen=True)
class Source:
    """The split "train" of `shards`, and the images of a batch."""

    shards: Path
    batch: int

    @property
    def tars(self) -> list[Path]:
        """The tar files, in order."""
        return sorted(self.shards.glob("train-*.tar"))


@dataclass(frozen=True)
class Stored:
    """An encoded image within a tar file."""

    tar: Path
    offset: int
    size: int

    def read(self) -> bytes:
        """Return the encoded bytes."""
        with self.tar.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


def prepare(case: Case, data: Path, folder: Path) -> Source:
    """Write the shards of a case into `folder`."""
    options, source = case.options, data / case.folder
    if case.copies:
        recipe, copied = folder / "copies.toml", folder / "copies"
        recipe.write_text(_RECIPE)
        copied.mkdir()
        for path in source.glob("*.jpg"):
            for number in range(case.copies):
                shutil.copyfile(path, copied / f"{path.stem}_{number}.jpg")
        options, source = {**options, "recipe": str(recipe)}, copied
    shard.write(ShardConfig(source, folder / "shards", max_shard_bytes=_SHARD_BYTES, **options))
    return Source(folder / "shards", case.batch)


def stored(source: Source) -> list[Stored]:
    """Return all images of a source, without masks."""
    found = []
    for path in source.tars:
        with tarfile.open(path) as tar:
            members = [item for item in tar if not item.name.endswith((".json", ".mask.png"))]
        found += [Stored(path, item.offset_data, item.size) for item in members]
    return found
