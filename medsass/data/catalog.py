"""Recipe and source folder -> the list of samples: each image with its masks, split, class label and group.

Only names are read here, never pixels, so that counts and splits are known before the long work starts.
"""

import csv
import glob
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from medsass.data.recipe import Classes, Images, Recipe
from medsass.data.sources import SUFFIXES

_PLACEHOLDER = re.compile(r"\{(stem|name|dir)\}")
_LONGEST_KEY = 80  # with ".mask.png" it fits the 100 bytes of a tar header


@dataclass(frozen=True)
class Sample:
    """One image of the source. Paths are relative to it, in POSIX form; `key` is unique and safe in a tar file."""

    key: str
    image: str
    masks: tuple[str, ...]
    split: str
    label: str | None
    group: str


@dataclass(frozen=True)
class Catalog:
    """What the recipe found: samples in the order in which they are stored, masks that no image claimed, and remarks."""

    samples: list[Sample]
    orphans: list[str]
    notes: list[str]


def find(source: Path, recipe: Recipe) -> Catalog:
    """All samples of `source` by `recipe`, split by split, each split in the stable order of its keys' hashes.

    The hashed order is a shuffle that never changes: neighbours in a tar file are not neighbours in the source, so the
    reader's shuffle buffer mixes classes and slides well. Raises `FileNotFoundError` for a source that is not there or
    holds no image, and `ValueError` for pairs that are ambiguous.
    """
    if not source.is_dir():
        raise FileNotFoundError(f"{source}: no such folder; SOURCE is the folder that holds the dataset")
    found: list[tuple[Images, str, tuple[str, ...]]] = []
    orphans: set[str] = set()
    notes: list[str] = []
    for images in recipe.images:
        claimed, unclaimed = _pair(source, images)
        if not claimed:
            notes.append(
                f"no file matches '{images.path}'" + (f": split '{images.split}' left out" if images.split else "")
            )
        found += [(images, image, masks) for image, masks in claimed]
        orphans |= unclaimed
    if not found:
        globs = ", ".join(f"'{images.path}'" for images in recipe.images)
        raise FileNotFoundError(
            f"{source}: no image matches {globs} of recipe '{recipe.name}'; check SOURCE and the recipe"
        )
    keys = _keys([image for _, image, _ in found])
    labels = _labels(source, recipe)
    samples = []
    for images, image, masks in found:
        group = _match(recipe.group, "group", image) or image
        split = images.split or _split(f"{recipe.name}/{group}", recipe)
        label = _match(recipe.classes.pattern, "class", image) or labels.get(Path(image).stem)
        samples.append(Sample(keys[image], image, masks, split, label, group))
    order = {
        split: i
        for i, split in enumerate(dict.fromkeys([*(i.split for i in recipe.images if i.split), *recipe.splits]))
    }
    samples.sort(key=lambda sample: (order[sample.split], _digest(sample.key), sample.key))
    return Catalog(samples, sorted(orphans), notes)


def _glob(source: Path, pattern: str) -> list[str]:
    """Files below `source` that match `pattern`, as relative POSIX paths without `..`, sorted."""
    if not any(mark in pattern for mark in "*?["):
        paths = [source / pattern]
    else:
        paths = [Path(path) for path in glob.glob(str(Path(glob.escape(str(source))) / pattern), recursive=True)]  # noqa: PTH207
    return sorted({_relative(path, source, pattern) for path in paths if path.is_file()})


def _relative(path: Path, source: Path, pattern: str) -> str:
    if ".." not in pattern:
        return path.relative_to(source).as_posix()
    try:
        return path.resolve().relative_to(source.resolve()).as_posix()
    except ValueError as error:
        raise ValueError(f"'{pattern}' leads out of SOURCE ({source}); give the folder above both as SOURCE") from error


def _pair(source: Path, images: Images) -> tuple[list[tuple[str, tuple[str, ...]]], set[str]]:
    """Each image of one [[images]] table with its masks, and the masks that are left over."""
    paths = [path for path in _glob(source, images.path) if Path(path).suffix.lower() in SUFFIXES]
    if not images.masks:
        return [(path, ()) for path in paths], set()
    if not _PLACEHOLDER.search(images.masks):
        return _pair_by_stem(source, images, paths)
    anywhere = {_fill(images.masks, Path(path), any_name=True) for path in paths}
    masks = {mask for pattern in anywhere for mask in _glob(source, pattern)}
    pairs = [(path, tuple(_glob(source, _fill(images.masks, Path(path))))) for path in paths if path not in masks]
    return pairs, masks - {mask for _, found in pairs for mask in found}


def _fill(pattern: str, image: Path, *, any_name: bool = False) -> str:
    """`pattern` with its placeholders replaced by the image's own (or, for its name, by `*`), up-steps resolved."""
    folder = glob.escape(image.parent.as_posix())
    values = {
        "stem": "*" if any_name else glob.escape(image.stem),
        "name": "*" if any_name else glob.escape(image.name),
    }
    values["dir"] = folder
    filled = _PLACEHOLDER.sub(lambda match: values[match[1]], pattern)
    parts: list[str] = []
    for part in filled.split("/"):
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def _pair_by_stem(source: Path, images: Images, paths: list[str]) -> tuple[list[tuple[str, tuple[str, ...]]], set[str]]:
    by_stem: dict[str, str] = {}
    masks = _glob(source, images.masks)
    for mask in masks:
        other = by_stem.setdefault(Path(mask).stem, mask)
        if other != mask:
            raise ValueError(
                f"masks '{other}' and '{mask}' have one stem; tell them apart with {{dir}} in --masks, as in '{{dir}}/../masks/{{stem}}.png'"
            )
    paths = [path for path in paths if path not in set(masks)]
    pairs = [(path, tuple(by_stem[stem] for stem in [Path(path).stem] if stem in by_stem)) for path in paths]
    return pairs, set(masks) - {mask for _, found in pairs for mask in found}


def _keys(paths: list[str]) -> dict[str, str]:
    """A unique key for each path: its stem in letters, digits, _ and -, with a piece of the path's hash where two
    would be the same or one would be too long. A dot would end the key for WebDataset readers.
    """
    stems = {path: re.sub(r"[^A-Za-z0-9_-]", "_", Path(path).stem) for path in paths}
    counts: dict[str, int] = {}
    for stem in stems.values():
        counts[stem] = counts.get(stem, 0) + 1
    return {path: stem if counts[stem] == 1 and len(stem) <= _LONGEST_KEY else f"{stem[: _LONGEST_KEY - 13]}-{_digest(path)[:12]}"
            for path, stem in stems.items()}  # fmt: skip


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _split(text: str, recipe: Recipe) -> str:
    """The split whose share of [0, 1) holds the hash of `text`: the same for a group on every machine and every run,
    whatever other images come or go.
    """
    point, edge = int(_digest(text)[:13], 16) / 16**13, 0.0
    for split, share in recipe.splits.items():
        edge += share
        if point < edge:
            return split
    return list(recipe.splits)[-1]


def _match(pattern: str, name: str, path: str) -> str | None:
    match = re.search(pattern, path) if pattern else None
    return match[name] if match else None


def _labels(source: Path, recipe: Recipe) -> dict[str, str]:
    """Class label by image stem from the recipe's CSV files; files of splits that are absent are passed over."""
    labels: dict[str, str] = {}
    for images in recipe.images:
        path = source / images.classes
        if images.classes and path.is_file():
            with path.open(newline="", encoding="utf-8-sig") as file:
                for row in csv.DictReader(file):
                    labels[row.get(recipe.classes.key, "")] = _label(row, recipe.classes, path)
    return labels


def _label(row: dict[str, str], classes: Classes, path: Path) -> str:
    missing = [name for name in (classes.key, *classes.columns) if name not in row]
    if missing:
        raise ValueError(f"{path}: column '{missing[0]}' is missing; the recipe's [classes] name it")
    try:
        held = [column for column in classes.columns if float(row[column] or 0) > 0]
    except ValueError as error:
        raise ValueError(f"{path}: row '{row[classes.key]}': class columns must hold numbers ({error})") from error
    return held[0] if held else classes.otherwise
