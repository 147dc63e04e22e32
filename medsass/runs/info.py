"""`medsass info`: what a shard folder holds, in words and as a contact sheet."""

from collections import Counter

import cv2
import numpy as np

from medsass.config import InfoConfig
from medsass.data import manifest, tar
from medsass.data.manifest import Manifest
from medsass.runs import console, panels

_PAIRS = 24
_COLUMNS = 8


def show(dataset: Manifest) -> None:
    """Print counts, sizes, class labels, mask coverage, conversions and rejected files of a dataset."""
    recipe, say = dataset.recipe, console.out.print
    say(f"{recipe['title'] or recipe['name']}  (recipe {recipe['name']}, foreground {dataset.polarity})", style="bold")
    for name in ("homepage", "licence", "citation"):
        if recipe[name]:
            say(f"{name}: {recipe[name]}")
    rows = []
    for name, split in dataset.splits.items():
        size = sum(shard.bytes for shard in split.shards) / 1e6
        coverage = "-" if split.mask_coverage is None else f"{split.mask_coverage:.1%}"
        rows.append([name, f"{split.samples}", f"{split.masks}", coverage, f"{len(split.shards)}", f"{size:,.1f} MB"])
    say(console.table(["split", "images", "with mask", "mask coverage", "tar files", "size"], rows))
    sizes: Counter[str] = Counter()
    for split in dataset.splits.values():
        sizes.update(split.sizes)
    most = ", ".join(f"{size} ({count})" for size, count in sizes.most_common(5))
    say(f"sizes: {most}" + (f" and {len(sizes) - 5} more" if len(sizes) > 5 else ""))
    for name, split in dataset.splits.items():
        if split.classes:
            say(f"classes in {name}: " + ", ".join(f"{label} ({count})" for label, count in split.classes.items()))
    for what, count in dataset.converted.items():
        say(f"converted: {what} ({count} images)")
    for note in dataset.notes:
        say(f"note: {note}")
    show_rejected(dataset)


def show_rejected(dataset: Manifest, most: int = 5) -> None:
    """Print the first rejected files with the reason."""
    for item in dataset.rejected[:most]:
        console.out.print(f"left out: {item['file']}: {item['reason']}")
    if len(dataset.rejected) > most:
        console.out.print(f"and {len(dataset.rejected) - most} more, listed in {manifest.NAME}")


def info(config: InfoConfig) -> None:
    """Print what `config.shards` holds and draw the contact sheet, if asked for."""
    dataset = manifest.load(config.shards)
    show(dataset)
    if config.preview:
        preview(config, dataset)
        console.out.print(f"preview: {config.preview}")


def preview(config: InfoConfig, dataset: Manifest) -> None:
    """Draw images with their masks into a PNG file: the first of each split, in the splits' proportions."""
    assert config.preview is not None
    total = sum(split.samples for split in dataset.splits.values())
    tiles: list[panels.Tile] = []
    for name, split in dataset.splits.items():
        left = max(2, round(_PAIRS * split.samples / total))
        samples = (sample for shard in split.shards for sample in tar.read(config.shards / shard.file))
        for key, content in samples:
            if not left:
                break
            left -= 1
            encoded = next(data for extension, data in content.items() if extension in tar.IMAGES)
            image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB)
            tiles.append((np.asarray(image, np.uint8), f"{name}: {key}"))
            if "mask.png" in content:
                mask = cv2.imdecode(np.frombuffer(content["mask.png"], np.uint8), cv2.IMREAD_GRAYSCALE)
                tiles.append((np.asarray(mask, np.uint8) // 255, "mask"))
    columns = _COLUMNS if any(split.masks for split in dataset.splits.values()) else _COLUMNS - 2
    panels.sheet([tiles[start : start + columns] for start in range(0, len(tiles), columns)], config.preview)
