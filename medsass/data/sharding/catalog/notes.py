"""What the user should know of files that are no entries: those that are there where nothing matches, and those that are left."""

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator

from medsass.data.formats import kinds
from medsass.data.sharding.catalog import names
from medsass.data.sharding.catalog.listing import Listing
from medsass.data.sharding.recipe import Recipe


def unmatched(database: sqlite3.Connection, listing: Listing, recipe: Recipe, over: str) -> str:
    """Return why a source has no image, with two files that are there, and `over`, what was passed over."""
    globs = ", ".join(f"'{images.path}'" for images in recipe.images)
    there = database.execute("SELECT path FROM files ORDER BY path LIMIT 2").fetchall()
    shown = "; it holds " + " and ".join(f"'{path}'" for (path,) in there) if there and not over else over
    shown += "".join(f" ({tar}: {fault})" for tar, fault in list(listing.damaged.items())[:1])
    remedy = "check SOURCE and the recipe" if there else "it is empty"
    if not recipe.tars and database.execute("SELECT 1 FROM files WHERE name LIKE '%.tar' LIMIT 1").fetchone():
        remedy = "its tar files are read with --recipe webdataset"
    return f"no image matches {globs} of recipe '{recipe.name}'{shown}; {remedy}"


def rest(database: sqlite3.Connection, listing: Listing, recipe: Recipe, tasks: Collection[str]) -> Iterator[str]:
    """Yield notes on images that are no part of the layout, or of a sample that has an image already; and masks without an image.

    tasks: as `names.task_folders` returns them.
    """
    query = """SELECT path FROM files WHERE path NOT IN (SELECT image FROM found)
               AND path NOT IN (SELECT mask FROM offered) AND path NOT IN (SELECT image FROM aside) ORDER BY path"""
    images, masks = Counter[str](), Counter[str]()
    can_be_read = kinds.by_name if recipe.tars else listing.can_be_read  # other members are not looked into
    for (path,) in database.execute(query):
        if not can_be_read(path) or listing.is_detached(path):
            continue
        folder = names.masks_path(path, tasks)
        counted = masks if folder or names.is_made(names.stem(path)) else images
        counted[folder or path.rpartition("/")[0]] += 1
    beside = "images are beside the one of their sample, whose masks they may be, and are not read"
    for counted, what, remedy in (
        (images, beside if recipe.tars else "images are no part of this layout", "--images reads them too"),
        (masks, "masks have no image", "--masks pairs them"),
    ):
        if counted:
            remedy = "a recipe's globs read them" if recipe.tars else remedy
            yield f"{counted.total()} {what} (first in '{min(counted) or '.'}'); {remedy}"
