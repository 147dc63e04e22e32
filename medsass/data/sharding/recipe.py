"""Dataset recipes: where images and masks are, how they pair, which split each image goes to.

Bundled recipes are `shards/<name>.toml`; a user's own is any TOML file of the same form. Unknown keys are refused, so
that a misspelt one cannot pass silently.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal

from annotated_types import Ge
from pydantic import StringConstraints
from pydantic.dataclasses import dataclass

from medsass import bundled
from medsass.config import numbers, schema
from medsass.config.options import SPLIT
from medsass.data.sharding import patterns

FOREGROUND: tuple[Literal["binary", "nonzero", "half"], ...] = ("binary", "nonzero", "half")
_COLOUR = "#[0-9a-fA-F]{6}"
Colour = Annotated[str, StringConstraints(pattern=f"^{_COLOUR}$")]
FOLDER = "folder"  # the recipe of any folder
UNGROUPED = "image"  # the --group-by in which each image is its own group


@dataclass(frozen=True, config=schema.CLOSED)
class Images:
    """A glob of images below the source, and where the mask of each is.

    Attributes:
        path: glob of the images ("", of the recipe folder alone, lets the layout be recognised), with braces for several; `{stem}` is a wildcard that says what a name's stem is, `{key}` one
            that ends at the first dot.
        masks: glob, or pattern that may hold `{stem}` and `{name}` (of the image file), `{dir}` and `{folder}` (its folder below the
            source, and that folder's name); several files that match are merged by union. Without a placeholder, an image and a mask are a pair
            where the wildcards of both globs stand for the same text, or else where their stems are equal.
        split: the images' split; "" lets the recipe's shares decide.
        classes: CSV file of class labels.
        array: member of an NPZ file.
        channels: one becomes gray, three become RGB (-1: black).
        frames: of a file with several images: "auto", every slice of a volume or stack, and the first image of an
            animation; "first", "middle", "all", or the number of one, from 0.
        axis: along which a volume is cut into slices: "z" (axial), "y" (coronal) or "x" (sagittal); "" as in `Selection`.
        every: of the slices of a volume or stack, each n-th is taken.
        mask_array, mask_channels: `array` and `channels` of the masks, which are in the image's own file where `masks`
            is empty.
    """

    path: str
    masks: str = ""
    split: str = ""
    classes: str = ""
    array: str = ""
    channels: tuple[int, ...] = ()
    frames: Literal["auto", "first", "middle", "all"] | int = "auto"
    axis: Literal["", "z", "y", "x"] = ""
    every: Annotated[int, Ge(1)] = 1
    mask_array: str = ""
    mask_channels: tuple[int, ...] = ()


@dataclass(frozen=True, config=schema.CLOSED)
class Masks:
    """How mask files become {0, 1}.

    Attributes:
        foreground: "binary", the higher of the two levels of all masks, more are refused; "nonzero", for numbered objects
            and classes; "half", above half of the file's full range, for soft edges; the levels that are foreground; or
            the colours, as "#ff0000".
        resize: resize a mask whose size differs from its image's (nearest neighbour) instead of refusing it.
        turn: turn a mask as the orientation tag of its image says, where it has no tag of its own.
        required: refuse an image without a mask.
        spare: masks without an image are expected and not reported.
    """

    foreground: Literal["binary", "nonzero", "half"] | tuple[int, ...] | tuple[Colour, ...] = "binary"
    resize: bool = False
    turn: bool = False
    required: bool = False
    spare: bool = False


@dataclass(frozen=True, config=schema.CLOSED)
class Classes:
    """Class labels: from `columns` of a CSV file with a `key` column, from `(?P<class>...)` in the image's path, or from the text
    of the sample's member of this `extension` in a tar file.
    """

    key: str = ""
    columns: tuple[str, ...] = ()
    otherwise: str = ""
    pattern: str = ""
    extension: str = ""


@dataclass(frozen=True, config=schema.CLOSED)
class Recipe:
    """A dataset: its images and masks, its labels, its splits, and where it comes from.

    Attributes:
        tars: glob of the tar files whose members are the dataset's files; "" where these are files of their own.
        note: shown to whoever uses the recipe.
        refine: the steps that --refine recipe stands for.
        tile, range: defaults of --tile and --range.
        window: the values (low, high) that become black and white, such as those of CT in Hounsfield units.
        exact_splits: meet the shares as nearly as whole groups allow, with at least one group in each split. Otherwise a
            group goes by its own hash, and stays where it is when images are added.
        groups: regular expressions by name, each with `(?P<group>...)`, searched in the image's path. Images of one group
            (a patient, a slide) stay in one split. The first applies, or the one that --group-by names.
        splits: share of each split.
    """

    name: str
    images: tuple[Images, ...] = ()
    tars: str = ""
    title: str = ""
    homepage: str = ""
    licence: str = ""
    citation: str = ""
    note: str = ""
    polarity: Literal["bright", "dark", "auto"] = "auto"
    refine: str = ""
    tile: int = 0
    range: Literal["minmax", "percentile", "type"] = "minmax"
    window: tuple[float, float] | None = None
    exact_splits: bool = False
    masks: Masks = field(default_factory=Masks)
    classes: Classes = field(default_factory=Classes)
    groups: Mapping[str, str] = field(default_factory=dict)
    splits: Mapping[str, int | float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.images or (self.name != FOLDER and not all(images.path for images in self.images)):
            raise ValueError("at least one [[images]] table with a 'path' is needed, and none without")
        expressions = [*((pattern, "group") for pattern in self.groups.values()), (self.classes.pattern, "class")]
        for pattern, name in expressions:
            try:
                names = patterns.regex(pattern).groupindex
            except ValueError as error:
                raise ValueError(f"pattern {pattern!r} {error}") from error
            if (pattern or name == "group") and name not in names:
                raise ValueError(f"pattern {pattern!r} must contain (?P<{name}>...)")
        for path in (images.classes for images in self.images):
            if PurePath(path).is_absolute() or ".." in PurePath(path).parts:
                raise ValueError(
                    f"classes = {path!r} leads out of SOURCE; put the file below it, and name it from there"
                )
        for split in [*self.splits, *(images.split for images in self.images if images.split)]:
            if not re.fullmatch(SPLIT, split):
                raise ValueError(f"a split's name is lower-case letters, digits and _; got '{split}'")
        if self.window and not self.window[0] < self.window[1]:
            raise ValueError(f"window must be two numbers LOW < HIGH; got {list(self.window)}")
        shares = list(self.splits.values())
        if any(not images.split for images in self.images) and not shares:
            raise ValueError("[[images]] without 'split' need a [splits] table of shares, such as train = 0.7")
        if shares and not (min(shares) > 0 and abs(sum(shares) - 1) <= 1e-9):
            raise ValueError(f"[splits] must be positive shares that sum to 1; got {dict(self.splits)}")


def names() -> list[str]:
    """Return the names of the bundled recipes, sorted."""
    return sorted(path.stem for path in bundled.folder("shards").glob("*.toml"))


def load(name: str, variant: str = "") -> Recipe:
    """Load a bundled recipe by name, or the TOML file at a path, in one of its variants (default: its first).

    Raises `ValueError` for a name that does not exist (naming the nearest) and for a file that breaks a rule.
    """
    path = Path(name) if name.endswith(".toml") else bundled.folder("shards") / f"{name}.toml"
    if not path.is_file():
        near = difflib.get_close_matches(name, names(), n=1, cutoff=0)
        hint = f"did you mean '{near[0]}'? " if near else ""
        known = f"Recipes: {', '.join(names())}, or a path to a .toml file"
        raise ValueError(f"recipe '{name}' does not exist; {hint}{known}")
    try:
        return parse(schema.read_toml(path), variant)
    except ValueError as error:
        raise ValueError(f"{path}: not a recipe: {error}") from error


def parse(table: dict[str, Any], variant: str = "") -> Recipe:
    """Make a recipe of the content of its TOML file. Raises `ValueError` that states the rule it breaks.

    `[variants.NAME]` holds what differs in a variant: values that replace the recipe's own. Tables are merged key by key;
    the table `images` is merged into every [[images]].
    """
    table = dict(table)
    variants = table.pop("variants", {})
    if not isinstance(variants, dict) or not all(isinstance(item, dict) for item in variants.values()):
        raise ValueError(f"each variant must be a table [variants.NAME]; got {variants!r:.80}")
    if variant and variant not in variants:
        raise ValueError(f"it has no variant '{variant}'; variants: {', '.join(variants) or 'none'}")
    for key, value in variants.get(variant or next(iter(variants), ""), {}).items():
        table[key] = _merge(table[key], value) if key in table else value
    return schema.check(Recipe, table)


def _merge(old: Any, new: Any) -> Any:
    """Merge the table `new` into `old`, or into each table of a list; anything else replaces `old`."""
    if isinstance(old, list) and isinstance(new, dict):
        return [_merge(item, new) for item in old]
    return {**old, **new} if isinstance(old, dict) and isinstance(new, dict) else new


def parse_foreground(text: str) -> Literal["binary", "nonzero", "half"] | tuple[int, ...] | tuple[str, ...]:
    """Parse --foreground: the name of a rule, or levels or colours separated by commas. Raises `ValueError`."""
    for rule in FOREGROUND:
        if text == rule:
            return rule
    values = [value.strip() for value in text.split(",")]
    if all(re.fullmatch(_COLOUR, value) for value in values):
        return tuple(values)
    try:
        return tuple(int(level) for level in values)
    except ValueError as error:
        known = f"{', '.join(FOREGROUND)}, levels such as 1,3 or colours such as '#ff0000'"
        raise ValueError(f"--foreground must be {known}; got '{text}'") from error


def parse_shares(text: str) -> dict[str, float]:
    """Parse --split: the shares of train, val and test, or of train and val. Raises `ValueError`."""
    values = numbers(text, "--split")
    if len(values) not in (2, 3) or min(values) <= 0 or abs(sum(values) - 1) > 1e-9:
        raise ValueError(
            f"--split must be two or three shares above 0 that sum to 1, of train, val and test, as 0.8,0.1,0.1; got '{text}'"
        )
    return dict(zip(("train", "val", "test"), values, strict=False))
