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
from medsass.config import POLARITIES

FOREGROUND = ("nonzero", "half")


@dataclass(frozen=True)
class Images:
    """One glob of images below the source, and how to find the mask of each.

    `masks` may hold `{stem}` and `{name}` (of the image file) and `{dir}` (its folder below the source); several files
    that match are merged by union. Without a placeholder the glob's files pair with the images by equal stems.
    `split` is empty where the split follows from the recipe's fractions. `classes` is a CSV file of class labels.
    """

    path: str
    masks: str = ""
    split: str = ""
    classes: str = ""


@dataclass(frozen=True)
class Masks:
    """How mask files become {0, 1}.

    `foreground`: pixels "nonzero", or those above "half" of the file's full range (for masks with soft edges).
    `resize`: a mask of another size than its image is resized (nearest neighbour) instead of refused.
    `required`: an image without a mask is refused.
    """

    foreground: str = "nonzero"
    resize: bool = False
    required: bool = False


@dataclass(frozen=True)
class Classes:
    """Class labels: from `columns` of a CSV file with a `key` column, or from `(?P<class>...)` in the image's path."""

    key: str = ""
    columns: tuple[str, ...] = ()
    otherwise: str = ""
    pattern: str = ""


@dataclass(frozen=True)
class Recipe:
    """All that is known of a dataset. `splits` maps a split's name to its share; `group` is a regular expression with
    `(?P<group>...)` on the image's path: images of one group (a patient, a slide) stay in one split.
    """

    name: str
    images: tuple[Images, ...]
    title: str = ""
    homepage: str = ""
    licence: str = ""
    citation: str = ""
    polarity: str = "auto"
    group: str = ""
    masks: Masks = field(default_factory=Masks)
    classes: Classes = field(default_factory=Classes)
    splits: Mapping[str, float] = field(default_factory=dict)


def names() -> list[str]:
    """Names of the bundled recipes, sorted."""
    return sorted(path.stem for path in bundled.folder("shards").glob("*.toml"))


def load(name: str) -> Recipe:
    """The bundled recipe `name`, or the one in the TOML file of that path.

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
        recipe = parse(tomllib.loads(path.read_text("utf-8")))
    except (ValueError, TypeError, re.error) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise ValueError(f"{path}: not a recipe: {error}") from error
    return recipe


def parse(table: dict[str, Any]) -> Recipe:
    """A recipe from the content of its TOML file. Raises `ValueError` that states the rule that it breaks."""
    table = dict(table)
    images = table.pop("images", [])
    if not isinstance(images, list) or not images:
        raise ValueError("at least one [[images]] table with a 'path' is needed")
    nested = {"masks": _build(Masks, table.pop("masks", {}), "[masks]")}
    nested["classes"] = _build(Classes, table.pop("classes", {}), "[classes]")
    recipe: Recipe = _build(Recipe, {**table, "images": ()}, "the file")
    recipe = replace(recipe, images=tuple(_build(Images, item, "[[images]]") for item in images), **nested)
    _check(recipe)
    return recipe


def _build(kind: type[Any], table: dict[str, Any], where: str) -> Any:
    if not isinstance(table, dict):
        raise ValueError(f"{where} must be a table; got {table!r}")
    known = {item.name: item for item in fields(kind)}
    for key, value in table.items():
        if key not in known:
            raise ValueError(f"unknown field '{key}' in {where}; known: {', '.join(known)}")
        expected = next((plain for plain in (str, bool) if known[key].type is plain), None)
        if expected and not isinstance(value, expected):
            raise ValueError(f"field '{key}' in {where} must be {expected.__name__}; got {value!r}")
    missing = [name for name in ("name", "path") if name in known and name not in table]
    if missing:
        raise ValueError(f"field '{missing[0]}' is missing in {where}")
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in table.items()})


def _check(recipe: Recipe) -> None:
    if recipe.polarity not in POLARITIES:
        raise ValueError(f"polarity must be one of {', '.join(POLARITIES)}; got '{recipe.polarity}'")
    if recipe.masks.foreground not in FOREGROUND:
        raise ValueError(f"foreground must be one of {', '.join(FOREGROUND)}; got '{recipe.masks.foreground}'")
    for name, pattern in (("group", recipe.group), ("class", recipe.classes.pattern)):
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
