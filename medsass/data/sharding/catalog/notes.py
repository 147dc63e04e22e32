"""What the user should know of files that are no entries: those that are there where nothing matches, and those that are left."""

import json
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from medsass.data.formats import kinds
from medsass.data.sharding.catalog import names
from medsass.data.sharding.catalog.listing import Listing
from medsass.data.sharding.recipe import Recipe

NAMED = "named as masks or superpixels are, such as a_mask.png"  # why a file is passed over
_SOME = 100  # masks without an image that are looked at


def unmatched(database: sqlite3.Connection, listing: Listing, recipe: Recipe, over: str, tasks: Collection[str]) -> str:
    """Return why a source has no image, with two files that are there, and `over`, what was passed over.

    tasks: as `names.task_folders` returns them.
    """
    globs = ", ".join(f"'{images.path}'" for images in recipe.images)
    there = database.execute("SELECT path FROM files ORDER BY path LIMIT 2").fetchall()
    shown = "; it holds " + " and ".join(f"'{path}'" for (path,) in there) if there and not over else over
    shown += "".join(f" ({tar}: {fault})" for tar, fault in list(listing.damaged.items())[:1])
    remedy = "check SOURCE and the recipe" if there else "it is empty"
    if not recipe.tars and database.execute("SELECT 1 FROM files WHERE name LIKE '%.tar' LIMIT 1").fetchone():
        remedy = "its tar files are read with --recipe webdataset"
    if not recipe.tars and over:
        remedy = _inside(database, tasks) or ("--images '**/*' reads them" if NAMED in over else remedy)
    return f"no image matches {globs} of recipe '{recipe.name}'{shown}; {remedy}"


def _inside(database: sqlite3.Connection, tasks: Collection[str]) -> str:
    """Return what to do where all files lie in one folder that holds masks by its name, "" where they do not."""
    folders = [folder for (folder,) in database.execute("SELECT DISTINCT folder FROM files")]
    (one, *others) = {names.masks_path(f"{folder}/", tasks) for folder in folders}
    if others or not one:
        return ""
    below = any(names.holds_images(step) for folder in folders for step in folder[len(one) :].split("/"))
    task = names.may_be_task(one.rpartition("/")[2])
    remedy = "give it as SOURCE" if below else f"say --images '{one}/**/*'" if task else "rename it"
    return f"if '{one}' holds the images too, {remedy}"


def rest(database: sqlite3.Connection, listing: Listing, recipe: Recipe, tasks: Collection[str]) -> Iterator[str]:
    """Yield notes on images that are no part of the layout, or of a sample that has an image already; and masks without an image.

    tasks: as `names.task_folders` returns them.
    """
    query = """SELECT path FROM files WHERE path NOT IN (SELECT image FROM found)
               AND path NOT IN (SELECT mask FROM offered) AND path NOT IN (SELECT image FROM aside) ORDER BY path"""
    images, masks, some = Counter[str](), Counter[str](), list[str]()
    can_be_read = kinds.by_name if recipe.tars else listing.can_be_read  # other members are not looked into
    for (path,) in database.execute(query):
        if not can_be_read(path) or listing.is_detached(path):
            continue
        folder = names.masks_path(path, tasks)
        counted = masks if folder or names.is_made(names.stem(path)) else images
        counted[folder or path.rpartition("/")[0]] += 1
        some += [path] if counted is masks and len(some) < _SOME else []
    beside = "images are beside the one of their sample, whose masks they may be, and are not read"
    for counted, what, remedy in (
        (images, beside if recipe.tars else "images are no part of this layout", "--images reads them too"),
        (masks, "masks are paired with no image", "--masks pairs them"),
    ):
        if counted is masks and (note := _rivals(database, some, tasks)):
            yield f"WARNING: {masks.total()} more {note}"
        elif counted:
            remedy = "a recipe's globs read them" if recipe.tars else remedy
            yield f"{counted.total()} {what} (first in '{min(counted) or '.'}'); {remedy}"


def _rivals(database: sqlite3.Connection, masks: Sequence[str], tasks: Collection[str]) -> str:
    """Return what to say of masks where most fit images that have others, whose folders' names are as plain."""
    fits = "SELECT masks FROM found WHERE masks != '[]' AND substr(?, 1, length(stem)) = stem LIMIT 1"
    found = [database.execute(fits, (names.safe(names.stem(path)),)).fetchone() for path in masks]
    rivals = [
        (path, taken)
        for path, row in zip(masks, found, strict=True)
        for taken in (json.loads(row[0])[:1] if row else ())
        if names.rank(names.masks_folder(path, tasks)) == names.rank(names.masks_folder(taken, tasks))
    ]
    if 2 * len(rivals) <= len(masks):
        return ""
    path, taken = rivals[0]
    return f"masks, such as '{path}', fit images that have '{taken}' and the like; --masks says which are meant"
