"""The images that `label` and `predict` read, and the files that they write for each."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from medsass import files
from medsass.config import LabelConfig, PredictConfig
from medsass.data.formats import kinds, opening
from medsass.data.formats.image import MOST_PIXELS, Selection
from medsass.data.shards import remote
from medsass.data.shards.manifest import Manifest

CSV = "labels.csv"

_PYRAMIDS = frozenset({".tif", ".tiff"})
_STREAMED = _PYRAMIDS | {".npy"}  # files beside slides that may hold an image of more than MOST_PIXELS


@dataclass(frozen=True)
class Item:
    """An image to label: its name, the file for its mask, and its own file or, from a tar, its encoded bytes."""

    name: str
    mask: Path
    path: Path | None = None
    data: bytes = b""


@dataclass(frozen=True)
class Outputs:
    """An image to predict, the files that are written for it, a mask and, beside that, overlay and probability, and the
    pyramid level that is read.
    """

    image: Path
    mask: Path
    level: int

    @property
    def large(self) -> bool:
        """True where mask and probability are TIFF files and the overlay is an overview."""
        return self.mask.suffix == ".tif"

    def beside(self, kind: str) -> Path:
        """Return the path of the "overlay" or the "probability"."""
        suffix = ".png" if kind == "overlay" else self.mask.suffix
        return self.mask.with_name(f"{self.mask.stem}_{kind}{suffix}")


def in_folder(folder: Path) -> list[Path]:
    """Return the images in a folder and its sub-folders, sorted, and say how many other files there are.

    Raises `FileNotFoundError` where there is no image.
    """
    found, passed = kinds.find(folder)
    told = kinds.told(passed)
    if not found:
        known = ", ".join(sorted(kinds.SUFFIXES))
        raise FileNotFoundError(f"{folder}: no image in this folder; known: {known}{'; ' * bool(told)}{told}")
    if told:
        warnings.warn(f"{folder}: {told}", stacklevel=2)
    return found


def to_label(config: LabelConfig, dataset: Manifest | None) -> list[Item]:
    """List the images of a folder; none of shards, which are checked from their indices: a few bytes a sample.

    Raises `ValueError` or `OSError` where there is no image, or an output would replace another one, an input or an existing
    file.
    """
    items = [] if dataset else list(_in_source(config))
    files.check_new(config.out / CSV, "OUT", config.overwrite)
    masks: dict[Path, str] = {}
    for item in _in_shards(config, dataset) if dataset else items:
        other = masks.setdefault(item.mask, item.name)
        if other != item.name:
            raise ValueError(f"{other} and {item.name} would both write {item.mask}; label them into different folders")
        if item.path and item.mask.resolve() == item.path.resolve():
            raise ValueError(f"{item.mask} is an input image and would be replaced by its mask; choose another OUT")
        files.check_new(item.mask, "OUT", config.overwrite)
    return items


def _in_source(config: LabelConfig) -> Iterable[Item]:
    if not config.source.is_dir():
        raise FileNotFoundError(f"{config.source}: no such folder; SOURCE is a folder of images or of shards")
    names = (path.relative_to(config.source) for path in in_folder(config.source))
    return (Item(name.as_posix(), (config.out / name).with_suffix(".png"), config.source / name) for name in names)


def _in_shards(config: LabelConfig, dataset: Manifest) -> Iterator[Item]:
    """List the samples without their bytes."""
    for split, content in dataset.splits.items():
        for shard in content.shards:
            with remote.local((config.source / shard.file).with_suffix(".idx")) as index:
                lines = index.read_text("utf-8").splitlines()[1:]
            for line in lines:
                key = line.split(" ")[3].partition(".")[0]
                yield Item(f"{shard.file}/{key}", config.out / split / f"{key}.png")


def to_predict(config: PredictConfig) -> list[Outputs]:
    """List the images that the arguments name, in their order, with the files to write: TIFF for slides, and for images
    whose header announces more than MOST_PIXELS pixels.

    Raises `ValueError` or `OSError` where an argument is not an image or a folder with images, or a file would be replaced
    or written twice.
    """
    if not config.images:
        raise ValueError("no image given: medsass predict RUN IMAGE|FOLDER...")
    found: list[tuple[Path, Path]] = []
    for path in config.images:
        if path.is_dir():
            found += [(item, config.out / item.relative_to(path).parent) for item in in_folder(path)]
        elif path.is_file():
            found.append((path, config.out))
        else:
            raise FileNotFoundError(f"{path}: no such image or folder")
    outputs = []
    for path, out in found:
        suffix = path.suffix.lower()
        large = suffix in kinds.SLIDES
        level = config.level or 0 if large or suffix in _PYRAMIDS else 0  # of photographs beside slides it is 0
        if suffix in _STREAMED and not large:
            # An error is reported when that image is processed.
            with suppress(ValueError, OSError, ImportError), opening.open_image(path, Selection(level=level)) as file:
                large = file.height * file.width > MOST_PIXELS
        outputs.append(Outputs(path, out / (path.stem + (".tif" if large else ".png")), level))
    _check_outputs(outputs, config)
    return outputs


def _check_outputs(inputs: list[Outputs], config: PredictConfig) -> None:
    images = {outputs.image.resolve() for outputs in inputs}
    writers: dict[Path, Path] = {}
    for outputs in inputs:
        beside = [kind for kind, wanted in (("overlay", config.overlay), ("probability", config.probability)) if wanted]
        for path in (outputs.mask, *map(outputs.beside, beside)):
            other = writers.setdefault(path, outputs.image)
            if other != outputs.image:
                raise ValueError(
                    f"{other} and {outputs.image} would both write {path}; predict them into different folders"
                )
            if path.resolve() in images:
                raise ValueError(f"{path} is an input image and would be replaced; choose another --out")
            files.check_new(path, "--out", config.overwrite)
