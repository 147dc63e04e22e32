"""The usual layouts of a dataset, recognised by the names of its files and said as the globs that a user would write.

Two things are looked for: folders that hold masks by their name, with images in a folder beside them or above; and the ends
of names by which an image and its mask differ (`_img` and `_masks`, `_0000` and nothing), which are tried on some files.
"""

import re
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import filter as matching
from unicodedata import normalize

from medsass.data.formats import kinds
from medsass.data.sharding import patterns
from medsass.data.sharding.catalog import names
from medsass.data.sharding.catalog.ends import Ends, ends_of
from medsass.data.sharding.catalog.globs import common, escaped, spanning, tail
from medsass.data.sharding.catalog.names import stem
from medsass.data.sharding.recipe import Images

_RATER = re.compile(r"(?i:rater|reader|expert|observer|annotator)[-_ ]?\d+$")  # whose masks are not united
_DERIVED = re.compile(  # pictures of a name that are made of others
    r"(?i)(?<![a-z])(?:(?:edge|flow|depth|border)s?(?![a-z])|depth ?map|contour|boundar|skelet|outline|overlay|distance|preview|thumb|"
    r"heat|salien|visuali|predict|superpixel)"
)
_FOLDERS = 50  # that are compared with one another
_KNOWN = 5000  # masks on which ends of names are tried

Content = Callable[[str], Sequence[str]]  # a folder -> the names of some image files in it and below
Pictured = Callable[
    [str], bool
]  # a DICOM file -> whether its header says that it holds an image, unlike a report or a plan


def recognise(
    database: sqlite3.Connection, readable: Callable[[str], bool], pictured: Pictured, tasks: Collection[str]
) -> tuple[Images, ...]:
    """Return the images and masks of a source; () where nothing is known but that everything is an image.

    Args:
        database: has the listing's table of files.
        readable: whether a file, by its path, can be an image or a mask.
        pictured: asked for a file of each DICOM folder that may hold the images.
        tasks: as `names.task_folders` returns them.
    """

    def content(folder: str) -> Sequence[str]:
        where = "folder = ? OR (folder >= ? AND folder < ?)"
        query = f"SELECT path FROM files WHERE {where} ORDER BY path LIMIT {_KNOWN}"
        rows = database.execute(query, (folder, f"{folder}/", f"{folder}0"))  # 0 comes after /
        start = len(folder) + 1 if folder else 0
        return [path[start:] for (path,) in rows if readable(path)]

    folders = [folder for (folder,) in database.execute("SELECT DISTINCT folder FROM files ORDER BY folder")]
    masked = dict.fromkeys(filter(None, (names.masks_path(folder + "/", tasks) for folder in folders)))
    if not masked:
        every = "SELECT path FROM files ORDER BY path"
        return _side_by_side([path for (path,) in database.execute(every) if readable(path)])
    tables = [table for some in _alike(masked) if (table := _beside(some, folders, content, pictured, tasks))]
    return _with_splits(_best(tables, tasks), folders, content)


def _alike(masked: Iterable[str]) -> list[list[str]]:
    """Group folders of masks that have one name, depth and split: those of every case, or of every class."""
    groups: dict[tuple[str, int, str], list[str]] = defaultdict(list)
    for folder in masked:
        groups[folder.rpartition("/")[2], folder.count("/"), names.split_of(folder)].append(folder)
    return list(groups.values())


@dataclass(frozen=True)
class _Found:
    """A table of images and masks, the number of pairs that it makes of some files, and the folder of the images."""

    table: Images
    pairs: int
    images: str
    ends: Ends | None = None


def _beside(
    masks: list[str], folders: Sequence[str], content: Content, pictured: Pictured, tasks: Collection[str]
) -> Images | None:
    """Return the images that belong to folders of masks of one name: in a folder beside them, or in the one above."""
    example = masks[0]
    above, _, own = example.rpartition("/")
    numbers = re.findall(r"\d+", own)
    there, best, place = content(example), None, (False, 0, False, False)
    near = _near(above, names.split_of(example), folders, content, tasks)
    for images, here in near.items():
        if _kind(here[0]) == "dicom" and not any(
            pictured(f"{images}/{name}".lstrip("/")) for name in (here[0], here[-1])
        ):
            continue
        found = _paired(masks, images, here, there, content)
        name = images[len(above) :].strip("/")
        if not found:
            continue
        alike, holds = re.findall(r"\d+", name) == numbers, names.holds_images(name)
        most = found.pairs if not holds else len(there)  # a folder that is named so need not have the most
        rank = (not _DERIVED.search(name), most, alike, holds)
        if rank > place:
            best, place = found, rank
    if best and best.ends and len(masks) == 1 and 2 * best.pairs <= len(there):
        return _several(best, near, there, example) or best.table
    return best.table if best else None


def _near(
    above: str, split: str, folders: Sequence[str], content: Content, tasks: Collection[str]
) -> dict[str, Sequence[str]]:
    """Return the folders in `above` that may hold the images of one split, and `above` itself, with the images in them."""
    inside = f"{above}/" if above else ""
    steps = (folder[len(inside) :].split("/")[0] for folder in folders if folder != above and folder.startswith(inside))
    found = [step for step in dict.fromkeys(steps) if not names.masks_folder(f"{inside}{step}/", tasks)]
    found = [step for step in found if names.split_of(inside + step) == split]
    found.sort(key=lambda step: not names.holds_images(step))
    near = {inside + step: content(inside + step) for step in found[:_FOLDERS]}
    near[above] = [name for name in content(above) if "/" not in name]
    return {folder: here for folder, here in near.items() if here}


def _paired(
    masks: list[str], images: str, here: Sequence[str], there: Sequence[str], content: Content
) -> _Found | None:
    """Return how the images of a folder pair with the masks of the first folder of masks, if most of the fewer do."""
    above, _, own = masks[0].rpartition("/")
    sister = images[len(above) :].strip("/")
    parents = [mask.rpartition("/")[0] for mask in masks]
    base, truth = common([f"{parent}/{sister}".strip("/") for parent in parents]), common(masks)
    base += "/" if base else ""
    own = "{dir}/" + "../" * (sister.count("/") + 1 if sister else 0) + escaped(own) if len(masks) > 1 else truth
    if len(masks) > 1 and all(_alone(f"{parent}/{sister}".strip("/"), content) for parent in parents[:_FOLDERS]):
        rater = _RATER.search(stem(there[0]))  # of several the first; else a mask for each object
        objects = f"{own}/{escaped(stem(there[0]))}.*" if rater else f"{own}/*"
        return _Found(Images(f"{base}*", objects), len(here), images)
    stems = [stem(name) for name in here]
    cases = {name.split("/")[0] for name in there if "/" in name} & set(stems)
    if 2 * len(cases) > len(stems):
        deep, deeper = "**/" * ("/" in here[0]), "**/" * (there[0].count("/") > 1)
        own = own if not deep else truth
        return _Found(Images(f"{base}{deep}*", f"{own}/{{stem}}/{deeper}*"), len(cases), images)
    if table := _series(here, there, base, truth):
        return _Found(table, len(there), images)
    best, inside = None, ""
    for sub, some in _inside(there):
        count, ends = ends_of([_whole(name) for name in here], [_whole(name) for name in some])
        if count > (best[0] if best else 0):
            best, inside = (count, ends, some), sub
    if best is None:
        return None
    count, ((a, b), (c, d)), there = best
    within = f"/{escaped(inside)}" if inside not in ("", "*") else "/*" * (inside == "*")
    truth, own = truth + within, own + within
    if len(there) > 1.5 * len(here) and (number := re.search(r"\d+$", d)) and not _RATER.search(d):  # numbered objects
        objects = f"{own}/{escaped(c)}{{stem}}{escaped(d[: number.start()])}{{number}}.*"
        return _Found(Images(f"{base}{escaped(a)}{{stem}}{tail(b) or '.*'}", objects), count, images)
    if inside == "*":
        return _Found(_by_stem(base, own, ((a, b), (c, d))), count, images)
    deep = "**/" if any("/" in name for name in (*here, *there)) else ""
    table = Images(f"{base}{deep}{spanning(a, b)}", f"{truth}/{deep}{spanning(c, d)}")
    return _Found(table, count, images, ((a, b), (c, d)))


def _alone(folder: str, content: Content) -> bool:
    """Return whether a folder holds one image."""
    return sum("/" not in name for name in content(folder)) == 1


def _series(here: Sequence[str], there: Sequence[str], base: str, truth: str) -> Images | None:
    """Return DICOM slices in folders, each of which has a volume of its name among the masks."""
    folders = {name.partition("/")[0] for name in here if name.count("/") == 1 and _kind(name) == "dicom"}
    stems, suffixes = {stem(name) for name in there}, {name[len(stem(name)) :] for name in there}
    if 2 * len(folders & stems) <= len(stems) or len(suffixes) > 1 or _kind(there[0]) != "volume":
        return None
    return Images(f"{base}*/*", f"{truth}/{{folder}}{suffixes.pop()}")


def _kind(path: str) -> str:
    """Return the kind of image that a file is by its name; one of an unknown suffix may be DICOM."""
    return kinds.by_name(path) or "dicom"


def _inside(there: Sequence[str]) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield folders in a folder of masks with the masks in them: "" is itself, and "*" all together, where each of several
    holds masks by its name, as of the left and of the right lung.
    """
    yield "", there
    heads = sorted({name.partition("/")[0] for name in there})
    if not all("/" in name for name in there) or len(heads) > _FOLDERS:
        return
    named = [head for head in heads if names.rank(head) is not None]
    parts = {head: [name[len(head) + 1 :] for name in there if name.startswith(f"{head}/")] for head in heads}
    if len(heads) > 1 and len(named) == len(heads):
        if all(map(_RATER.search, heads)):
            yield heads[0], parts[heads[0]]
        else:
            yield "*", sorted({name for part in parts.values() for name in part})
    elif len(heads) == 1 or len(named) == 1:  # of several that are not named so, none is the one
        head = (named or heads)[0]
        yield head, parts[head]


def _several(best: _Found, near: dict[str, Sequence[str]], there: Sequence[str], masks: str) -> Images | None:
    """Return the images of folders that differ in a number, as of parts of a download, with one folder of masks."""
    shape = re.sub(r"\d+", "", best.images)
    alike = [folder for folder in near if re.sub(r"\d+", "", folder) == shape]
    here = [name for folder in alike for name in near[folder]]
    if len(alike) < 2 or len(set(here)) < len(here) or not best.ends:
        return None
    count, ends = ends_of([_whole(name) for name in here], [_whole(name) for name in there])
    return (
        _by_stem(re.sub(r"\d+", "*", escaped(best.images)) + "/", escaped(masks), ends) if count > best.pairs else None
    )


def _by_stem(base: str, truth: str, ends: Ends) -> Images:
    (a, b), (c, d) = ends
    return Images(f"{base}{escaped(a)}{{stem}}{tail(b) or '.*'}", f"{truth}/{escaped(c)}{{stem}}{tail(d) or '.*'}")


def _whole(path: str) -> str:
    """Return a path without its suffix."""
    folder, slash, _ = path.rpartition("/")
    return normalize("NFC", folder + slash + stem(path))


def _side_by_side(paths: Sequence[str]) -> tuple[Images, ...]:
    """Return the table of a source whose masks lie beside their images and have names that say so."""
    wholes = {_whole(path) for path in paths}
    firsts = {whole for whole in wholes if whole.endswith("_0000")}  # nnU-Net's, with their masks beside them
    if (rest := wholes - firsts) and rest <= {whole.removesuffix("_0000") for whole in firsts}:
        return (Images("**/*_0000.*", "**/*"),)
    masks = {path: found for path in paths if (found := names.mask_word(stem(path)))}
    folders, called = {path.rpartition("/")[0] for path in masks}, {path.rpartition("/")[2] for path in masks}
    beside = [path for path in paths if path not in masks and path.rpartition("/")[0] in folders]
    if len(called) == 1 and len(beside) > len(folders) and all(_kind(path) == "dicom" for path in beside):
        (name,) = called
        if _kind(name) == "volume":  # of the series in its folder
            return (Images("**/*", f"{{dir}}/{escaped(name)}"),)
    images = [_whole(path) for path in paths if path not in masks]
    count, ((a, b), (c, d)) = ends_of(images, [_whole(path) for path in masks])
    if not count:
        return ()
    word = re.sub(r"[-_ ]?\d+$", "", d)
    ends = {found[1] for path in masks if (found := re.search(rf"{re.escape(word)}([-_ ]?)\d+$", stem(path)))}
    if ends and word and any(path.rpartition("/")[2] not in (a, b) for path in images):  # numbered objects
        numbered = ",".join(f"{escaped(end)}{{number}}" for end in sorted(ends))
        objects = f"{{dir}}/{escaped(c)}{{stem}}{escaped(word)}{{,{numbered}}}.*"
        return (Images(f"**/{escaped(a)}{{stem}}{tail(b) or '.*'}", objects),)
    return (Images(f"**/{spanning(a, b)}", f"**/{spanning(c, d)}"),)


def _best(tables: Sequence[Images], tasks: Collection[str]) -> list[Images]:
    """Keep the tables whose folders of masks have the plainest name, and of two for the same images the first."""

    def rank(table: Images) -> int:
        return names.rank(names.masks_folder(table.masks, tasks)) or 0

    best = min(map(rank, tables), default=0)
    plainest = sorted((table for table in tables if rank(table) == best), key=lambda table: (table.path, table.masks))
    return list({table.path: table for table in reversed(plainest)}.values())[::-1]


def _with_splits(tables: Sequence[Images], folders: Sequence[str], content: Content) -> tuple[Images, ...]:
    """Give tables the splits that their folders name, and add the folders of test images that have no masks."""
    named = {names.split_of(table.path) for table in tables}
    read = [patterns.fits(table.path.rpartition("/")[0]) for table in tables]
    if not named - {""}:
        return tuple(tables)
    name = tables[0].path.rpartition("/")[2]
    more = [
        Images(f"{escaped(folder)}/{name if matching(held, name) else '*'}", split="test")
        for folder in folders
        if not any(fits(folder) for fits in read)
        and names.split_of(folder) == "test"
        and names.holds_images(folder.rpartition("/")[2])
        if (held := content(folder))
    ]
    keep = names.kept(named)
    return tuple(
        replace(table, split=split) if (split := names.split_of(table.path)) in keep else table for table in tables
    ) + tuple(more)
