"""The split of a group of images: by the hash of its name, or so that the recipe's shares are met exactly."""

import hashlib
from collections.abc import Mapping

from medsass.data.sharding.recipe import Recipe


def digest(text: str) -> str:
    """Return the SHA-256 of `text`, which orders groups and keys: a shuffle that never changes."""
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
