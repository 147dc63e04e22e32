"""Files of like names among the images: one of two may be the other's mask, though no name says so."""

import re
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from itertools import combinations, pairwise

from medsass.data.sharding.catalog import names
from medsass.data.sharding.catalog.names import stem

_FOLDERS, _FILES = 50, 5000  # that are compared with one another
_FEW = 3  # folders side by side: more are patients, or classes
_MASKS = re.compile(r"(?i:label|mask|(?<![a-z])(?:seg|gts?(?![a-z])))")  # more likely masks, as LABELLED_DICOM

Pair = tuple[str, str]


def find(database: sqlite3.Connection) -> Pair | None:
    """Return two globs of images without masks of which most have the same stems, where one may be that of the masks: of two
    folders, if there are no more such folders, as of patients; of two names of folders that many have side by side; of two
    suffixes; or of stems with and without some end.
    """
    own = "SELECT folder, name FROM found JOIN files ON image = path WHERE masks = '[]'"
    folders, beside = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    within = defaultdict[str, dict[str, str]](dict)  # the suffix of each stem in a folder
    for folder, name in database.execute(f"{own} ORDER BY folder LIMIT {_FILES}"):
        folders[folder].add(stem(name))
        suffix, inside = name[len(stem(name)) :], f"{folder}/".lstrip("/")
        beside[f"{inside}*{suffix}"].add(f"{folder}/{stem(name)}")
        within[inside][stem(name)] = suffix
    if pair := _of_folders(folders):
        return pair
    suffixes = combinations(sorted(beside)[:_FOLDERS], 2)
    return next((pair for pair in suffixes if _most(*(beside[one] for one in pair))), None) or _of_ends(within)


def _of_folders(folders: Mapping[str, set[str]]) -> Pair | None:
    """Return globs of two folders of like files in one split, or of the two names that such folders have in several folders."""
    ends: dict[Pair, str] = {}
    for pair in combinations(list(folders)[:_FOLDERS], 2):
        first, second = (folders[folder] for folder in pair)
        if names.split_of(pair[0]) != names.split_of(pair[1]) or _counts(first, second):
            continue
        pair = (pair[1], pair[0]) if _MASKS.search(_last(pair[0])) and not _MASKS.search(_last(pair[1])) else pair
        for one, other in (pair, pair[::-1]):
            end = "" if _most(folders[one], folders[other]) else _goes_on(folders[one], folders[other])
            if end is not None:
                ends[one, other] = end
                break
    if chosen := _side_by_side(list(ends)):
        (one, other), end = chosen, ends[chosen]
        own = _last(other)
        return f"**/{_last(one)}/*", f"{{dir}}/../{own}/{{stem}}{end}*" if end else f"**/{own}/*"
    if not ends or not _are_few({folder for pair in ends for folder in pair}):
        return None
    (one, other), end = next(iter(ends.items()))
    return f"{one}/*".lstrip("/"), f"{other}/{{stem}}{end}*" if end else f"{other}/*".lstrip("/")


def _are_few(alike: Collection[str]) -> bool:
    """Return whether folders of like files are few, and are not those of patients, visits or parts by their names."""
    plain, last = ({re.sub(r"\d+", "", name) for name in some} for some in (alike, map(_last, alike)))
    if len(alike) == 2:
        return len(plain) > 1
    parents = {folder.rpartition("/")[0] for folder in alike}
    numbered = all(re.search(r"\d", _last(folder)) for folder in alike)
    return len(last) == len(alike) <= _FEW + (len(parents) > 1) and not numbered


def _side_by_side(alike: Collection[Pair]) -> Pair | None:
    """Return two folders of like files that have two names which are side by side in several folders, if few more are there."""
    shared = defaultdict[Pair, list[Pair]](list)
    for one, other in alike:
        (above, _, name), (beside, _, second) = one.rpartition("/"), other.rpartition("/")
        if above == beside and re.sub(r"\d+", "", name) != re.sub(r"\d+", "", second):
            shared[name, second].append((one, other))
    often = {pair: found for pair, found in shared.items() if len(found) > 1}
    kept = [
        found[0]
        for (name, second), found in often.items()
        if len({step for pair in often if {name, second} & {*pair} for step in pair}) <= _FEW
    ]
    return min(kept, key=lambda pair: pair[0].count("/"), default=None)


def _last(folder: str) -> str:
    return folder.rpartition("/")[2]


def _of_ends(within: Mapping[str, Mapping[str, str]]) -> Pair | None:
    """Return globs of files with and without some end in a folder, or in several."""
    found = dict[str, tuple[str, str]]()
    for folder, suffix_of in list(within.items())[:_FOLDERS]:
        ends = Counter(
            (f"*{suffix_of[start]}", f"*{other[len(start) :]}{suffix_of[other]}")
            for start, other in pairwise(sorted(suffix_of))
            if other.startswith(start) and re.match(r"[-_. ]?[A-Za-z]", other.removeprefix(start))
        )
        pair, count = ends.most_common(1)[0] if ends else (("", ""), 0)
        if count > 1 and 3 * count >= len(suffix_of):
            found[folder] = pair
    if not found:
        return None
    folder, (own, other) = next(iter(found.items()))
    above = "**/" if list(found.values()).count((own, other)) > 1 else folder
    return above + own, above + other


def _most(one: set[str], other: set[str]) -> bool:
    """Return whether most of the larger set, or of the smaller one if that is not tiny, are in both."""
    few, many = sorted((len(one), len(other)))
    return 2 * len(one & other) > min(max(many, 2), max(few, 5))


def _counts(one: set[str], other: set[str]) -> bool:
    """Return whether all of the fewer stems are numbers without a gap, as those of the smaller of any two classes are."""
    few, many = sorted((one, other), key=len)
    numbers = [int(found[0]) for text in few if (found := re.search(r"\d+$", text))]
    run = len(numbers) == len(few) == max(numbers, default=0) - min(numbers, default=0) + 1
    return few < many and run and min(many, key=_in_order) in few


def _in_order(text: str) -> tuple[int, str]:
    return len(text), text


def _goes_on(one: set[str], other: set[str]) -> str | None:
    """Return what comes between the stems of one folder and the rest of those of the other, if most of both go together."""
    begun = [found for text in other for found in _starts(text) if found[0] in one]
    if 2 * len(begun) <= len(other) or 2 * len({start for start, _ in begun}) <= max(len(one), 2):
        return None
    return Counter(between for _, between in begun).most_common(1)[0][0]


def _starts(text: str) -> Iterator[Pair]:
    """Yield each start of a stem that ends before a separator, and the separator."""
    return ((text[: found.start()], found[0]) for found in re.finditer(r"[-_. ]+", text))
