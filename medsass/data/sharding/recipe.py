"""A dataset recipe: where images and masks are, how they pair, which split each goes to.

Bundled recipes are `shards/<name>.toml`; a user's own is any TOML file of the same form. Unknown fields are refused,
so that a misspelt one cannot pass silently.
"""

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from medsass import bundled
from medsass.config import POLARITIES, RANGES

FOREGROUND = ("binary", "nonzero", "half")
FRAMES = ("first", "all")
ALONE = "image"  # the grouping in which each image stands for itself


@dataclass(frozen=True)
class Images:
    """One glob of images below the source, and how to find the mask of each.

    `masks` may hold `{stem}` and `{name}` (of the image file) and `{dir}` (its folder below the source); several files
    that match are merged by union. Without a placeholder the glob's files pair with the images by equal stems.
    `split` is empty where the split follows from the recipe's fractions. `classes` is a CSV file of class labels.
    `array` names a member of an NPZ file. `channels` picks from several: one becomes gray, three RGB (-1: black).
    `frames`: "first" image of a file with several (pages, slices, the first axis of an array), or "all" of them.
    `mask_array` and `mask_channels` do the same for the masks, which are in the image's own file where `masks` is empty.
    """

    path: str
    masks: str = ""
    split: str = ""
    classes: str = ""
    array: str = ""
    channels: tuple[int, ...] = ()
    frames: str = "first"
    mask_array: str = ""
    mask_channels: tuple[int, ...] = ()


@dataclass(frozen=True)
class Masks:
    """How mask files become {0, 1}.

    `foreground`: "binary", the higher of two levels, more are refused; "nonzero", for numbered objects and classes;
    "half", above half of the file's full range, for soft edges; or a list of the levels that are foreground.
    `resize`: a mask of another size than its image is resized (nearest neighbour) instead of refused.
    `required`: an image without a mask is refused. `spare`: masks without an image are expected and not reported.
    """

    foreground: str | tuple[int, ...] = "binary"
    resize: bool = False
    required: bool = False
    spare: bool = False


@dataclass(frozen=True)
class Classes:
    """Class labels: from `columns` of a CSV file with a `key` column, or from `(?P<class>...)` in the image's path."""

    key: str = ""
    columns: tuple[str, ...] = ()
    otherwise: str = ""
    pattern: str = ""


@dataclass(frozen=True)
class Recipe:
    """All that is known of a dataset.

    `splits` maps a split's name to its share. `exact_splits`: shares are met as nearly as whole groups allow, each split
    with one group at least; otherwise each group goes by its own hash, and stays where it is when images are added.
    `groups` maps names to regular expressions with `(?P<group>...)` on the image's path: images of one group (a patient,
    a slide) stay in one split; the first is taken, or the one that --group-by names. `tile` and `range` are the defaults
    of --tile and --range. `refine` is what --refine recipe means. `note` is told to whoever uses the recipe.
    """

    name: str
    images: tuple[Images, ...]
    title: str = ""
    homepage: str = ""
    licence: str = ""
    citation: str = ""
    note: str = ""
    polarity: str = "auto"
    refine: str = ""
    tile: int = 0
    range: str = "minmax"
    exact_splits: bool = False
    masks: Masks = field(default_factory=Masks)
    classes: Classes = field(default_factory=Classes)
    groups: Mapping[str, str] = field(default_factory=dict)
    splits: Mapping[str, float] = field(default_factory=dict)


def names() -> list[str]:
    """Names of the bundled recipes, sorted."""
    return sorted(path.stem for path in bundled.folder("shards").glob("*.toml"))


def load(name: str, variant: str = "") -> Recipe:
    """The bundled recipe `name`, or the one in the TOML file of that path, in one of its variants (default: its first).

    Raises `ValueError` for a name that does not exist (naming the nearest) and for a file that breaks a rule.
    """
    path = Path(name) if name.endswith(".toml") else bundled.folder("shards") / f"{name}.toml"
    if not path.is_file():
        near = difflib.get_close_matches(name, names(), n=1, cutoff=0)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise ValueError(
            f"recipe '{name}' does not exist; {hint}Recipes: {', '.join(names())}, or a path to a .toml file"
        )
    try:
        return parse(tomllib.loads(path.read_text("utf-8")), variant)
    except (ValueError, TypeError, re.error) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise ValueError(f"{path}: not a recipe: {error}") from error


def parse(table: dict[str, Any], variant: str = "") -> Recipe:
    """A recipe from the content of its TOML file. Raises `ValueError` that states the rule that it breaks.

    `[variants.NAME]` holds what differs in a variant: fields that take the place of the recipe's own; those of its table
    `images` go into every [[images]].
    """
    table = _choose(dict(table), variant)
    images = table.pop("images", [])
    if not isinstance(images, list) or not images:
        raise ValueError("at least one [[images]] table with a 'path' is needed")
    nested = {"masks": _build(Masks, table.pop("masks", {}), "[masks]")}
    nested["classes"] = _build(Classes, table.pop("classes", {}), "[classes]")
    recipe: Recipe = _build(Recipe, {**table, "images": ()}, "the file")
    recipe = replace(recipe, images=tuple(_build(Images, item, "[[images]]") for item in images), **nested)
    _check(recipe)
    return recipe


def _choose(table: dict[str, Any], variant: str) -> dict[str, Any]:
    """`table` with its variant of that name, or its first one, merged in."""
    variants = table.pop("variants", {})
    if variant and variant not in variants:
        raise ValueError(f"it has no variant '{variant}'; variants: {', '.join(variants) or 'none'}")
    for key, value in variants.get(variant or next(iter(variants), ""), {}).items():
        if key == "images":
            table["images"] = [{**images, **value} for images in table.get("images", [])]
        else:
            table[key] = {**table[key], **value} if isinstance(value, dict) and key in table else value
    return table


def _build(kind: type[Any], table: dict[str, Any], where: str) -> Any:
    if not isinstance(table, dict):
        raise ValueError(f"{where} must be a table; got {table!r}")
    known = {item.name: item for item in fields(kind)}
    for key, value in table.items():
        if key not in known:
            raise ValueError(f"unknown field '{key}' in {where}; known: {', '.join(known)}")
        expected = next((plain for plain in (str, bool, int) if known[key].type is plain), None)
        if expected and type(value) is not expected:
            raise ValueError(f"field '{key}' in {where} must be {expected.__name__}; got {value!r}")
    missing = [name for name in ("name", "path") if name in known and name not in table]
    if missing:
        raise ValueError(f"field '{missing[0]}' is missing in {where}")
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in table.items()})


def foreground(text: str) -> str | tuple[int, ...]:
    """What --foreground says: one of the rules' names, or levels separated by commas. Raises `ValueError`."""
    if text in FOREGROUND:
        return text
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(f"--foreground must be {', '.join(FOREGROUND)} or levels such as 1,3; got '{text}'") from error


def _check(recipe: Recipe) -> None:
    foreground = recipe.masks.foreground
    if not (foreground in FOREGROUND or (isinstance(foreground, tuple) and all(type(i) is int for i in foreground))):
        raise ValueError(f"foreground must be one of {', '.join(FOREGROUND)}, or a list of levels; got {foreground!r}")
    for name, value, known in (("polarity", recipe.polarity, POLARITIES), ("range", recipe.range, RANGES)):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}; got '{value}'")
    for images in recipe.images:
        if images.frames not in FRAMES:
            raise ValueError(f"frames must be one of {', '.join(FRAMES)}; got '{images.frames}'")
    patterns = [("group", pattern) for pattern in recipe.groups.values()] + [("class", recipe.classes.pattern)]
    for name, pattern in patterns:
        if pattern and name not in re.compile(pattern).groupindex:
            raise ValueError(f"pattern {pattern!r} must contain (?P<{name}>...)")
    for split in [*recipe.splits, *(images.split for images in recipe.images if images.split)]:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", split):
            raise ValueError(f"a split's name is lower-case letters, digits and _; got '{split}'")
    shares = list(recipe.splits.values())
    if any(not images.split for images in recipe.images) and not shares:
        raise ValueError("[[images]] without 'split' need a [splits] table of shares, such as train = 0.7")
    if shares and (min(shares) <= 0 or abs(sum(shares) - 1) > 1e-9):
        raise ValueError(f"[splits] must be positive shares that sum to 1; got {dict(recipe.splits)}")
