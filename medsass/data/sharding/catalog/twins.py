"""Files of like names among the images: one of two may be the other's mask, though no name says so."""

import re
import sqlite3
from collections import Counter, defaultdict
from itertools import combinations, pairwise

from medsass.data.sharding.catalog import names
from medsass.data.sharding.catalog.pairing import stem

_FOLDERS, _FILES = 50, 5000  # that are compared with one another


def find(database: sqlite3.Connection) -> tuple[str, str] | None:
    """Return two globs of images without masks of which most have the same stems, where one may be that of the masks: of two
    folders, if there are no more such folders, as of patients; of two names of folders that many have side by side; of two
    suffixes; or of stems with and without some end.
    """
    own = "SELECT folder, name FROM found JOIN files ON image = path WHERE masks = '[]'"
    folders, beside = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    within = defaultdict[str, dict[str, str]](dict)  # the suffix of each stem in a folder
    for folder, name in database.execute(f"{own} ORDER BY folder LIMIT {_FILES}"):
        if not names.split_of(folder):
            folders[f"{folder}/*"].add(stem(name))
        suffix, inside = name[len(stem(name)) :], f"{folder}/".lstrip("/")
        beside[f"{inside}*{suffix}"].add(f"{folder}/{stem(name)}")
        within[inside][stem(name)] = suffix
    alike = [pair for pair in combinations(list(folders)[:_FOLDERS], 2) if _most(*(folders[one] for one in pair))]
    if len(alike) == 1:
        return alike[0]
    if pair := _side_by_side([(one[:-2], other[:-2]) for one, other in alike]):
        return pair
    suffixes = combinations(sorted(beside)[:_FOLDERS], 2)
    if pair := next((pair for pair in suffixes if _most(*(beside[one] for one in pair))), None):
        return pair
    for folder, suffix_of in list(within.items())[:_FOLDERS]:
        ends = Counter(
            (suffix_of[start], other[len(start) :], suffix_of[other])
            for start, other in pairwise(sorted(suffix_of))
            if other.startswith(start) and re.match(r"[-_. ]?[A-Za-z]", other.removeprefix(start))
        )
        (own, end, suffix), count = ends.most_common(1)[0] if ends else (("", "", ""), 0)
        if count > 1 and 3 * count >= len(suffix_of):
            return f"{folder}*{own}", f"{folder}*{end}{suffix}"
    return None


def _side_by_side(alike: list[tuple[str, str]]) -> tuple[str, str] | None:
    """Return globs of the two names that folders of like files have in several folders, if no third name is among them."""
    steps = [(one.rpartition("/"), other.rpartition("/")) for one, other in alike]
    named = Counter((one[2], other[2]) for one, other in steps if one[0] == other[0])
    often = [
        pair for pair, count in named.items() if count > 1 and len({re.sub(r"\d+", "", name) for name in pair}) == 2
    ]
    return (f"**/{often[0][0]}/*", f"**/{often[0][1]}/*") if len(often) == 1 else None


def _most(one: set[str], other: set[str]) -> bool:
    return 2 * len(one & other) > max(len(one), len(other), 2)
