"""Recipe and source folder -> the list of samples: each image with its masks, split, class label and group.

Only names are read here, never pixels, so that counts and splits are known before the long work starts. The list lives
in a database, so that its length costs no memory and an interrupted run finds it again.
"""

import glob
import json
import re
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from medsass.data.formats.opening import SUFFIXES
from medsass.data.sharding import classes, splits
from medsass.data.sharding.listing import MAGIC, Listing
from medsass.data.sharding.recipe import ALONE, Images, Recipe

_PLACEHOLDER = re.compile(r"\{(stem|name|dir)\}")
_FRAME = re.compile(r"-f\d{6}$")  # a stem that could be taken for a frame of another file
_LONGEST_KEY = 64  # with a tile's position and ".mask.png" it fits the 100 bytes of a tar header


@dataclass(frozen=True)
class Sample:
    """One image file of the source. Paths are relative to it, in POSIX form; `key` is unique and safe in a tar file;
    `entry` is the number of the recipe's [[images]] table that found it.
    """

    key: str
    image: str
    masks: tuple[str, ...]
    split: str
    label: str | None
    group: str
    entry: int = 0


class Catalog:
    """What a recipe finds in a source, in a database: samples in the order in which they are stored, masks that no
    image claimed, and remarks.
    """

    def __init__(self, database: sqlite3.Connection, apart: Iterable[Path] = ()) -> None:
        self._database = database
        self.listing = Listing(database, apart)

    def fill(self, source: Path, recipe: Recipe, group_by: str = "") -> None:
        """Find all samples of `source` by `recipe`, split by split, each split in the stable order of its keys' hashes.

        The hashed order is a shuffle that never changes: neighbours in a tar file are not neighbours in the source, so
        the reader's shuffle buffer mixes classes and slides well. Raises `FileNotFoundError` for a source that is not
        there or holds no image, and `ValueError` for pairs that are ambiguous.
        """
        run = self._database.execute
        run("CREATE TABLE found (image TEXT PRIMARY KEY, stem, masks, entry INTEGER, label, grp)")
        run("CREATE TABLE claimed (mask TEXT PRIMARY KEY)")
        run("CREATE TABLE offered (mask TEXT, stem TEXT, entry INTEGER, PRIMARY KEY (mask, entry))")
        run("CREATE INDEX stems ON offered (stem, entry)")
        run("CREATE TABLE notes (text)")
        run("CREATE TABLE samples (rank INTEGER PRIMARY KEY, key, image, masks, split, label, grp, entry INTEGER)")
        self.listing.fill(source)
        pattern = _grouping(recipe, group_by)
        labels = classes.read(source, recipe)
        matched = [self._find(images, entry, recipe, pattern, labels) for entry, images in enumerate(recipe.images)]
        if not any(matched):
            globs = ", ".join(f"'{images.path}'" for images in recipe.images)
            raise FileNotFoundError(
                f"{source}: no image matches {globs} of recipe '{recipe.name}'; check SOURCE and the recipe"
            )
        classes.check(source, recipe, matched)
        self._sort(recipe)
        self._remark(recipe, matched, pattern)
        run("DROP TABLE found")

    def __len__(self) -> int:
        return int(self._database.execute("SELECT count(*) FROM samples").fetchone()[0])

    def samples(self, start: int = 0) -> Iterator[tuple[int, Sample]]:
        """Rank and sample, in order, from rank `start`."""
        rows = self._database.execute("SELECT * FROM samples WHERE rank >= ? ORDER BY rank", (start,))
        for rank, key, image, masks, split, label, group, entry in rows:
            yield rank, Sample(key, image, tuple(json.loads(masks)), split, label, group, entry)

    def orphans(self) -> Iterator[str]:
        """Masks that no image claimed, sorted."""
        query = "SELECT DISTINCT mask FROM offered WHERE mask NOT IN (SELECT mask FROM claimed) ORDER BY mask"
        return (mask for (mask,) in self._database.execute(query))

    def notes(self) -> list[str]:
        """Remarks for the user."""
        return [text for (text,) in self._database.execute("SELECT text FROM notes")]

    def counts(self) -> dict[str, int]:
        """Image files by split, in the order of the splits."""
        query = "SELECT split, count(*) FROM samples GROUP BY split ORDER BY min(rank)"
        return dict(self._database.execute(query).fetchall())

    def _find(self, images: Images, entry: int, recipe: Recipe, group: str, labels: dict[str, str]) -> bool:
        """Store each image of one [[images]] table with its masks; True where there is any."""

        def rows() -> Iterator[tuple[object, ...]]:
            for image, masks in self._pair(images, entry):
                label = _match(recipe.classes.pattern, "class", image) or labels.get(_stem(image))
                self._database.executemany("INSERT OR IGNORE INTO claimed VALUES (?)", ((mask,) for mask in masks))
                whole = _match(group, "group", image) or image
                yield image, _safe(_stem(image)), json.dumps(masks), entry, label, whole

        before = self._database.total_changes
        for row in rows():
            try:
                self._database.execute("INSERT INTO found VALUES (?, ?, ?, ?, ?, ?)", row)
            except sqlite3.IntegrityError as error:
                raise ValueError(f"{row[0]} is matched by two [[images]] of recipe '{recipe.name}'") from error
        return self._database.total_changes > before

    def _pair(self, images: Images, entry: int) -> Iterator[tuple[str, list[str]]]:
        """Each image of one [[images]] table with its masks; what the pattern offers as masks is noted."""
        if not images.masks:
            yield from ((path, [path] if images.mask_array else []) for path in self._images(images))
        elif not _PLACEHOLDER.search(images.masks):
            self._offer([_tidy(images.masks)], entry)
            self._check_stems(entry)
            for path in self._images(images):
                if not self._offered("mask", path, entry):
                    yield path, self._offered("stem", _stem(path), entry)
        else:
            self._offer({_fill(images.masks, path, any_name=True) for path in self._images(images)}, entry)
            for path in self._images(images):
                if not self._offered("mask", path, entry):
                    yield path, list(self.listing.match(_fill(images.masks, path)))

    def _images(self, images: Images) -> Iterator[str]:
        paths = self.listing.match(_tidy(images.path))
        return (path for path in paths if PurePosixPath(path).suffix.lower() in SUFFIXES)

    def _offer(self, patterns: Iterable[str], entry: int) -> None:
        rows = ((mask, _stem(mask), entry) for pattern in patterns for mask in self.listing.match(pattern))
        self._database.executemany("INSERT OR IGNORE INTO offered VALUES (?, ?, ?)", rows)

    def _offered(self, column: str, value: str, entry: int) -> list[str]:
        query = f"SELECT mask FROM offered WHERE {column} = ? AND entry = ?"
        return [mask for (mask,) in self._database.execute(query, (value, entry))]

    def _check_stems(self, entry: int) -> None:
        query = "SELECT min(mask), max(mask) FROM offered WHERE entry = ? GROUP BY stem HAVING count(*) > 1"
        for one, other in self._database.execute(query, (entry,)):
            raise ValueError(
                f"masks '{one}' and '{other}' have one stem; tell them apart with {{dir}} in --masks, as in "
                "'{dir}/../masks/{stem}.png'"
            )

    def _sort(self, recipe: Recipe) -> None:
        run = self._database.execute
        exact = splits.exact(self._sizes(recipe), recipe) if recipe.exact_splits else {}
        order = [*dict.fromkeys([*(images.split for images in recipe.images if images.split), *recipe.splits])]
        run("CREATE TEMP TABLE unsorted (split_order INTEGER, digest, key, image, masks, split, label, grp, entry)")
        query = """SELECT image, stem, masks, entry, label, grp, same FROM found
                   JOIN (SELECT stem AS one, count(*) AS same FROM found GROUP BY stem) ON stem = one"""
        framed = any(images.frames == "all" for images in recipe.images)
        for image, stem, masks, entry, label, group, same in run(query):
            plain = same == 1 and len(stem) <= _LONGEST_KEY and not (framed and _FRAME.search(stem))
            key = stem if plain else f"{stem[: _LONGEST_KEY - 13]}-{splits.digest(image)[:12]}"
            split = recipe.images[entry].split or exact.get(group) or splits.by_hash(group, recipe)
            row = (order.index(split), splits.digest(key), key, image, masks, split, label, group, entry)
            run("INSERT INTO unsorted VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        run("""INSERT INTO samples SELECT row_number() OVER (ORDER BY split_order, digest, key) - 1,
               key, image, masks, split, label, grp, entry FROM unsorted""")
        run("DROP TABLE unsorted")

    def _sizes(self, recipe: Recipe) -> dict[str, int]:
        """Images by group, of the [[images]] tables that name no split."""
        free = [i for i, images in enumerate(recipe.images) if not images.split]
        query = f"SELECT grp, count(*) FROM found WHERE entry IN ({','.join(map(str, free))}) GROUP BY grp"
        return dict(self._database.execute(query).fetchall())

    def _remark(self, recipe: Recipe, matched: list[bool], pattern: str) -> None:
        notes = [recipe.note] if recipe.note else []
        for split in dict.fromkeys(images.split for images in recipe.images):
            tables = [
                (images.path, hit) for images, hit in zip(recipe.images, matched, strict=True) if images.split == split
            ]
            if not any(hit for _, hit in tables):
                globs = " or ".join(f"'{path}'" for path, _ in tables)
                notes.append(f"no file matches {globs}" + (f": split '{split}' left out" if split else ""))
        counts = self.counts()
        if any(not images.split for images in recipe.images):
            why = (
                f"its share of {len(self)} is too small; exact_splits = true in the recipe gives it one group at least"
            )
            why = "there are more splits than groups" if recipe.exact_splits else why
            notes += [
                f"split '{split}' got no image: {why}" for split in recipe.splits if split not in counts
            ]  # fmt: skip
        if pattern:
            alone = self._database.execute("SELECT image FROM samples WHERE grp = image")
            apart = sum(1 for (image,) in alone if not re.search(pattern, image))
            if apart:
                notes.append(
                    f"{apart} images do not match the pattern of their group, {pattern!r}: each is its own group"
                )
        self._database.executemany("INSERT INTO notes VALUES (?)", ((note,) for note in notes))


def _grouping(recipe: Recipe, group_by: str) -> str:
    """The pattern of the grouping of that name, "" where each image stands for itself. Raises `ValueError`."""
    if group_by == ALONE:
        return ""
    if group_by and group_by not in recipe.groups:
        known = ", ".join([*recipe.groups, ALONE])
        raise ValueError(f"--group-by must be one of {known} for recipe '{recipe.name}'; got '{group_by}'")
    return recipe.groups[group_by] if group_by else next(iter(recipe.groups.values()), "")


def _fill(pattern: str, image: str, *, any_name: bool = False) -> str:
    """`pattern` with its placeholders replaced by the image's own (or, for its name, by `*`), up-steps resolved."""
    folder, _, name = image.rpartition("/")
    values = {"stem": "*" if any_name else _stem(name), "name": "*" if any_name else name, "dir": folder or "."}
    if MAGIC.search(image):
        values = {key: value if value == "*" else glob.escape(value) for key, value in values.items()}
    return _tidy(_PLACEHOLDER.sub(lambda match: values[match[1]], pattern))


def _stem(path: str) -> str:
    """As `PurePosixPath.stem`, at a tenth of its time."""
    name = path.rpartition("/")[2]
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and stem and suffix else name


def _tidy(pattern: str) -> str:
    """A pattern without empty steps, `.` and `..`. Raises `ValueError` where it leads out of the source."""
    parts: list[str] = []
    for part in pattern.split("/"):
        if part == ".." and not parts:
            raise ValueError(f"'{pattern}' leads out of SOURCE; give the folder above both as SOURCE")
        if part == "..":
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def _safe(stem: str) -> str:
    """A stem in letters, digits, _ and -: a dot would end the key for WebDataset readers, and an unpacked file whose
    name begins with - is an option to many programs.
    """
    return re.sub(r"^-|[^A-Za-z0-9_-]", "_", stem)


def _match(pattern: str, name: str, path: str) -> str | None:
    match = re.search(pattern, path) if pattern else None
    return match[name] if match else None
