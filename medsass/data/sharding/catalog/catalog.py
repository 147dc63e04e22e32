"""Recipe and source folder -> the list of images to store, each with its masks, split, class label and group.

Only names are read here, never pixels, so that counts and splits are known before the long work starts. The list lives
in a database: its length costs no memory, and an interrupted run finds it again.
"""

import json
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from medsass.data.sharding.catalog import (
    classes,
    globs,
    headers,
    layout,
    leaks,
    names,
    notes,
    pairing,
    splits,
    twins,
    volumes,
)
from medsass.data.sharding.catalog.entry import Entry
from medsass.data.sharding.catalog.listing import Listing, Stat
from medsass.data.sharding.catalog.pairing import Pairing
from medsass.data.sharding.recipe import FOLDER, Images, Recipe

_FRAME = re.compile(r"-f\d{6}$")  # a stem that could be taken for a frame of another file
_TOGETHER = 100  # entries that are looked up together
_REASONS = 6  # for which files are passed over that a note names
_ANY = "**/*"
_LONGEST_KEY = 64  # with a tile's position and ".mask.png" it fits the 100 bytes of a tar header


class Catalog:
    """The entries of a source in the order in which they are stored, masks without an image, and notes for the user."""

    def __init__(self, database: sqlite3.Connection, excluded: Iterable[Path] = (), *, follow: bool = False) -> None:
        self._database = database
        self.listing = Listing(database, excluded, follow=follow)

    def fill(self, source: Path, recipe: Recipe, group_by: str = "") -> Recipe:
        """Find all images of `source` by `recipe`: split by split, each split in the order of its keys' hashes.

        That order is a shuffle that never changes. Neighbours in a tar file are not neighbours in the source, so the
        reader's shuffle buffer mixes classes and slides well.

        Returns the recipe as it is used: with the images and masks of a usual layout where it leaves them open.

        Raises:
            FileNotFoundError: the source is not there or holds no image, or a CSV file of class labels is missing.
            ValueError: pairs are ambiguous, or class labels cannot be read.
        """
        run = self._database.execute
        run("""CREATE TABLE found (image TEXT PRIMARY KEY, stem, masks, entry INTEGER, label, grp, named, given,
               sample UNIQUE, series, place REAL, slices)""")
        run("CREATE TABLE aside (image TEXT PRIMARY KEY)")
        run("CREATE TABLE notes (text)")
        run(
            "CREATE TABLE samples (rank INTEGER PRIMARY KEY, key, image, masks, split, label, grp, entry INTEGER, slices)"
        )
        self.listing.fill(source, globs.expand(recipe.tars) if recipe.tars else (), recipe.classes.extension)
        self._pairing = Pairing(self._database, self.listing, self.listing.can_be_read)
        self._over: Counter[str] = Counter()
        self._tasks = names.task_folders(folders := [folder for (folder,) in run("SELECT DISTINCT folder FROM files")])
        guessed = not recipe.images[0].path
        recipe = self._recognised(source, recipe) if guessed else recipe
        if recipe.name == FOLDER and not any(images.masks for images in recipe.images):
            names.check_source(source.resolve().name, folders)
        self._splits = names.splits_of(tar for (tar,) in run("SELECT DISTINCT tar FROM files ORDER BY tar"))
        if recipe.exact_splits and all(self._splits.values()) and self._splits:
            raise ValueError(f"{source}: its tar files name their splits, such as '{min(self._splits)}'; drop --split")
        recipe = replace(recipe, splits=names.rest(recipe.splits, self._splits.values()))
        find, labels = splits.rule(recipe, group_by), classes.read(source, recipe)
        matched = [self._find(table, recipe, labels, find, guessed) for table in range(len(recipe.images))]
        if not any(matched):
            over = f" ({self._passed_over()})" if self._over else ""
            why = notes.unmatched(self._database, self.listing, recipe, over, self._tasks)
            raise FileNotFoundError(f"{source}: {why}")
        for images, hit in zip(recipe.images, matched, strict=True):
            if hit and images.classes and not (source / images.classes).is_file():
                raise FileNotFoundError(
                    f"{source / images.classes} is missing: it holds the class labels of '{images.path}'; put it there, "
                    "or take 'classes' out of a copy of the recipe"
                )
        for tar, split in self._splits.items():
            own = split, f"{tar}/", f"{tar}0"  # 0 comes after /
            run("UPDATE found SET given = ? WHERE given = '' AND image > ? AND image < ?", own)
        if recipe.name == FOLDER and not recipe.exact_splits and (named := splits.by_folders(self._database)):
            self._say(f"folders name the splits: {', '.join(filter(None, named))}; --split shares all images anew")
            recipe = replace(recipe, splits=names.rest(recipe.splits, named))
        aside, alike = headers.group(self._database, self.listing, source, recipe, group_by)
        self._over += Counter(aside)  # which keeps no zeros
        pair = twins.find(self._database) if guessed else None
        united = volumes.unite(self._database, max(images.every for images in recipe.images))
        for note in [*alike, *united, *splits.settle(self._database, recipe, group_by)]:
            self._say(note)
        self._sort(recipe)
        self._note(recipe, matched, group_by, guessed, pair)
        run("DROP TABLE found")
        run("DROP TABLE aside")
        return recipe

    def entries(self, start: int = 0) -> Iterator[tuple[int, Entry]]:
        """Yield rank and entry, in order, from rank `start` on."""
        rows = self._database.execute("SELECT * FROM samples WHERE rank >= ? ORDER BY rank", (start,))
        for rank, key, image, masks, split, label, group, table, slices in rows:
            files = tuple(json.loads(slices)) if slices else ()
            yield rank, Entry(key, image, tuple(json.loads(masks)), split, label, group, table, files)

    def listed(self, start: int = 0) -> Iterator[tuple[int, Entry, tuple[Stat, ...]]]:
        """Yield the `entries`, each with what its files were when they were listed."""
        entries = self.entries(start)
        while some := list(islice(entries, _TOGETHER)):
            stats = iter(self.listing.stats([path for _, entry in some for path in entry.paths]))
            for rank, entry in some:
                yield rank, entry, tuple(islice(stats, len(entry.paths)))

    def orphans(self) -> Iterator[str]:
        """Yield the masks that no image claimed, sorted."""
        return pairing.orphans(self._database)

    def notes(self) -> list[str]:
        """Return the notes for the user."""
        return [text for (text,) in self._database.execute("SELECT text FROM notes")]

    def counts(self) -> dict[str, int]:
        """Return the number of entries by split, in the order of the splits."""
        query = "SELECT split, count(*) FROM samples GROUP BY split ORDER BY min(rank)"
        return dict(self._database.execute(query).fetchall())

    def pairs(self, most: int) -> list[tuple[str, tuple[str, ...]]]:
        """Return some images with their masks, those with masks first."""
        query = "SELECT image, masks FROM samples ORDER BY masks = '[]', image LIMIT ?"
        return [(image, tuple(json.loads(masks))) for image, masks in self._database.execute(query, (most,))]

    def _say(self, note: str) -> None:
        self._database.execute("INSERT INTO notes VALUES (?)", (note,))

    def _recognised(self, source: Path, recipe: Recipe) -> Recipe:
        """Return the recipe with the images and masks of the source's layout, where it is a usual one."""
        pictured = partial(headers.pictured, self.listing, source)
        tables = layout.recognise(self._database, self.listing.can_be_read, pictured, self._tasks)
        for table in tables:
            masks = f" --masks '{table.masks}'" if table.masks else ""
            self._say(f"layout: --images '{table.path}'{masks}" + (f" (split {table.split})" if table.split else ""))
        shares = names.rest(recipe.splits, [table.split for table in tables])
        kept = recipe.images[0]  # has the options that say how files are read
        images = tuple(replace(kept, path=table.path, masks=table.masks, split=table.split) for table in tables)
        return replace(recipe, images=images or (replace(kept, path=_ANY),), splits=shares)

    def _find(self, table: int, recipe: Recipe, labels: dict[str, str], find: splits.Rule, guessed: bool) -> bool:
        """Store each image of one [[images]] table with its masks. Returns whether there is any."""
        images, known = recipe.images[table], splits.known(recipe)
        if images.masks:
            self._pairing.offer(images.path, images.masks, table)
        rule = self._pairing.rule(images.path, images.masks, table) if images.masks else ""
        hit, alone, first = 0, 0, None
        for image, found in self._pairing.images(images.path):
            sample = found.wildcards(image) if found.keyed else None
            if self._is_passed(image, sample, table, images, guessed):
                continue
            hit += 1
            masks = self._pairing.masks(image, found, rule, images.masks, table) if rule else []
            if rule and not masks:
                alone, first = alone + 1, first or (image, found)
            masks = [image] if images.mask_array and not rule else masks
            name, group = found.stem(image), find(image)
            label = classes.label(image, name, recipe, labels, self.listing)
            row = image, names.safe(name), json.dumps(masks), table, label, group, known(image), images.split, sample
            try:
                self._database.execute("INSERT INTO found VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL, NULL)", row)
            except sqlite3.IntegrityError as error:
                raise ValueError(
                    f"{image} is matched by two [[images]] of recipe '{recipe.name}'; narrow one of their paths"
                ) from error
        if first:
            looked_for = self._pairing.looked_for(*first, rule, images.masks)
            there = self._pairing.there(looked_for, table)
            if alone == hit and not guessed and (there or recipe.name == FOLDER):
                shown = " and ".join(f"'{path}'" for path in there) or "no such files"
                shown += "".join(f"; {path}: {fault}" for path, fault in list(self.listing.damaged.items())[:1])
                raise ValueError(
                    f"no image has a mask: for '{first[0]}' '{looked_for}' was looked for; there are {shown}"
                )
            kept = "left out" if recipe.masks.required else "kept"
            looked = f"(first: '{first[0]}'; '{looked_for}' was looked for)"
            self._say(f"{alone} of {hit} images have no mask and are {kept} {looked}")
        return bool(hit)

    def _is_passed(self, image: str, sample: str | None, table: int, images: Images, guessed: bool) -> bool:
        """Return whether a file that the pattern of images matches is none to store, and count it if the user should know."""
        if images.masks and self._pairing.offered(image, table):
            return True
        if sample and self._database.execute("SELECT 1 FROM found WHERE sample = ?", (sample,)).fetchone():
            return True  # it has an image
        if self.listing.is_detached(image):
            return True
        if reason := self._no_image(image, images.path, guessed):
            self._over[reason] += 1
        return bool(reason)

    def _sort(self, recipe: Recipe) -> None:
        """Give each image its key and its split, and store all in their final order."""
        run = self._database.execute
        sizes = run("SELECT grp, count(*) FROM found WHERE given = '' GROUP BY grp")
        choice, told = splits.choose(sizes, lambda: run("SELECT image, 1 FROM found WHERE given = ''"), recipe)
        sizes.close()  # of many groups not all are read, and an open query locks the tables
        given = (split for (split,) in run("SELECT DISTINCT given FROM found WHERE given != '' ORDER BY entry, given"))
        named = (images.split for images in recipe.images if images.split)
        order = [*dict.fromkeys([*named, *recipe.splits, *self._splits.values(), *given])]
        run(
            "CREATE TEMP TABLE unsorted (split_order INTEGER, digest, key, image, masks, split, label, grp, entry, slices)"
        )
        query = """SELECT image, stem, masks, entry, label, grp, given, slices, same FROM found
                   JOIN (SELECT stem AS one, count(*) AS same FROM found GROUP BY stem) ON stem = one"""
        framed = any(images.frames != "first" for images in recipe.images)

        def rows() -> Iterator[tuple[Any, ...]]:
            for image, name, masks, table, label, group, given, slices, same in run(query):
                plain = same == 1 and len(name) <= _LONGEST_KEY and not (framed and _FRAME.search(name))
                key = name if plain else f"{name[: _LONGEST_KEY - 13]}-{splits.digest(image)[:12]}"
                split = given or choice(group, image)
                yield order.index(split), splits.digest(key), key, image, masks, split, label, group, table, slices

        self._database.executemany("INSERT INTO unsorted VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows())
        run("""INSERT INTO samples SELECT row_number() OVER (ORDER BY split_order, digest, key) - 1,
               key, image, masks, split, label, grp, entry, slices FROM unsorted""")
        run("DROP TABLE unsorted")
        for note in told:
            self._say(note)

    def _note(
        self, recipe: Recipe, matched: list[bool], group_by: str, guessed: bool, pair: tuple[str, str] | None
    ) -> None:
        """Store the notes: the recipe's own, what was passed over, a `pair` of folders with like names, splits without images,
        groups.
        """
        if recipe.note:
            self._say(recipe.note)
        for split in dict.fromkeys(images.split for images in recipe.images):
            tables = [pair for pair in zip(recipe.images, matched, strict=True) if pair[0].split == split]
            if not any(hit for _, hit in tables):
                globs = " or ".join(f"'{images.path}'" for images, _ in tables)
                self._say(f"no file matches {globs}" + (f": split '{split}' left out" if split else ""))
        if self._over:
            self._say(self._passed_over())
        if extension := recipe.classes.extension:
            query = "SELECT count(*), min(path) FROM files WHERE label IS NULL AND name LIKE '%.' || ?"
            count, first = self._database.execute(query, (extension,)).fetchone()
            if count:
                self._say(
                    f"{count} '.{extension}' files hold no class, a number or a name in one line (first: '{first}')"
                )
        if pair:
            self._say(
                f"WARNING: '{pair[0]}' and '{pair[1]}' are files of the same names; if one holds masks, say so: "
                f"--images '{pair[0]}' --masks '{pair[1]}'"
            )
        if guessed or recipe.tars:
            for note in notes.rest(self._database, self.listing, recipe, self._tasks):
                self._say(note)
        if self._database.execute("SELECT 1 FROM found WHERE given = ''").fetchone():
            counts = self.counts()
            for split in recipe.splits:
                if split not in counts:
                    self._say(f"split '{split}' got no image: there are more splits than groups")
        for note in [*leaks.notes(self._database, recipe, group_by), *pairing.united(self._database)]:
            self._say(note)

    def _passed_over(self) -> str:
        """Return what was matched and is not read, counted by its reason."""
        some = self._over.most_common(_REASONS)
        others = self._over.total() - sum(count for _, count in some)
        return "passed over: " + "; ".join(
            [f"{count} {reason}" for reason, count in some] + [f"{others} others"] * (others > 0)
        )

    def _no_image(self, path: str, pattern: str, guessed: bool) -> str:
        """Return why a file that matches the glob of images is none, "" where it is one."""
        folder = names.masks_folder(path, self._tasks)
        if not self.listing.can_be_read(path):
            suffix = PurePosixPath(path).suffix
            return f"'{suffix}' files" if suffix else "files without a suffix"
        if folder and folder not in pattern.split("/"):
            remedy = "" if "{key}" in pattern else " (--masks pairs them)"
            return f"in a folder '{folder}', which by its name holds masks{remedy}"
        named = (guessed or "{key}" in pattern) and names.is_made(names.stem(path))
        return notes.NAMED if named else ""
