"""Lists the image files of a folder."""

from pathlib import Path

from medsass.data.formats import opening


def in_folder(folder: Path) -> list[Path]:
    """Return the image files in a folder and its sub-folders, sorted. Raises `FileNotFoundError` where there are none."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in opening.SUFFIXES and path.is_file())
    if not found:
        raise FileNotFoundError(f"{folder}: no image in this folder; known: {', '.join(sorted(opening.SUFFIXES))}")
    return found
