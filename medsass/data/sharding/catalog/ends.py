"""The ends by which the names of images and of their masks differ: `_img` and `_masks`, `_0000` and nothing."""

import re
from collections.abc import Iterator, Sequence
from os.path import commonprefix

from medsass.data.sharding.catalog import names

Ends = tuple[tuple[str, str], tuple[str, str]]
"""What comes before and after the common part of an image's stem, and of its mask's."""

_TRIED = 200  # images on which ends are tried
_CHANNEL = "_0000"  # the first of nnU-Net's, of which all have one mask


def ends_of(images: Sequence[str], masks: Sequence[str]) -> tuple[int, Ends]:
    """Return how the stems of images and masks in the same folders differ, so that most pair, and how many of some images do;
    0 where fewer than half of the smaller set pair, or a mask could belong to one image as well as to another. Paths have no suffixes.
    """
    own, others = images[:_TRIED], set(masks)
    tried: set[Ends] = {(("", ""), ("", ""))}
    for path in dict.fromkeys([*own[:2], *own[-1:], *_nearest(own, [*masks[:2], *masks[-1:]])]):
        folder, _, image = path.rpartition("/")
        for other in others:
            beside, _, mask = other.rpartition("/")
            begin = commonprefix([image, mask])  # noqa: RUF071 - these are no paths
            if begin := begin.rstrip("-_. ") if len(begin) < min(len(image), len(mask)) else begin:
                tried.add((("", image[len(begin) :]), ("", mask[len(begin) :])))
            if end := commonprefix([image[::-1], mask[::-1]]):  # noqa: RUF071
                tried.add(((image[: -len(end)], ""), (mask[: -len(end)], "")))
            word = names.mask_word(mask)
            if folder and folder == beside and word and not word.start():  # case_1/image and case_1/mask
                tried.add((("", image), ("", mask)))

    def paired(ends: Ends) -> set[str]:
        """Return the masks that have an image."""
        (a, b), (c, d) = ends
        split = (path.rpartition("/") for path in own)
        fitting = (
            (folder + slash, name[len(a) : len(name) - len(b)])
            for folder, slash, name in split
            if name.startswith(a) and name.endswith(b) and len(name) >= len(a) + len(b)
        )
        return {
            mask
            for folder, core in fitting
            if (mask := f"{folder}{c}{core}{d}") in others and _between_words(a, core, b) and _between_words(c, core, d)
        }

    found = {ends: paired(ends) for ends in tried if not _other_number(ends)}
    best = min(found, key=lambda ends: (-len(found[ends]), sum(map(len, ends[0] + ends[1])), ends))
    count = len(found[best])
    chance = count == 1 and any(best[0] + best[1]) and max(len(own), len(others)) > 1
    several = (
        any(best[0])
        and best[0][1] != _CHANNEL
        and any(2 * len(masks & found[best]) > count for ends, masks in found.items() if ends[0] != best[0])
    )  # which of some images a mask belongs to, as of slices
    return (count if 2 * count >= min(len(own), len(others)) and not (chance or several) else 0), best


def _nearest(images: Sequence[str], masks: Sequence[str]) -> Iterator[str]:
    """Yield for each mask the images whose names have most in common with its own, from the start and from the end."""
    for mask in (mask.rpartition("/")[2] for mask in masks if images):
        yield max(images, key=lambda path: len(commonprefix([path.rpartition("/")[2], mask])))  # noqa: RUF071
        yield max(images, key=lambda path: len(commonprefix([path[::-1], mask[::-1]])))  # noqa: RUF071


def _other_number(ends: Ends) -> bool:
    """Return whether what differs begins, or ends, with another number on either side: 3.png and 5_mask.png are no pair."""
    (a, b), (c, d) = ends
    behind, before = (
        (re.match(r"[-_ .]*(\d+)", tail) for tail in (b, d)),
        (re.search(r"(\d+)[-_ .]*$", head) for head in (a, c)),
    )
    return any(one and other and one[1] != other[1] for one, other in (tuple(behind), tuple(before)))


def _between_words(start: str, core: str, end: str) -> bool:
    """Return whether the common part of a name is cut out between words and numbers, not within one."""

    def within(left: str, right: str) -> bool:
        one, other = left[-1:], right[:1]
        return (one.isdigit() and other.isdigit()) or (
            one.isalpha() and other.isalpha() and not one.islower() < other.isupper()
        )

    return not core or not (within(start, core) or within(core, end))
