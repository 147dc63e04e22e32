"""Class labels of images, from the CSV files that a recipe names."""

import csv
from pathlib import Path

from medsass.data.sharding.recipe import Classes, Recipe


def read(source: Path, recipe: Recipe) -> dict[str, str]:
    """Class label by image stem from the recipe's CSV files that are there. Raises `ValueError` that names the file."""
    labels: dict[str, str] = {}
    for images in recipe.images:
        path = source / images.classes
        if images.classes and path.is_file():
            with path.open(newline="", encoding="utf-8-sig") as file:
                for row in csv.DictReader(file):
                    labels[row.get(recipe.classes.key, "")] = _label(row, recipe.classes, path)
    return labels


def check(source: Path, recipe: Recipe, matched: list[bool]) -> None:
    """Raise `FileNotFoundError` where images are there (`matched`, for each [[images]] table), but not the CSV file of
    their labels.
    """
    for images, hit in zip(recipe.images, matched, strict=True):
        if hit and images.classes and not (source / images.classes).is_file():
            raise FileNotFoundError(
                f"{source / images.classes} is missing: it holds the class labels of '{images.path}'; put it there, or take "
                "'classes' out of a copy of the recipe"
            )


def _label(row: dict[str, str], classes: Classes, path: Path) -> str:
    missing = [name for name in (classes.key, *classes.columns) if name not in row]
    if missing:
        raise ValueError(f"{path}: column '{missing[0]}' is missing; the recipe's [classes] name it")
    try:
        held = [column for column in classes.columns if float(row[column] or 0) > 0]
    except ValueError as error:
        raise ValueError(f"{path}: row '{row[classes.key]}': class columns must hold numbers ({error})") from error
    return held[0] if held else classes.otherwise
