"""The usual layouts of a dataset, recognised by the names of its files and said as the globs that a user would write.

Two things are looked for: folders that hold masks by their name, with images in a folder beside them or above; and the ends
of names by which an image and its mask differ (`_img` and `_masks`, `_0000` and nothing), which are tried on some files.
"""

import glob
import re
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import filter as matching
from itertools import combinations
from os.path import commonprefix

from medsass.data.sharding.catalog.pairing import stem
from medsass.data.sharding.recipe import Images

_MASKS = tuple(  # names of folders, those that are taken first in front
    re.compile(rf"(?i:(?!.*(?:no|without|with|and)[-_ ])(?:.*[-_ ])?(?:{name}))")
    for name in (r"1st_manual", r"ground[-_ ]?truths?|truths?|gts?", r"labels?(?:tr|ts|va)?|masks", r"mask|annotations?|segmentations?|2nd_manual")
)  # fmt: skip
_IMAGES = re.compile(
    r"(?i:(?:.*[-_ ])?(?:images?(?:tr|ts|va)?|imgs?|data|inputs?|originals?|scans?|photos?|jpegimages|raw)(?:[-_ ]?v\d)?)"
)
_END = re.compile(  # of a mask's name, where its image is in the same folder
    r"(?i:(?:^|[-_. ])(?:cp_masks|masks?|segs?|segmentations?|labels?|gt|ground_?truth|manual\d?|1stho|2ndho|annotations?)(?=(?:[-_ ]?\d+)?$))"
)
_SPLITS = {
    "train": re.compile(r"(?i:(?<![a-z])train(?:ing)?(?![a-z]))|(?<=[a-z])Tr\b"),
    "val": re.compile(r"(?i:(?<![a-z])val(?:id|idation)?(?![a-z]))|(?<=[a-z])Va\b"),
    "test": re.compile(r"(?i:(?<![a-z])test(?:ing)?(?![a-z]))|(?<=[a-z])Ts\b"),
}
_FOLDERS = 50  # that are compared with one another
_TRIED, _KNOWN = 200, 5000  # images and masks on which ends of names are tried

Names = Callable[[str], Sequence[str]]  # a folder -> the names of some image files in it and below


def masks_folder(path: str) -> str:
    """Return the folder in a path that holds masks by its name, "" where there is none."""
    return next((step for step in path.split("/")[:-1] if any(name.fullmatch(step) for name in _MASKS)), "")


def mask_name(path: str) -> bool:
    """Return whether a file is a mask by its own name, such as a_mask.png or mask.png."""
    return bool(_END.search(stem(path)))


def split_of(path: str) -> str:
    """Return the split that a path names, "" where it names none."""
    return next((split for split, word in _SPLITS.items() if word.search(path)), "")


def splits_of(paths: Iterable[str]) -> dict[str, str]:
    """Return the split that each path names, where they name val, or test; training images alone are for all splits."""
    named = {path: split_of(path) for path in paths}
    kept = _kept(named.values())
    return {path: split if split in kept else "" for path, split in named.items()} if kept & {*named.values()} else {}


def _kept(named: Collection[str]) -> set[str]:
    """Return which of the splits that a dataset names are used as such: without val, the training images are split further."""
    return {"train", "val", "test"} if "val" in named else {"test"}


def rest(shares: Mapping[str, float], given: Collection[str]) -> Mapping[str, float]:
    """Return the shares of the images whose split is not given: none of them go to test where test images are given."""
    if "test" not in given or "" not in given:
        return shares
    others = {split: share for split, share in shares.items() if split != "test"}
    return {split: round(share / sum(others.values()), 9) for split, share in others.items()}


def recognise(database: sqlite3.Connection, readable: Callable[[str], bool]) -> tuple[Images, ...]:
    """Return the images and masks of a source; () where nothing is known but that everything is an image.

    Args:
        database: has the listing's table of files.
        readable: whether a file, by its path, can be an image or a mask.
    """

    def names(folder: str) -> Sequence[str]:
        where = "folder = ? OR (folder >= ? AND folder < ?)"
        query = f"SELECT path FROM files WHERE {where} ORDER BY path LIMIT {_KNOWN}"
        rows = database.execute(query, (folder, f"{folder}/", f"{folder}0"))  # 0 comes after /
        start = len(folder) + 1 if folder else 0
        return [path[start:] for (path,) in rows if readable(path)]

    folders = [folder for (folder,) in database.execute("SELECT DISTINCT folder FROM files ORDER BY folder")]
    masked = dict.fromkeys(filter(None, map(_role, folders)))
    if not masked:
        every = "SELECT path FROM files ORDER BY path"
        return _side_by_side([path for (path,) in database.execute(every) if readable(path)])
    tables = [table for some in _alike(masked) if (table := _beside(some, folders, names))]
    return _with_splits(_best(tables), folders, names)


def twins(database: sqlite3.Connection) -> tuple[str, str] | None:
    """Return two folders of images without masks of which most files have the same stems; one may hold the masks."""
    own = "SELECT folder, name FROM found JOIN files ON image = path WHERE masks = '[]'"
    held: dict[str, set[str]] = defaultdict(set)
    for folder, name in database.execute(f"{own} ORDER BY folder LIMIT {_KNOWN}"):
        held[folder].add(stem(name))
    pairs = combinations(list(held)[:_FOLDERS], 2)
    return next(((a, b) for a, b in pairs if 2 * len(held[a] & held[b]) > max(len(held[a]), len(held[b]), 2)), None)


def _role(folder: str) -> str:
    """Return the path up to the first folder with a name of masks, "" where there is none."""
    steps = folder.split("/")
    at = next((i for i, step in enumerate(steps) if masks_folder(step + "/")), None)
    return "" if at is None else "/".join(steps[: at + 1])


def _alike(masked: Iterable[str]) -> list[list[str]]:
    """Group folders of masks that have one name, depth and split: those of every case, or of every class."""
    groups: dict[tuple[str, int, str], list[str]] = defaultdict(list)
    for folder in masked:
        groups[folder.rpartition("/")[2], folder.count("/"), split_of(folder)].append(folder)
    return list(groups.values())


def _beside(masks: list[str], folders: Sequence[str], names: Names) -> Images | None:
    """Return the images that belong to folders of masks of one name: in a folder beside them, or in the one above."""
    example, split = masks[0], split_of(masks[0])
    above, _, own = example.rpartition("/")
    images = _images_beside(above, split, folders, names)
    here = [name for name in names(images) if images != above or "/" not in name]
    there = names(example)
    if not here or not there:
        return None
    sister = images[len(above) :].strip("/")
    parents = [mask.rpartition("/")[0] for mask in masks]
    base, truth = _common([f"{parent}/{sister}".strip("/") for parent in parents]), _common(masks)
    base += "/" if base else ""
    if len(masks) > 1 and len(here) == 1:  # a folder an image, with a mask for each object
        return Images(f"{base}*", "{dir}/" + ("../" if sister else "") + f"{glob.escape(own)}/*")
    stems = [stem(name) for name in here]
    if len({name.split("/")[0] for name in there if "/" in name} & set(stems)) * 2 > len(stems):
        return Images(f"{base}*", f"{truth}/{{stem}}/*")
    ends = _ends(stems, [stem(name) for name in there])
    if ends is None:
        return None
    (a, b), (c, d) = ends
    if len(there) > 1.5 * len(here) and (count := re.search(r"\d+$", d)):  # numbered objects
        return Images(f"{base}{a}{{stem}}{_tail(b)}", f"{truth}/{c}{{stem}}{glob.escape(d[: count.start()])}*")
    deep = "**/" if any("/" in name for name in (*here, *there)) else ""
    return Images(f"{base}{deep}{_glob(a, b)}", f"{truth}/{deep}{_glob(c, d)}")


def _images_beside(above: str, split: str, folders: Sequence[str], names: Names) -> str:
    """Return the folder of the images: one in `above` that is named so, or the only one there, or `above` itself."""
    inside = f"{above}/" if above else ""
    steps = (folder[len(inside) :].split("/")[0] for folder in folders if folder != above and folder.startswith(inside))
    found = [step for step in dict.fromkeys(steps) if not masks_folder(step + "/") and names(inside + step)]
    found = [step for step in found if split_of(inside + step) == split]
    named = sorted((step for step in found if _IMAGES.fullmatch(step)), key=len)
    alone = found if len(found) == 1 else []
    return inside + [*named, *alone][0] if named or alone else above


def _common(folders: Sequence[str]) -> str:
    """Return a glob of folders of one depth, with a wildcard for each step in which they differ."""
    steps = zip(*(folder.split("/") for folder in folders), strict=True)
    return "/".join("*" if len(set(step)) > 1 else glob.escape(step[0]) for step in steps)


def _glob(start: str, end: str) -> str:
    return f"{glob.escape(start)}*{_tail(end)}"


def _tail(end: str) -> str:
    return f"{glob.escape(end)}.*" if end else ""


def _ends(images: Sequence[str], masks: Sequence[str]) -> tuple[tuple[str, str], tuple[str, str]] | None:
    """Return what comes before and after the common part of an image's stem and of its mask's, so that most have a pair;
    None where fewer than half of the smaller set pair.
    """
    own, others = images[:_TRIED], set(masks)
    tried = {(("", ""), ("", ""))}
    for image in dict.fromkeys([*own[:2], *own[-1:]]):
        for mask in others:
            begin = commonprefix([image, mask])  # noqa: RUF071 - these are no paths
            if begin := begin.rstrip("-_. ") if len(begin) < min(len(image), len(mask)) else begin:
                tried.add((("", image[len(begin) :]), ("", mask[len(begin) :])))
            if end := commonprefix([image[::-1], mask[::-1]]):  # noqa: RUF071
                tried.add(((image[: -len(end)], ""), (mask[: -len(end)], "")))

    def pairs(ends: tuple[tuple[str, str], tuple[str, str]]) -> int:
        (a, b), (c, d) = ends
        held = (name[len(a) : len(name) - len(b)] for name in own if name.startswith(a) and name.endswith(b))
        return sum(c + name + d in others for name in held)

    best = min(tried, key=lambda ends: (-pairs(ends), sum(map(len, ends[0] + ends[1])), ends))
    return best if pairs(best) and 2 * pairs(best) >= min(len(own), len(others)) else None


def _side_by_side(paths: Sequence[str]) -> tuple[Images, ...]:
    """Return the table of a source whose masks lie beside their images and have names that say so."""

    def whole(path: str) -> str:
        return f"{path.rpartition('/')[0]}/{stem(path)}"

    masks = {path: found for path in paths if (found := _END.search(stem(path)))}
    images = [whole(path) for path in paths if path not in masks]
    ends = _ends(images, [whole(path) for path in masks]) if masks and images else None
    if ends is None or ends[0][0] or ends[1][0]:
        return ()
    (_, a), (_, b) = ends
    if any(found.end() < len(stem(path)) for path, found in masks.items()):  # several numbered masks of an image
        return (
            Images(
                f"**/{{stem}}{_tail(a) or '.*'}", f"{{dir}}/{{stem}}{glob.escape(re.sub(r'[-_ ]?[0-9]+$', '', b))}*"
            ),
        )
    return (Images(f"**/{_glob('', a)}", f"**/{_glob('', b)}"),)


def _best(tables: Sequence[Images]) -> list[Images]:
    """Keep the tables whose folders of masks have the plainest name: beside `1st_manual`, `mask` is a field of view."""

    def rank(table: Images) -> int:
        folder = masks_folder(table.masks)
        return next(i for i, name in enumerate(_MASKS) if name.fullmatch(folder))

    best = min(map(rank, tables), default=0)
    return sorted((table for table in tables if rank(table) == best), key=lambda table: table.path)


def _with_splits(tables: Sequence[Images], folders: Sequence[str], names: Names) -> tuple[Images, ...]:
    """Give tables the splits that their folders name, and add the folders of test images that have no masks."""
    named, read = {split_of(table.path) for table in tables}, {table.path.rpartition("/")[0] for table in tables}
    if not named - {""}:
        return tuple(tables)
    tail = tables[0].path.rpartition("/")[2]
    more = [
        Images(f"{glob.escape(folder)}/{tail if matching(held, tail) else '*'}", split="test")
        for folder in folders
        if folder not in read and split_of(folder) == "test" and _IMAGES.fullmatch(folder.rpartition("/")[2])
        if (held := names(folder))
    ]
    keep = _kept(named)
    return tuple(
        replace(table, split=split_of(table.path) if split_of(table.path) in keep else "") for table in tables
    ) + tuple(more)
