"""Which images stay together, those of a patient, series, slide or folder, and which split a group goes to.

A recipe says it by regular expressions; else it is taken from names where they are plain about it, and from DICOM headers.
"""

import hashlib
import re
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from itertools import islice
from unicodedata import normalize

from medsass.data.formats import kinds
from medsass.data.sharding import patterns
from medsass.data.sharding.catalog import names
from medsass.data.sharding.recipe import UNGROUPED, Recipe

Rule = Callable[[str], str | None]  # the path of an image -> its group

BUILT_IN = (UNGROUPED, "folder", "patient", "series")

_MANY = 1000  # groups from which on no split is empty by hash
_WHO = r"(?:patient|pat|subject|subj|sub|case|donor|person|animal|mouse)"
_KNOWN = (  # each with the text that names a group
    re.compile(r"(TCGA[-_][A-Z0-9]{2}[-_][A-Z0-9]{4})"),
    re.compile(rf"(?i:(?:^|/)({_WHO}(?:[-_ ][a-z]*)?\d+)(?=[-_. /]|slice|frame|image|img|$))"),
    re.compile(rf"(?i:(?:^|/)({_WHO}[-_ ]?(?:id|no|nr|num|number)[-_ ]?\d+)(?=[-_. /]|$))"),
    re.compile(
        r"(?:^|/)(sub-(?!(?:image|img|mask|folder|dir|set)s?[_./])[A-Za-z0-9]+)(?=[_./]|$)"
    ),  # BIDS, sub-r001s003
    re.compile(
        rf"(?i:(?:^|/)({_WHO}(?:[-_ ][a-z]*)?\d+)(?!(?<=\D[23])d)[a-z](?=[-_. /]|$))"
    ),  # Patient01A; 2D is no number
    re.compile(
        r"(?:^|/)([A-Z][A-Za-z0-9]*(?:-[A-Za-z0-9]+)*-0\d{2,4}|[A-Z]+(?:-[A-Z]+)+-[1-9]\d{2,4})/"
    ),  # LIDC-IDRI-0001
    re.compile(r"(SOB_[BM]_[A-Z]+-\d+-[0-9A-Z]+)-\d+-\d+"),  # a slide of BreakHis at one magnification
    re.compile(r"(?:^|/)([Pp]\d{1,5})/"),
)
_PARTS = (  # of a slide, volume or video: each with the text before the place
    re.compile(
        r"(?i:(?:^|/)([^/]+?)[-_](?:x\d+[-_]y\d+|y\d+[-_]x\d+|r(?:ow)?\d+[-_]c(?:ol)?\d+)(?:[-_]\w+)?\.[a-z]+$)"
    ),
    re.compile(r"(?i:(?:^|/)([^/]+?)[-_ ]*\[(?:d=[\d.]+,)?x=\d+,y=\d+)"),  # QuPath's
    re.compile(r"(?i:(?:^|/)([^/]+?)[-_](?:tile|patch|slice|frame)[-_]?\d+\.[a-z.]+$)"),
)
_MAY_BE_KNOWN = re.compile(  # what each of them has somewhere: most names have nothing of it, in a fifth of the time
    r"(?i:tcga|pat|sub|case|donor|person|animal|mouse|sob_|[-_][xyr]|\[|tile|slice|frame|(?:^|/)p\d|-\d{3,5}/)"
)
_PLACE = re.compile(r"(?i:(?:^|/)([^/]+?)[-_](0|[1-9]\d*)[-_](0|[1-9]\d*)\.[a-z]+$)")  # of a tile, without letters
_ASIDE = (  # what a name ends with that tells apart images of one patient: sequences, modalities, phases, planes, visits
    r"t1(?:w|c|ce|gd|post)?|t2(?:w|f|star)?|pdw?|flair|dwi|adc|swi|cta?|mri?|pet|us|pre|post|ed|es|ax(?:ial)?|cor(?:onal)?|sag(?:ittal)?|im(?:g|age)s?|"
    r"tile|patch|crop|norm|he|ihc|"
    r"(?:frame|phase|time|visit|scan|series|session|ses|study|day|week)[-_ ]?\d*"
)
_END = re.compile(rf"(?i:(?:(?:^|[-_. ]+|(?<=\d)(?=frame|phase))(?:{_ASIDE}))+$)")
_GENERIC = re.compile(  # folders with a number that is no patient's: sizes, magnifications, years, parts of a dataset
    r"(?i:\d+x|(?:19|20)\d\d|(?:64|96|128|192|224|256|299|384|512|1024|2048)|[a-z]+?(?:_|-)?(?:64|96|128|192|224|256|299|384|512|1024|2048)|"
    r"(?:tile|patch|image|img|set|exp|batch|part|level|size|mag|fold|run|v|version|data|dataset|dir|folder|group)(?:e?s)?[-_ ]?\d+)"
)
_VISIT = re.compile(
    r"(?i:(?:study|visit|scan|series|session|ses)[-_ ]?\d+)"
)  # a folder that is a group if none above is
_TILE = re.compile(r"(?i:[-_](?!slice|frame))")  # of a slide, whose name may be T1
_OF_MANY = re.compile(r"(?<!\d)\d{3}$")  # BraTS20_Training_001 is no split
_STRIDES = (16, 50)  # a place is a multiple of one; numbers of cases and channels seldom are


def rule(recipe: Recipe, group_by: str) -> Rule:
    """Return what gives the group of an image by its path, None where the path says nothing.

    Raises `ValueError` where `group_by` is no group of the recipe, none of `BUILT_IN` and no regular expression with
    `(?P<group>...)`.
    """
    groups: Mapping[str, str] = recipe.groups
    if group_by in groups or (groups and not group_by):
        return _searching(groups[group_by or next(iter(groups))])
    if "(?P<group>" in group_by:
        try:
            return _searching(group_by)
        except ValueError as error:
            raise ValueError(f"--group-by {group_by!r} {error}") from error
    if group_by in ("", "patient", "series"):
        return named
    if group_by == "folder":
        return lambda image: normalize("NFC", image.rpartition("/")[0]) or None
    if group_by == UNGROUPED:
        return lambda _: None
    known = ", ".join(dict.fromkeys([*groups, *BUILT_IN]))
    raise ValueError(
        f"--group-by must be one of {known} for recipe '{recipe.name}', or a regular expression with (?P<group>...) "
        f"that is searched in the image's path; got '{group_by}'"
    )


def _searching(pattern: str) -> Rule:
    search = patterns.regex(pattern).search
    return lambda image: found["group"] if (found := search(image)) else None


@lru_cache(1)  # asked twice for each image
def named(image: str) -> str | None:
    """Return the patient, case or slide that a path names, None where it names none."""
    image = normalize("NFC", image)
    known = _KNOWN if _MAY_BE_KNOWN.search(image) else ()
    if found := next(filter(None, (pattern.search(image) for pattern in known)), None):
        return found[1]
    if known and (part := next(filter(None, (pattern.search(image) for pattern in _PARTS)), None)):
        return _whole(part)
    place = _PLACE.search(image)
    tiled = place and any(int(place[2]) % stride == int(place[3]) % stride == 0 for stride in _STRIDES)
    return _whole(place) if place and tiled else None


def _whole(part: "re.Match[str]") -> str | None:
    """Return the patient or slide of a part by the text before its place, or else by the nearest folder with a number in its name;
    None where neither says more than a sequence, a modality or a split.
    """
    if text := without_aside(part[1]):
        return text
    for folder in reversed(part.string[: part.start(1)].split("/")):
        own = folder if _VISIT.fullmatch(folder) else without_aside(folder)
        named = re.search(r"\d", own) and not _GENERIC.fullmatch(own)
        if named and (not names.split_of(own) or _OF_MANY.search(own)):
            return own
    return part[1] if _TILE.match(part.string, part.end(1)) and re.search(r"\d", part[1]) else None


@lru_cache(1 << 12)
def without_aside(text: str) -> str:
    """Return a name without the words at its end that tell apart images of one patient, "" where it has no others."""
    return _END.sub("", text)


def digest(text: str) -> str:
    """Return the SHA-256 of a group's name or of a key, which orders them: a shuffle that never changes."""
    return hashlib.sha256(text.encode()).hexdigest()


def choose(
    sizes: Iterable[tuple[str, int]], images: Callable[[], Iterable[tuple[str, int]]], recipe: Recipe
) -> tuple[Callable[[str, str], str], list[str]]:
    """Return what gives an image its split, from its group and its path, and notes for the user.

    Shares are met exactly where the recipe asks for it, and where by hash a split would be empty.

    Args:
        sizes: the groups whose split is not given, and the number of images of each.
        images: gives the same for images as groups of their own.
        recipe: has the shares.
    """
    few = list(islice(sizes, _MANY))
    total = sum(count for _, count in few)
    if not few or (len(few) == _MANY and not recipe.exact_splits):
        return lambda group, _: by_hash(group, recipe), []
    few += sizes
    empty = len({by_hash(group, recipe) for group, _ in few}) < len(recipe.splits)
    if not recipe.exact_splits and not empty:
        return lambda group, _: by_hash(group, recipe), []
    if len(few) < min(2, len(recipe.splits)) and total > 1:
        chosen = exact(dict(images()), recipe)
        return lambda _, image: chosen[image], [
            f"all {total} images are of one group, {few[0][0]!r}, and are spread over the splits: scores will be too good; "
            "add other patients or slides"
        ]
    chosen = exact(dict(few), recipe)
    note = f"{total} images in {len(few)} groups are few: shares are met as nearly as whole groups allow, not by hash"
    return lambda group, _: chosen[group], [] if recipe.exact_splits or total == 1 else [note]


def by_folders(database: sqlite3.Connection) -> list[str]:
    """Give images whose split is not given the one that their folders name, where these name training images and others.

    Returns the splits that are given now, "" among them where some images have none; nothing where no folder names one.
    """
    folders = "SELECT DISTINCT folder FROM found JOIN files ON image = path WHERE given = ''"
    named = names.splits_of(folder for (folder,) in database.execute(folders))
    if "train" not in map(names.split_of, named):
        return []
    own = "SELECT path FROM files WHERE folder = ?"
    update = f"UPDATE found SET given = ? WHERE given = '' AND image IN ({own})"
    database.executemany(update, [(split, folder) for folder, split in named.items() if split])
    return [split for (split,) in database.execute("SELECT DISTINCT given FROM found ORDER BY given")]


def known(recipe: Recipe) -> Rule:
    """Return what names the patient, or whatever must not be in two splits, whether or not images are grouped by it."""
    return _searching(next(iter(recipe.groups.values()))) if recipe.groups else named


def settle(database: sqlite3.Connection, recipe: Recipe, group_by: str) -> list[str]:
    """Make each image of which no group is known a group of its own, and one where a folder, or folders named after formats, have it
    in several formats. Returns a note where the user may not expect that.

    Raises `ValueError` where the groups that were asked for are none of any image.
    """
    (held,) = database.execute("SELECT count(grp) FROM found").fetchone()
    images, first = database.execute("SELECT count(*), min(image) FROM found WHERE grp IS NULL").fetchone()
    if group_by != UNGROUPED:
        folders = database.execute("SELECT DISTINCT folder FROM files").fetchall()
        plain = ((folder, one) for (folder,) in folders if (one := of_any_format(folder)) != folder)
        database.execute("CREATE TEMP TABLE plain (folder TEXT PRIMARY KEY, one)")
        database.executemany("INSERT INTO plain VALUES (?, ?)", plain)
        several = """SELECT first, image FROM (SELECT image, min(image) OVER own AS first, count(*) OVER own AS count
                     FROM found JOIN files ON image = path LEFT JOIN plain USING (folder) WHERE grp IS NULL
                     WINDOW own AS (PARTITION BY coalesce(one, folder), stem)) WHERE count > 1"""
        database.executemany("UPDATE found SET grp = ? WHERE image = ?", database.execute(several).fetchall())
        database.execute("DROP TABLE plain")
    database.execute("UPDATE found SET grp = image WHERE grp IS NULL")
    if not images or group_by == UNGROUPED or not (group_by or recipe.groups):
        return []
    if group_by and not held and images > 1:
        raise ValueError(
            f"--group-by {group_by!r} finds the group of no image, such as '{first}'; it is one of "
            f"{', '.join([*recipe.groups, *BUILT_IN])}, or a regular expression with (?P<group>...) that is searched in the path"
        )
    return [f"{images} images do not match the pattern of their group, such as '{first}': each is its own group"]


def of_any_format(folder: str) -> str:
    """Return a folder with a wildcard for each step that is named after a format: PNG/Original and TIF/Original are alike."""
    return "/".join(
        "*" if f".{step.lower()}" in kinds.SUFFIXES or step.lower() == "nifti" else step for step in folder.split("/")
    )


def by_hash(group: str, recipe: Recipe) -> str:
    """Return the split whose share of [0, 1) holds the group's hash: the same on every machine and in every run, and
    whatever other images there are.
    """
    point, edge = int(digest(f"{recipe.name}/{group}")[:13], 16) / 16**13, 0.0
    for split, share in recipe.splits.items():
        edge += share
        if point < edge:
            return split
    return list(recipe.splits)[-1]


def exact(sizes: Mapping[str, int], recipe: Recipe) -> dict[str, str]:
    """Return the split of each group so that the recipe's shares are met, from the groups' numbers of images.

    Each split but the first takes groups in the order of their hashes while that brings it nearer to its share of the
    images, at least one; the first takes the rest.
    """
    groups = sorted(sizes, key=lambda group: digest(f"{recipe.name}/{group}"))
    result: dict[str, str] = {}
    for split, share in list(recipe.splits.items())[1:]:
        aim, held = round(share * sum(sizes.values())), 0
        for group in groups:
            if group not in result and abs(held + sizes[group] - aim) < abs(held - aim):
                result[group], held = split, held + sizes[group]
        left = [group for group in groups if group not in result]
        if not held and len(left) > 1:
            result[min(left, key=lambda group: sizes[group])] = split
    return {group: result.get(group, next(iter(recipe.splits))) for group in groups}
