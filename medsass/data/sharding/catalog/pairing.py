"""Which masks belong to an image, by a glob of each.

A pattern of masks with `{stem}`, `{name}`, `{dir}` or `{folder}` is filled in for each image, and `{number}` in it stands for digits, as
of one object of several. Without one, an image and a mask are a
pair where the wildcards of both globs stand for the same text: `*_img.tif` and `*_masks.tif`, or `images/**/*` and
`masks/**/*` for two trees of the same folders. Suffixes do not count. Only where no wildcards agree at all, and one of the globs
has none in its folders, do equal stems decide.

In tar files `{key}` stands for a name up to its first dot, as in WebDatasets: `**/{key}.{jpg,png}` with `**/{key}.mask.*`. A sample,
which is what has one folder and key, has one image and the masks of one glob, by the globs' order.
"""

import re
import sqlite3
from collections.abc import Callable, Iterator

from medsass.data.sharding import patterns
from medsass.data.sharding.catalog.globs import PLACEHOLDER, Glob, expand, fill, filling, forms
from medsass.data.sharding.catalog.listing import MAGIC, Listing
from medsass.data.sharding.catalog.names import stem

_NUMBER, _MARK = "{number}", "\ue000"  # digits in a pattern of masks, and what stands for them in none
_STARS = re.compile(r"(?<=[^/*])\*{2,}|\*{2,}(?=[^/*])")  # {stem}* of any stem


class Pairing:
    """Pairs of a source's files. Raises `ValueError` where a mask could belong to several images, or an image to several masks
    of one glob.
    """

    def __init__(self, database: sqlite3.Connection, listing: Listing, readable: Callable[[str], bool]) -> None:
        self._database, self._match, self._readable = database, listing.match, readable
        self._detached = listing.is_detached
        database.execute(
            """CREATE TABLE offered (mask TEXT, stem TEXT, wildcards TEXT, entry INTEGER, place INTEGER,
               PRIMARY KEY (mask, entry))"""
        )
        database.execute("CREATE INDEX stems ON offered (entry, stem)")
        database.execute("CREATE INDEX captures ON offered (entry, wildcards)")
        database.execute("CREATE TABLE claimed (mask TEXT PRIMARY KEY, image TEXT)")

    def images(self, pattern: str) -> Iterator[tuple[str, "Glob"]]:
        """Yield each file that matches the pattern of images, once, with the glob that matches it."""
        globs = [Glob(form) for one in expand(pattern) for form in forms(one)]
        for at, one in enumerate(globs):
            for path in self._match(one.pattern):
                if (not one.keyed or one.fits(path)) and not any(other.fits(path) for other in globs[:at]):
                    yield path, one

    def offer(self, images: str, masks: str, table: int) -> None:
        """Find all files that may be masks of the images that match; they are no images, unless all images were masks, as with
        `*_0000.png` and `*.png`.
        """
        for at, one in enumerate(dict.fromkeys(expand(masks))):
            if not PLACEHOLDER.search(one):
                self._insert(
                    (path, stem(path), found.wildcards(path), table, at)
                    for found in map(Glob, forms(one))
                    for path in self._match(found.pattern)
                    if (not found.keyed or found.fits(path)) and self._readable(path)
                )
                continue
            folders = {path.rpartition("/")[0] for path, _ in self.images(images)}
            filled = {fill(one, f"{folder}/", "*", any_name=True) for folder in folders}
            wide = {_STARS.sub("*", form) for text in filled for form in forms(text)}
            for pattern in sorted(wide):
                self._insert((path, stem(path), None, table, at) for path in self._filled(pattern))
        if images != masks and all(self.offered(path, table) for path, _ in self.images(images)):
            query = "DELETE FROM offered WHERE mask = ? AND entry = ?"
            self._database.executemany(query, [(path, table) for path, _ in self.images(images)])

    def _filled(self, pattern: str) -> Iterator[str]:
        """Yield the files that match a pattern of masks that is filled in; images alone where it leaves the suffix open."""
        found = self._match(pattern.replace(_NUMBER, "*"))
        if _NUMBER in pattern:
            text = patterns.translated(pattern.replace(_NUMBER, _MARK)).replace(_MARK, r"\d+")
            found = filter(patterns.compiled(pattern.replace(_NUMBER, "*"), text).fullmatch, found)
        open_suffix = pattern.endswith("*")
        return (path for path in found if not open_suffix or (self._readable(path) and not self._detached(path)))

    def _insert(self, rows: Iterator[tuple[str, str, str | None, int, int]]) -> None:
        self._database.executemany("INSERT OR IGNORE INTO offered VALUES (?, ?, ?, ?, ?)", rows)

    def offered(self, path: str, table: int) -> bool:
        """Return whether a file may be a mask."""
        return bool(
            self._database.execute("SELECT 1 FROM offered WHERE mask = ? AND entry = ?", (path, table)).fetchone()
        )

    def rule(self, images: str, masks: str, table: int) -> str:
        """Return how images find their masks: "pattern", "key", "wildcards" or "stem"; "" where keys find none at all."""
        if PLACEHOLDER.search(masks):
            return "pattern"
        if "{key}" in masks:
            any_mask = self._database.execute("SELECT 1 FROM offered WHERE entry = ? LIMIT 1", (table,)).fetchone()
            return "key" if any_mask else ""
        query = "SELECT 1 FROM offered WHERE entry = ? AND wildcards = ?"
        pairs = (self._database.execute(query, (table, one.wildcards(path))) for path, one in self.images(images))
        trees = all(any(MAGIC.search(one.rpartition("/")[0]) for one in expand(globs)) for globs in (images, masks))
        by = "wildcards" if trees or any(found.fetchone() for found in pairs) else "stem"
        query = f"SELECT min(mask), max(mask) FROM offered WHERE entry = ? GROUP BY {by} HAVING count(*) > 1"
        for one, other in self._database.execute(query, (table,)):
            same = one.rpartition("/")[0] == other.rpartition("/")[0]
            apart = (
                "by their suffix in --masks, as in 'masks/*.png'"
                if same
                else "with {dir} in --masks, as in '{dir}/../masks/{stem}.png'"
            )
            raise ValueError(f"masks '{one}' and '{other}' have one stem; tell them apart {apart}")
        return by

    def masks(self, path: str, found: "Glob", rule: str, pattern: str, table: int) -> list[str]:
        """Return the masks of an image that matches the glob `found`, sorted, and mark them as taken."""
        if rule == "pattern":
            filled = [one for part in expand(pattern) for one in filling(part, path, found)]
            masks = sorted({mask for one in dict.fromkeys(filled) for mask in self._filled(one)})
        else:
            by, key = ("stem", stem(path)) if rule == "stem" else ("wildcards", found.wildcards(path))
            query = f"SELECT mask, place FROM offered WHERE entry = ? AND {by} = ? ORDER BY place, mask"
            rows = self._database.execute(query, (table, key)).fetchall()
            masks = [mask for mask, place in rows if rule != "key" or place == rows[0][1]]
            more = [(mask, path) for mask, _ in rows[len(masks) :]]
            self._database.executemany("INSERT OR IGNORE INTO claimed VALUES (?, ?)", more)
        masks = [mask for mask in masks if mask != path]
        shared = rule == "pattern" and not MAGIC.search(pattern) and not re.search(r"\{(stem|name)\}", pattern)
        for mask in masks:
            try:
                self._database.execute("INSERT INTO claimed VALUES (?, ?)", (mask, path))
            except sqlite3.IntegrityError as error:
                query = "SELECT image FROM claimed WHERE mask = ?"
                (other,) = self._database.execute(query, (mask,)).fetchone()
                if (
                    shared and other.rpartition("/")[0] == path.rpartition("/")[0]
                ):  # one mask a folder, as the user wrote it
                    continue
                raise ValueError(_shared(mask, other, path, found)) from error
        return masks

    def looked_for(self, image: str, found: "Glob", rule: str, pattern: str) -> str:
        """Return the name that an image's mask would have, of several the first."""
        first = expand(pattern)[0]
        return filling(first, image, found)[0] if rule == "pattern" else found.as_mask(image, first)

    def there(self, looked_for: str, table: int) -> list[str]:
        """Return two files that are there instead of a mask: those that the pattern offers, or else that its folder holds."""
        rows = self._database.execute(
            "SELECT mask FROM offered WHERE entry = ? ORDER BY mask LIMIT 2", (table,)
        ).fetchall()
        folder = looked_for.rpartition("/")[0]
        query = "SELECT path FROM files WHERE folder = ? ORDER BY path LIMIT 2"
        rows = rows or self._database.execute(query, (folder,)).fetchall()
        return [path for (path,) in rows]


def _shared(mask: str, one: str, other: str, found: "Glob") -> str:
    """Return why a mask cannot belong to two images, and what to do."""
    own, *others = (path.rpartition("/")[2][len(stem(path)) :] for path in (one, other, mask))
    if one.removesuffix(own) == other.removesuffix(others[0]):
        above, slash, name = found.pattern.rpartition("/")
        kept = own if own in others else others[0]  # the mask's, if it is one of them
        return (
            f"'{one}' and '{other}' are one picture in two formats, and '{mask}' is the mask of both; "
            f"--images '{above}{slash}{stem(name)}{kept}' reads one of them"
        )
    return (
        f"mask '{mask}' would belong to both '{one}' and '{other}'; tell them apart with {{dir}} in --masks, as in "
        "'{dir}/../masks/{stem}.png', or with the same folders in both globs, as in 'images/**/*' and 'masks/**/*'"
    )


def orphans(database: sqlite3.Connection) -> Iterator[str]:
    """Yield the masks that no image claimed, sorted."""
    query = "SELECT DISTINCT mask FROM offered WHERE mask NOT IN (SELECT mask FROM claimed) ORDER BY mask"
    return (mask for (mask,) in database.execute(query))


def united(database: sqlite3.Connection) -> list[str]:
    """Return a note where masks are in several files, as of objects, organs or annotators."""
    query = "SELECT count(*), max(json_array_length(masks)), min(image) FROM found WHERE json_array_length(masks) > 1"
    count, most, first = database.execute(query).fetchone()
    return (
        [f"{count} images have several mask files, up to {most}, which are united (first: '{first}')"] if count else []
    )
