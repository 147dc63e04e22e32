"""Recipe and source folder -> the list of images to store, each with its masks, split, class label and group.

Only names are read here, never pixels, so that counts and splits are known before the long work starts. The list lives
in a database: its length costs no memory, and an interrupted run finds it again.
"""

import csv
import glob
import hashlib
import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from medsass.data.formats.opening import SUFFIXES
from medsass.data.sharding.listing import MAGIC, Listing
from medsass.data.sharding.recipe import UNGROUPED, Images, Recipe

_PLACEHOLDER = re.compile(r"\{(stem|name|dir)\}")
_FRAME = re.compile(r"-f\d{6}$")  # a stem that could be taken for a frame of another file
_LONGEST_KEY = 64  # with a tile's position and ".mask.png" it fits the 100 bytes of a tar header


@dataclass(frozen=True)
class Entry:
    """One image file of the source. Paths are relative to the source, in POSIX form.

    Attributes:
        key: unique, and safe in a tar file.
        image, masks: paths.
        split, label, group: as the recipe decides; label is None where there is none.
        table: number of the recipe's [[images]] table that found the image.
    """

    key: str
    image: str
    masks: tuple[str, ...]
    split: str
    label: str | None
    group: str
    table: int = 0


class Catalog:
    """The entries of a source in the order in which they are stored, masks without an image, and notes for the user."""

    def __init__(self, database: sqlite3.Connection, excluded: Iterable[Path] = ()) -> None:
        self._database = database
        self.listing = Listing(database, excluded)

    def fill(self, source: Path, recipe: Recipe, group_by: str = "") -> None:
        """Find all images of `source` by `recipe`: split by split, each split in the order of its keys' hashes.

        That order is a shuffle that never changes. Neighbours in a tar file are not neighbours in the source, so the
        reader's shuffle buffer mixes classes and slides well.

        Raises:
            FileNotFoundError: the source is not there or holds no image, or a CSV file of class labels is missing.
            ValueError: pairs are ambiguous, or class labels cannot be read.
        """
        run = self._database.execute
        run("CREATE TABLE found (image TEXT PRIMARY KEY, stem, masks, entry INTEGER, label, grp)")
        run("CREATE TABLE claimed (mask TEXT PRIMARY KEY)")
        run("CREATE TABLE offered (mask TEXT, stem TEXT, entry INTEGER, PRIMARY KEY (mask, entry))")
        run("CREATE INDEX stems ON offered (stem, entry)")
        run("CREATE TABLE notes (text)")
        run("CREATE TABLE samples (rank INTEGER PRIMARY KEY, key, image, masks, split, label, grp, entry INTEGER)")
        self.listing.fill(source)
        groups = {**recipe.groups, UNGROUPED: "", "": next(iter(recipe.groups.values()), "")}
        if group_by not in groups:
            known = ", ".join([*recipe.groups, UNGROUPED])
            raise ValueError(f"--group-by must be one of {known} for recipe '{recipe.name}'; got '{group_by}'")
        pattern = groups[group_by]
        labels = _read_labels(source, recipe)
        matched = [self._find(images, table, recipe, pattern, labels) for table, images in enumerate(recipe.images)]
        if not any(matched):
            globs = ", ".join(f"'{images.path}'" for images in recipe.images)
            raise FileNotFoundError(
                f"{source}: no image matches {globs} of recipe '{recipe.name}'; check SOURCE and the recipe"
            )
        for images, hit in zip(recipe.images, matched, strict=True):
            if hit and images.classes and not (source / images.classes).is_file():
                raise FileNotFoundError(
                    f"{source / images.classes} is missing: it holds the class labels of '{images.path}'; put it there, "
                    "or take 'classes' out of a copy of the recipe"
                )
        self._sort(recipe)
        self._note(recipe, matched, pattern)
        run("DROP TABLE found")

    def entries(self, start: int = 0) -> Iterator[tuple[int, Entry]]:
        """Yield rank and entry, in order, from rank `start` on."""
        rows = self._database.execute("SELECT * FROM samples WHERE rank >= ? ORDER BY rank", (start,))
        for rank, key, image, masks, split, label, group, table in rows:
            yield rank, Entry(key, image, tuple(json.loads(masks)), split, label, group, table)

    def orphans(self) -> Iterator[str]:
        """Yield the masks that no image claimed, sorted."""
        query = "SELECT DISTINCT mask FROM offered WHERE mask NOT IN (SELECT mask FROM claimed) ORDER BY mask"
        return (mask for (mask,) in self._database.execute(query))

    def notes(self) -> list[str]:
        """Return the notes for the user."""
        return [text for (text,) in self._database.execute("SELECT text FROM notes")]

    def counts(self) -> dict[str, int]:
        """Return the number of image files by split, in the order of the splits."""
        query = "SELECT split, count(*) FROM samples GROUP BY split ORDER BY min(rank)"
        return dict(self._database.execute(query).fetchall())

    def _find(self, images: Images, table: int, recipe: Recipe, pattern: str, labels: dict[str, str]) -> bool:
        """Store each image of one [[images]] table with its masks. Returns whether there is any."""
        hit = False
        for image, masks in self._pair(images, table):
            hit = True
            stem = _stem(image)
            # A dot would end the key for WebDataset readers; a file whose name begins with - is an option to programs.
            safe = re.sub(r"^-|[^A-Za-z0-9_-]", "_", stem)
            label, group = labels.get(stem), image
            if recipe.classes.pattern and (match := re.search(recipe.classes.pattern, image)):
                label = match["class"] or label
            if pattern and (match := re.search(pattern, image)):
                group = match["group"] or group
            self._database.executemany("INSERT OR IGNORE INTO claimed VALUES (?)", ((mask,) for mask in masks))
            row = image, safe, json.dumps(masks), table, label, group
            try:
                self._database.execute("INSERT INTO found VALUES (?, ?, ?, ?, ?, ?)", row)
            except sqlite3.IntegrityError as error:
                raise ValueError(f"{image} is matched by two [[images]] of recipe '{recipe.name}'") from error
        return hit

    def _pair(self, images: Images, table: int) -> Iterator[tuple[str, list[str]]]:
        """Yield each image of one [[images]] table with its masks; files that the mask pattern matches are no images."""
        run, match = self._database.execute, self.listing.match

        def paths() -> Iterator[str]:
            found = match(_resolve(images.path))
            return (path for path in found if PurePosixPath(path).suffix.lower() in SUFFIXES)

        if not images.masks:
            yield from ((path, [path] if images.mask_array else []) for path in paths())
            return
        by_stem = not _PLACEHOLDER.search(images.masks)
        wide = {_resolve(images.masks)} if by_stem else {_fill(images.masks, path, any_name=True) for path in paths()}
        rows = ((mask, _stem(mask), table) for pattern in wide for mask in match(pattern))
        self._database.executemany("INSERT OR IGNORE INTO offered VALUES (?, ?, ?)", rows)
        query = "SELECT min(mask), max(mask) FROM offered WHERE entry = ? GROUP BY stem HAVING count(*) > 1"
        for one, other in run(query, (table,)) if by_stem else ():
            raise ValueError(
                f"masks '{one}' and '{other}' have one stem; tell them apart with {{dir}} in --masks, as in "
                "'{dir}/../masks/{stem}.png'"
            )
        for path in paths():
            if run("SELECT 1 FROM offered WHERE mask = ? AND entry = ?", (path, table)).fetchone():
                continue
            if by_stem:
                masks = run("SELECT mask FROM offered WHERE stem = ? AND entry = ?", (_stem(path), table))
                yield path, [mask for (mask,) in masks]
            else:
                yield path, list(match(_fill(images.masks, path)))

    def _sort(self, recipe: Recipe) -> None:
        """Give each image its key and its split, and store all in their final order."""
        run = self._database.execute
        exact_splits: dict[str, str] = {}
        if recipe.exact_splits:
            free = ",".join(str(table) for table, images in enumerate(recipe.images) if not images.split)
            sizes = run(f"SELECT grp, count(*) FROM found WHERE entry IN ({free}) GROUP BY grp")
            exact_splits = exact(dict(sizes.fetchall()), recipe)
        order = [*dict.fromkeys([*(images.split for images in recipe.images if images.split), *recipe.splits])]
        run("CREATE TEMP TABLE unsorted (split_order INTEGER, digest, key, image, masks, split, label, grp, entry)")
        query = """SELECT image, stem, masks, entry, label, grp, same FROM found
                   JOIN (SELECT stem AS one, count(*) AS same FROM found GROUP BY stem) ON stem = one"""
        framed = any(images.frames in ("auto", "all") for images in recipe.images)
        for image, stem, masks, table, label, group, same in run(query):
            plain = same == 1 and len(stem) <= _LONGEST_KEY and not (framed and _FRAME.search(stem))
            key = stem if plain else f"{stem[: _LONGEST_KEY - 13]}-{digest(image)[:12]}"
            split = recipe.images[table].split or exact_splits.get(group) or by_hash(group, recipe)
            row = (order.index(split), digest(key), key, image, masks, split, label, group, table)
            run("INSERT INTO unsorted VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        run("""INSERT INTO samples SELECT row_number() OVER (ORDER BY split_order, digest, key) - 1,
               key, image, masks, split, label, grp, entry FROM unsorted""")
        run("DROP TABLE unsorted")

    def _note(self, recipe: Recipe, matched: list[bool], pattern: str) -> None:
        """Store the notes: the recipe's own, globs without files, splits without images, images without a group."""
        notes = [recipe.note] if recipe.note else []
        for split in dict.fromkeys(images.split for images in recipe.images):
            tables = [pair for pair in zip(recipe.images, matched, strict=True) if pair[0].split == split]
            if not any(hit for _, hit in tables):
                globs = " or ".join(f"'{images.path}'" for images, _ in tables)
                notes.append(f"no file matches {globs}" + (f": split '{split}' left out" if split else ""))
        if any(not images.split for images in recipe.images):
            counts, why = self.counts(), "there are more splits than groups"
            if not recipe.exact_splits:
                total = sum(counts.values())
                why = (
                    f"its share of {total} is too small; exact_splits = true in the recipe gives it one group at least"
                )
            notes += [f"split '{split}' got no image: {why}" for split in recipe.splits if split not in counts]
        alone = self._database.execute("SELECT image FROM samples WHERE grp = image") if pattern else ()
        if count := sum(1 for (image,) in alone if not re.search(pattern, image)):
            notes.append(f"{count} images do not match the pattern of their group, {pattern!r}: each is its own group")
        self._database.executemany("INSERT INTO notes VALUES (?)", ((note,) for note in notes))


def _read_labels(source: Path, recipe: Recipe) -> dict[str, str]:
    """Return class labels by image stem, from those of the recipe's CSV files that exist. Raises `ValueError`."""
    labels: dict[str, str] = {}
    rule = recipe.classes
    for path in (source / images.classes for images in recipe.images if images.classes):
        if not path.is_file():
            continue
        with path.open(newline="", encoding="utf-8-sig") as file:
            for row in csv.DictReader(file):
                missing = [name for name in (rule.key, *rule.columns) if name not in row]
                if missing:
                    raise ValueError(f"{path}: column '{missing[0]}' is missing; the recipe's [classes] name it")
                stem = row[rule.key]
                try:
                    held = [column for column in rule.columns if float(row[column] or 0) > 0]
                except ValueError as error:
                    raise ValueError(f"{path}: row '{stem}': class columns must hold numbers ({error})") from error
                labels[stem] = held[0] if held else rule.otherwise
    return labels


def _fill(pattern: str, image: str, *, any_name: bool = False) -> str:
    """Replace a mask pattern's placeholders by the image's values (its name by `*` with `any_name`)."""
    folder, _, name = image.rpartition("/")
    values = {"stem": "*" if any_name else _stem(name), "name": "*" if any_name else name, "dir": folder or "."}
    if MAGIC.search(image):
        values = {key: value if value == "*" else glob.escape(value) for key, value in values.items()}
    return _resolve(_PLACEHOLDER.sub(lambda match: values[match[1]], pattern))


def _stem(path: str) -> str:
    """Return what `PurePosixPath.stem` does, in a tenth of its time."""
    name = path.rpartition("/")[2]
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and stem and suffix else name


def _resolve(pattern: str) -> str:
    """Resolve empty steps, `.` and `..` in a pattern. Raises `ValueError` where it leads out of the source."""
    steps: list[str] = []
    for step in pattern.split("/"):
        if step == ".." and not steps:
            raise ValueError(f"'{pattern}' leads out of SOURCE; give the folder above both as SOURCE")
        if step == "..":
            steps.pop()
        elif step not in ("", "."):
            steps.append(step)
    return "/".join(steps)


def digest(text: str) -> str:
    """Return the SHA-256 of a group's name or of a key, which orders them: a shuffle that never changes."""
    return hashlib.sha256(text.encode()).hexdigest()


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
