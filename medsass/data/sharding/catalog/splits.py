"""Which images stay together, those of a patient, series, slide or folder, and which split a group goes to.

A recipe says it by regular expressions; else it is taken from names where they are plain about it, and from DICOM headers.
"""

import hashlib
import re
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from unicodedata import normalize

from medsass.data.sharding.catalog import names
from medsass.data.sharding.recipe import UNGROUPED, Recipe

Rule = Callable[[str], str | None]  # the path of an image -> its group

BUILT_IN = (UNGROUPED, "folder", "patient", "series")

_MANY = 1000  # groups from which on no split is empty by hash
_NAMES = 1000  # that are compared
_SPLITS = 3  # train, val and test
_BEGINNING = "(?:^|/)(?P<group>[^/]*?[0-9]+)[-_. ][^/]*$"  # of a file's name, up to a number
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
    re.compile(r"(?:^|/)([A-Z][A-Za-z]*(?:-[A-Z][A-Za-z]*)*-\d{3,5})/"),  # LIDC-IDRI-0001
    re.compile(r"(?:^|/)([Pp]\d{1,5})/"),
    re.compile(
        r"(?i:(?:^|/)([^/]+?)[-_](?:x\d+[-_]y\d+|y\d+[-_]x\d+|r(?:ow)?\d+[-_]c(?:ol)?\d+)(?:[-_]\w+)?\.[a-z]+$)"
    ),
    re.compile(r"(?i:(?:^|/)([^/]+?)[-_ ]*\[(?:d=[\d.]+,)?x=\d+,y=\d+)"),  # QuPath's
    re.compile(r"(?i:(?:^|/)([^/]+?)[-_](?:tile|patch|slice|frame)[-_]?\d+\.[a-z.]+$)"),
)
_PLACE = re.compile(r"(?i:(?:^|/)([^/]+?)[-_](0|[1-9]\d*)[-_](0|[1-9]\d*)\.[a-z]+$)")  # of a tile, without letters
_STRIDES = (16, 50)  # a place is a multiple of one; numbers of cases and channels seldom are


def rule(recipe: Recipe, group_by: str) -> Rule:
    """Return what gives the group of an image by its path, None where the path says nothing.

    Raises `ValueError` where `group_by` is no group of the recipe, none of `BUILT_IN` and no regular expression with
    `(?P<group>...)`.
    """
    patterns: Mapping[str, str] = recipe.groups
    if group_by in patterns or (patterns and not group_by):
        return _searching(patterns[group_by or next(iter(patterns))])
    if "(?P<group>" in group_by:
        try:
            return _searching(group_by)
        except re.error as error:
            raise ValueError(f"--group-by {group_by!r} is not a regular expression: {error}") from error
    if group_by in ("", "patient", "series"):
        return named
    if group_by == "folder":
        return lambda image: normalize("NFC", image.rpartition("/")[0]) or None
    if group_by == UNGROUPED:
        return lambda _: None
    known = ", ".join(dict.fromkeys([*patterns, *BUILT_IN]))
    raise ValueError(
        f"--group-by must be one of {known} for recipe '{recipe.name}', or a regular expression with (?P<group>...) "
        f"that is searched in the image's path; got '{group_by}'"
    )


def _searching(pattern: str) -> Rule:
    search = re.compile(pattern).search
    return lambda image: found["group"] if (found := search(image)) else None


@lru_cache(1)  # asked twice for each image
def named(image: str) -> str | None:
    """Return the patient, case or slide that a path names, None where it names none."""
    image = normalize("NFC", image)
    if found := next(filter(None, (pattern.search(image) for pattern in _KNOWN)), None):
        return found[1]
    place = _PLACE.search(image)
    tiled = place and any(int(place[2]) % stride == int(place[3]) % stride == 0 for stride in _STRIDES)
    return place[1] if place and tiled else None


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
    """Make each image of which no group is known a group of its own. Returns a note where the user may not expect that.

    Raises `ValueError` where the groups that were asked for are none of any image.
    """
    (held,) = database.execute("SELECT count(grp) FROM found").fetchone()
    images, first = database.execute("SELECT count(*), min(image) FROM found WHERE grp IS NULL").fetchone()
    database.execute("UPDATE found SET grp = image WHERE grp IS NULL")
    if not images or group_by == UNGROUPED or not (group_by or recipe.groups):
        return []
    if group_by and not held and images > 1:
        raise ValueError(
            f"--group-by {group_by!r} finds the group of no image, such as '{first}'; it is one of "
            f"{', '.join([*recipe.groups, *BUILT_IN])}, or a regular expression with (?P<group>...) that is searched in the path"
        )
    return [f"{images} images do not match the pattern of their group, such as '{first}': each is its own group"]


def notes(database: sqlite3.Connection, recipe: Recipe, group_by: str) -> list[str]:
    """Return notes on the groups of the catalog: how many there are, or could be, and those in two splits."""
    found = []
    own = "SELECT count(*), count(DISTINCT named), min(named) FROM found WHERE named NOT NULL"
    images, groups, first = database.execute(own).fetchone()
    if groups and images > groups and not group_by and not recipe.groups:
        found.append(
            f"{images} images are grouped by their names or headers: {groups} groups, such as {first!r}{_others(database)}"
        )
    elif not groups and not group_by and recipe.name == "folder":
        found += filter(None, (_by_folder(database), _by_beginning(database)))
    query = """SELECT named, group_concat(DISTINCT split), max(given) FROM found JOIN samples USING (image) WHERE named NOT NULL
               GROUP BY named HAVING count(DISTINCT split) > 1"""
    leaks = database.execute(query).fetchall()
    if leaks:
        name, splits, given = leaks[0]
        remedy = "--split shares all images anew and" if given and recipe.name == "folder" else "--group-by"
        found.append(
            f"WARNING: {len(leaks)} of {groups} groups have images in several splits, such as {name!r} in "
            f"{splits.replace(',', ' and ')}: scores will be too good; {remedy} keeps a patient's images together"
        )
    return found


def _others(database: sqlite3.Connection) -> str:
    """Return what a note says of images that name no group where others do."""
    query = "SELECT count(*), min(image) FROM found WHERE named IS NULL"
    count, first = database.execute(query).fetchone()
    return f"; {count} others, such as '{first}', name none: each is its own group" if count else ""


def _by_folder(database: sqlite3.Connection) -> str:
    """Return a note where several folders with several images, which name no split, may be patients."""
    query = "SELECT folder FROM found JOIN files ON image = path GROUP BY folder HAVING count(*) > 1"
    steps = [folder.split("/") for (folder,) in database.execute(query)]
    shapes = Counter(re.sub(r"\d+", "", name) for name in {path[-1] for path in steps})
    own = [path for path in steps if not names.split_of(path[-1]) or shapes[re.sub(r"\d+", "", path[-1])] > _SPLITS]
    few = [_without_split(path, shapes) for path in own]
    beside = Counter(few)  # train/source and test/source are no patients
    folders = sum(beside[path] == 1 for path in few)
    return (
        f"no patients are known by names or headers, and each image is a group; if the {folders} folders with several images "
        "are patients, --group-by folder keeps them together"
        if folders > 2
        else ""
    )


def _without_split(steps: Sequence[str], shapes: Mapping[str, int]) -> tuple[str, ...]:
    """Return the steps of a folder without the first that names a split, and those like it; BraTS20_Training_001 names none, by the
    number of folders of that name without its digits.
    """
    split = next((step for step in steps if names.split_of(step) and shapes[re.sub(r"\d+", "", step)] <= _SPLITS), "")
    return tuple(step for step in steps if step != split)


def _by_beginning(database: sqlite3.Connection) -> str:
    """Return a note where most names share a beginning up to a number with others of their folder, as those of a patient do."""
    begun = defaultdict[str, list[str]](list)
    query = "SELECT image FROM found WHERE given = '' ORDER BY image LIMIT ?"
    images = [image for (image,) in database.execute(query, (_NAMES,))]
    for image in images:
        if start := re.search(_BEGINNING, image):
            begun[start["group"]].append(image)
    several = [alike for alike in begun.values() if len(alike) > 1]
    apart = any(len({image.rpartition("/")[0] for image in alike}) > 1 for alike in several)
    if apart or len(several) < 2 or 2 * sum(map(len, several)) <= len(images):
        return ""
    one, other = several[0][:2]
    return (
        f"no patients are known by names or headers; if images such as '{one}' and '{other}' are of one patient, "
        f"--group-by '{_BEGINNING}' keeps them together"
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
