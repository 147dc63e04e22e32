"""The images that `label` and `predict` read, and the files that they write for each."""

import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from os.path import realpath
from pathlib import Path
from typing import Literal

from medsass import files
from medsass.config import LabelConfig, PredictConfig
from medsass.data.formats import kinds, opening, tiff
from medsass.data.formats.dicom import grouping, series
from medsass.data.formats.folder import OUTSIDE, images, told
from medsass.data.formats.image import MOST_PIXELS, ImageFile, Selection
from medsass.data.sharding.catalog import names
from medsass.data.shards import remote, tar
from medsass.data.shards.manifest import Manifest

CSV = "labels.csv"

Form = Literal["image", "large", "stack"]

_PYRAMIDS = ("tiff", "slide", "openslide", "zarr", "hdf5")  # kinds that are read at the level that is asked for


@dataclass(frozen=True)
class Input:
    """An image file, or the files of a DICOM series in order with their folder; `stem` names what is made of it."""

    path: Path
    stem: str
    slices: tuple[Path, ...] = ()

    def open(self, view: Selection) -> ImageFile:
        """Open it. Raises as `open_image` does."""
        return series.Series(self.slices, view) if self.slices else opening.open_image(self.path, view)


@dataclass(frozen=True)
class Item:
    """An image, volume or stack to label: its name, the file for its mask, and its source or, from a tar, its bytes."""

    name: str
    mask: Path
    source: Input | None = None
    data: bytes = b""

    def open(self, view: Selection) -> ImageFile:
        """Open it. Raises as `open_image` does."""
        return self.source.open(view) if self.source else opening.open_image(Path(), data=self.data)


@dataclass(frozen=True)
class Outputs:
    """An image to predict, and the files that are written for it: a mask and, beside that, overlay and probability.

    Attributes:
        source: the file or files.
        mask: the file for the mask.
        view: the part of the file that is read.
        form: whether that is one "image", a "large" one, whose mask and probability are TIFF files and whose overlay is an
            overview, or a "stack" of slices.
    """

    source: Input
    mask: Path
    view: Selection
    form: Form = "image"

    @property
    def image(self) -> Path:
        """Path of the image, or of the folder of a series."""
        return self.source.path

    def beside(self, kind: str) -> Path:
        """Return the path of the "overlay" or the "probability"."""
        stem = _stem(self.mask)
        if kind == "overlay":
            return self.mask.with_name(f"{stem}_{kind}{'.tif' if self.form == 'stack' else '.png'}")
        return self.mask.with_name(f"{stem}_{kind}{self.mask.name.removeprefix(stem)}")


def _stem(path: Path) -> str:
    """Return the name of a file without its suffix, or without both of .nii.gz; a name of numbers and dots, as DICOM files have,
    is no suffix.
    """
    if path.name.lower().endswith(".nii.gz"):
        return Path(path.stem).stem
    return path.name if path.suffix[1:].isdigit() else path.stem


def _form(source: Input, view: Selection) -> tuple[Form, str]:
    """Return the form of what `view` selects in a file, and the suffix of its mask. Warns where the file holds further images."""
    suffix = source.path.suffix.lower()
    if kinds.is_photo(source.path.name) and view.frames != "all":
        return "image", ".png"
    if source.slices and view.frames in ("auto", "all"):
        return "stack", series.Series.suffix
    # An error is reported when that image is processed.
    with suppress(ValueError, OSError, ImportError), source.open(view) as file:
        if tiff.SEVERAL in file.converted:
            warnings.warn(f"{source.path}: {tiff.SEVERAL}", stacklevel=2)
        if file.stack:
            return "stack", file.suffix
        if suffix in kinds.SLIDES or file.slide or (file.streams and file.height * file.width > MOST_PIXELS):
            return "large", ".tif"
        return "image", ".png"
    return ("large", ".tif") if suffix in kinds.SLIDES else ("image", ".png")


def _level(source: Input, level: int) -> int:
    """Return the pyramid level to read: of photographs and other files without a pyramid, beside slides, it is 0."""
    kind = "zarr" if source.path.is_dir() else kinds.SUFFIXES.get(source.path.suffix.lower(), "")
    if not level or source.slices or kind in _PYRAMIDS:
        return 0 if source.slices else level
    with suppress(ValueError, OSError, ImportError), source.open(Selection()) as file:
        return level if len(file.levels) > 1 else 0
    return 0


def in_folder(folder: Path, *, follow: bool = False) -> list[Input]:
    """Return the images in a folder and its sub-folders, sorted, and say how many other files there are, masks beside images, and
    links out of the folder, unless `follow` is set.

    DICOM slices of one series are one volume.

    Raises `FileNotFoundError` where there is no image.
    """
    found, passed, outside = images(folder, follow=follow)
    paths = {path.relative_to(folder).as_posix(): path for path in found}
    masks = names.masks_among(paths)
    if 0 < len(masks) < len(paths):
        found = [path for name, path in paths.items() if name not in masks]
        text = f"{len(masks)} files passed over, because they are masks by their names: {min(masks)}"
        warnings.warn(
            f"{folder}: {text}{', ...' * (len(masks) > 1)}; name the file or its folder to read it", stacklevel=2
        )
    more = [f"{len(outside)} passed over, such as {outside[0]}: {OUTSIDE}"] if outside else []
    more += [text] if (text := told(passed)) else []
    if not found:
        known = ", ".join(sorted(kinds.SUFFIXES))
        raise FileNotFoundError("; ".join([f"{folder}: no image in this folder; known: {known}", *more]))
    for text in more:
        warnings.warn(f"{folder}: {text}", stacklevel=2)
    return _inputs(found)


def _inputs(paths: list[Path], *, named: bool = False) -> list[Input]:
    """Return images of these files, with DICOM slices of one series together; a folder's only series takes its name. `named`
    says whether the user named each.
    """
    groups = grouping.grouped(paths, named=named)
    folders = Counter(slices[0].parent for slices in groups if len(slices) > 1)

    used = Counter[tuple[Path, str]]()

    def made(slices: tuple[Path, ...]) -> Input:
        if len(slices) == 1:
            return Input(slices[0], _stem(slices[0]))
        folder = slices[0].parent
        name = folder.resolve().name + (f"-{grouping.number(slices[0])}" if folders[folder] > 1 else "")
        used[folder, name] += 1
        return Input(folder, name if used[folder, name] == 1 else f"{name}-{used[folder, name]}", slices)

    return [made(slices) for slices in groups]


def to_label(config: LabelConfig, dataset: Manifest | None) -> list[Item]:
    """List the images of a folder; none of shards, which are checked from their indices: a few bytes a sample.

    Raises `ValueError` or `OSError` where there is no image, or an output would replace another one, an input or an existing
    file.
    """
    items = [] if dataset else list(_in_source(config))
    files.check_new(config.out / CSV, "OUT", config.overwrite)
    masks: dict[Path, Item] = {}
    for item in _in_shards(config, dataset) if dataset else items:
        other = masks.setdefault(item.mask, item)
        if other is not item:
            raise ValueError(
                f"{other.name} and {item.name} would both write {item.mask}; label them into different folders"
            )
        if item.source and realpath(item.mask) == realpath(item.source.path):
            raise ValueError(f"{item.mask} is an input image and would be replaced by its mask; choose another OUT")
        files.check_new(item.mask, "OUT", config.overwrite)
    files.refuse_outside(masks, config.out)
    return items


def _in_source(config: LabelConfig) -> Iterator[Item]:
    files.check_source(config.source, "a folder of images or of shards")
    view = Selection(**config.selected())
    for source in in_folder(config.source, follow=config.follow_links):
        name = source.path.relative_to(config.source)
        name = name.parent / source.stem if source.slices else name
        form, suffix = _form(source, view)
        mask = source.stem + (suffix if form == "stack" else ".png")
        yield Item(name.as_posix(), config.out / name.parent / mask, source)


def _in_shards(config: LabelConfig, dataset: Manifest) -> Iterator[Item]:
    """List the samples without their bytes."""
    for split, content in dataset.splits.items():
        for shard in content.shards:
            with remote.local((config.source / shard.file).with_suffix(tar.INDEX)) as index:
                data = files.read(index, shard.most)
            try:
                keys = [members[0].key for members in tar.read_index(data.decode())]
            except (ValueError, IndexError) as error:
                raise ValueError(
                    f"{config.source / shard.file}: its index is damaged; run: medsass verify {config.source}"
                ) from error
            for key in keys:
                yield Item(f"{shard.file}/{key}", config.out / split / f"{key}.png")


def to_predict(config: PredictConfig) -> list[Outputs]:
    """List the images that the arguments name, in their order, with the files to write: TIFF for slides, for stacks,
    and for images whose header announces more than MOST_PIXELS pixels; a volume for a volume.

    Raises `ValueError` or `OSError` where an argument is not an image or a folder with images, or a file would be replaced
    or written twice.
    """
    if not config.images:
        raise ValueError("no image given: medsass predict RUN IMAGE|FOLDER...")
    for path in config.images:
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such image or folder")
        if not path.is_dir():
            files.check_regular(path)
    single = [path for path in config.images if path.is_file() or kinds.is_zarr(path)]
    alone = {path: one for one in _inputs(single, named=True) for path in one.slices or (one.path,)}
    found: list[tuple[Input, Path]] = []
    for path in config.images:
        if path in alone:
            found.append((alone[path], config.out))
        elif path not in single:
            found += [
                (one, config.out / one.path.relative_to(path).parent)
                for one in in_folder(path, follow=config.follow_links)
            ]
    outputs = []
    for source, out in dict.fromkeys(found):  # each slice names its series
        view = Selection(level=_level(source, config.level or 0), **config.selected())
        form, suffix = _form(source, view)
        outputs.append(Outputs(source, out / (source.stem + suffix), view, form))
    _check_outputs(outputs, config)
    return outputs


def _check_outputs(inputs: list[Outputs], config: PredictConfig) -> None:
    images = {realpath(outputs.image) for outputs in inputs}
    writers: dict[Path, Outputs] = {}
    for outputs in inputs:
        beside = [kind for kind, wanted in (("overlay", config.overlay), ("probability", config.probability)) if wanted]
        for path in (outputs.mask, *map(outputs.beside, beside)):
            other = writers.setdefault(path, outputs)
            if other is not outputs:
                raise ValueError(
                    f"{other.image} and {outputs.image} would both write {path}; predict them into different folders"
                )
            if realpath(path) in images:
                raise ValueError(f"{path} is an input image and would be replaced; choose another --out")
            files.check_new(path, "--out", config.overwrite)
    files.refuse_outside(writers, config.out)
