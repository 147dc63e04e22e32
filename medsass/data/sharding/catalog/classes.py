"""Class labels of images: from their paths, members of their tar files, or CSV files that a recipe names."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from medsass import budget
from medsass.data.sharding import patterns
from medsass.data.sharding.catalog.listing import Listing
from medsass.data.sharding.recipe import Recipe

_COPIES = 8  # of a file of labels, as Python's objects


def read(source: Path, recipe: Recipe) -> dict[str, str]:
    """Return class labels by image stem, from those of the recipe's CSV files that exist. Raises `ValueError`."""
    labels: dict[str, str] = {}
    rule = recipe.classes
    for path in (source / images.classes for images in recipe.images if images.classes):
        if not path.is_file():
            continue
        budget.check(_COPIES * path.stat().st_size, f"{path}: reading its class labels")
        with path.open(newline="", encoding="utf-8-sig") as file:
            for row in _rows(path, file):
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


def _rows(path: Path, file: TextIO) -> Iterator[dict[str, str]]:
    try:
        yield from csv.DictReader(file)
    except csv.Error as error:
        raise ValueError(f"{path}: no CSV file of class labels ({error}); a quote may be open") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: class labels that are not UTF-8 ({error}); save it as CSV UTF-8") from error


def label(image: str, name: str, recipe: Recipe, labels: dict[str, str], listing: Listing) -> str | None:
    """Return the class of the image `name` at a path; `labels` are what `read` gives. None where nothing says it."""
    found, rule = labels.get(name) or None, recipe.classes
    if rule.extension:
        found = listing.label(f"{image.rpartition('/')[0]}/{name}.{rule.extension}")
    if rule.pattern and (match := patterns.regex(rule.pattern).search(image)):
        found = match["class"] or found
    return found
