"""What the user should know of groups: those that could keep a patient's images together, and those with images in several splits."""

import re
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from medsass.data.sharding.catalog import names, splits
from medsass.data.sharding.recipe import FOLDER, Recipe

_NAMES = 1000  # that are compared
_SPLITS = 3  # train, val and test
_BEGINNINGS = (  # of a file's name, up to a number
    "(?:^|/)(?P<group>[^/]*?[0-9]+)[-_. ][^/]*$",
    "(?:^|/)(?P<group>[^/]*?[0-9]+)[A-Za-z][^/]*$",
)
_FOLDERS = tuple(  # that differ after a number, or lie in one that has a number
    pattern % deep
    for deep in ("/[^/]*$", "/[^/]*/[^/]*$", "/[^/]*/[^/]*/[^/]*$")
    for pattern in ("(?:^|/)(?P<group>[^/]*?[0-9]+)[-_. A-Za-z][^/]*%s", "(?:^|/)(?P<group>[^/]*[0-9][^/]*)/[^/]*%s")
)
_DATE = re.compile(r"\D*(?:19|20)\d\d([-_. ]?)(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12]\d|3[01])(?!\d)")
_NAME = "(?P<group>[^/]+)[.][^/.]*$"  # of a file without its suffix


def notes(database: sqlite3.Connection, recipe: Recipe, group_by: str) -> list[str]:
    """Return notes on the groups of the catalog: how many there are, or could be, and those in two splits."""
    found = []
    own = "SELECT count(*), count(DISTINCT named), min(named) FROM found WHERE named NOT NULL"
    images, groups, first = database.execute(own).fetchone()
    if groups and images > groups and not group_by and not recipe.groups:
        found.append(
            f"{images} images are grouped by their names or headers: {groups} groups, such as {first!r}{_others(database)}"
        )
    alone = f"SELECT count(*) FROM found WHERE named GLOB '*-{'[0-9a-f]' * 12}'"  # as headers name groups
    of_headers = groups and 10 * groups >= 9 * images and database.execute(alone).fetchone()[0] == images
    if (not groups or of_headers) and not group_by and recipe.name == FOLDER:
        known = f"{'nearly ' * (images > groups)}each image is a group of its own by its header"
        known = known if groups else "no patients are known by names or headers, and each image is a group"
        folders = _by_name(database, known) or _by_folder(database, known)
        found += filter(None, (folders, _by_beginning(database, known, not folders)))
    query = """SELECT named, group_concat(DISTINCT split), max(given) FROM found JOIN samples USING (image) WHERE named NOT NULL
               GROUP BY named HAVING count(DISTINCT split) > 1"""
    leaks = database.execute(query).fetchall()
    if leaks:
        name, where, given = leaks[0]
        remedy = "--split shares all images anew and" if given and recipe.name == FOLDER else "--group-by"
        found.append(
            f"WARNING: {len(leaks)} of {groups} groups have images in several splits, such as {name!r} in "
            f"{where.replace(',', ' and ')}: scores will be too good; {remedy} keeps a patient's images together"
        )
    return found


def _others(database: sqlite3.Connection) -> str:
    """Return what a note says of images that name no group where others do."""
    query = "SELECT count(*), min(image) FROM found WHERE named IS NULL"
    count, first = database.execute(query).fetchone()
    return f"; {count} others, such as '{first}', name none: each is its own group" if count else ""


def _by_name(database: sqlite3.Connection, known: str) -> str:
    """Return a note where nearly all images have a namesake in a sister folder, as two sequences of one patient do, and the folders
    are fewer than the names.
    """
    namesakes = """SELECT stem, count(*) AS images, min(image) AS one, max(image) AS other FROM found JOIN files ON image = path
                   WHERE given = '' GROUP BY stem HAVING count(DISTINCT folder) > 1 AND count(DISTINCT grp) > 1"""  # not of several formats
    names, images, one, other = database.execute(
        f"SELECT count(*), sum(images), min(one), other FROM ({namesakes})"
    ).fetchone()
    (total,) = database.execute("SELECT count(*) FROM found WHERE given = ''").fetchone()
    if not names or 10 * images < 9 * total:
        return ""
    query = "SELECT DISTINCT folder FROM found JOIN files ON image = path WHERE given = ''"
    folders = [folder for (folder,) in database.execute(query)]
    numbered = len({re.sub(r"\d+", "", folder) for folder in folders}) == 1
    if numbered and not all(re.fullmatch(r"(?i:t[12].{0,5})", folder.rpartition("/")[2]) for folder in folders):
        return ""  # 01 and 02 may be patients or films, unlike T1 and T2
    if names <= len(folders) or len({folder.rpartition("/")[0] for folder in folders}) > 1:
        return ""
    return (
        f"{known}; if images such as '{one}' and '{other}' are of one patient, --group-by '{_NAME}' keeps them together"
    )


def _by_folder(database: sqlite3.Connection, known: str) -> str:
    """Return a note where several folders with several images, which name no split, may be patients."""
    query = "SELECT folder FROM found JOIN files ON image = path GROUP BY folder HAVING count(*) > 1"
    steps = [folder.split("/") for folder in {splits.of_any_format(folder): 0 for (folder,) in database.execute(query)}]
    shapes = Counter(re.sub(r"\d+", "", name) for name in {path[-1] for path in steps})
    own = [path for path in steps if not names.split_of(path[-1]) or shapes[re.sub(r"\d+", "", path[-1])] > _SPLITS]
    few = [_without_split(path, shapes) for path in own]
    beside = Counter(few)  # train/source and test/source are no patients
    folders = sum(beside[path] == 1 for path in few)
    numbered = folders == len(steps) == 2 and len(shapes) == 1  # 01 and 02
    return (
        f"{known}; if the {folders} folders with several images are patients, --group-by folder keeps them together"
        if folders > 2 or numbered
        else ""
    )


def _without_split(steps: Sequence[str], shapes: Mapping[str, int]) -> tuple[str, ...]:
    """Return the steps of a folder without the first that names a split, and those like it; BraTS20_Training_001 names none, by the
    number of folders of that name without its digits.
    """
    split = next((step for step in steps if names.split_of(step) and shapes[re.sub(r"\d+", "", step)] <= _SPLITS), "")
    return tuple(step for step in steps if step != split)


def _by_beginning(database: sqlite3.Connection, known: str, folders: bool) -> str:
    """Return a note where most names share a beginning up to a number with others of their folder, as those of a patient do; or
    where `folders` do.
    """
    query = "SELECT image FROM found WHERE given = '' ORDER BY image LIMIT ?"
    images = [image for (image,) in database.execute(query, (_NAMES,))]
    for pattern in (*_BEGINNINGS, *_FOLDERS * folders):
        begun, ends = defaultdict[str, list[re.Match[str]]](list), set[str]()
        for found in filter(None, (re.search(pattern, image) for image in images)):
            if not _DATE.match(found.string, found.start("group")):
                begun[found["group"]].append(found)
                ends.add(found.string[found.end("group") :].strip("/").split("/")[0])
        several = [alike for alike in begun.values() if len({one.string.rpartition(".")[0] for one in alike}) > 1]
        apart = any(len({one.string[: one.start("group")] for one in alike}) > 1 for alike in several)
        by_chance = pattern != _BEGINNINGS[0] and len(ends) > len(begun)  # as of hashes, which have no ends in common
        if not (apart or by_chance) and len(several) > 1 and 2 * sum(map(len, several)) > len(images):
            return _if_alike(known, several[0][0].string, several[0][1].string, pattern)
    return ""


def _if_alike(known: str, one: str, other: str, pattern: str) -> str:
    return f"{known}; if images such as '{one}' and '{other}' are of one patient, --group-by '{pattern}' keeps them together"
