"""`medsass info`: the content of a shard folder, in words and as a contact sheet."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from medsass import files
from medsass.config import InfoConfig, schema
from medsass.data.formats import opening
from medsass.data.shards import contents, manifest, remote, tar
from medsass.data.shards.manifest import Manifest, Split
from medsass.runs import console, figures

_PAIRS = 24
_COLUMNS = 8
_LINE = 1 << 20  # bytes
_DECODED = {
    "jpg": "which a GPU decodes",
    "jp2": "which a GPU decodes",
    "png": "which DALI decodes on the CPU also where there is a GPU",
}


def show(dataset: Manifest) -> None:
    """Print counts, sizes, class labels, mask coverage, conversions and rejected files of a dataset."""
    recipe, say = dataset.recipe, console.out.print
    say(
        f"{recipe.get('title') or recipe['name']}  (recipe {recipe['name']}, foreground {recipe['polarity']})",
        style="bold",
    )
    for name in ("homepage", "licence", "citation"):
        if recipe.get(name):
            say(f"{name}: {recipe[name]}")
    rows = []
    for name, split in dataset.splits.items():
        size = sum(shard.bytes for shard in split.shards) / 1e6
        coverage = "-" if split.mask_coverage is None else f"{split.mask_coverage:.1%}"
        rows.append([name, f"{split.samples}", f"{split.masks}", coverage, f"{len(split.shards)}", f"{size:,.1f} MB"])
    say(console.table(["split", "images", "with mask", "mask coverage", "tar files", "size"], rows))
    sizes = sum((Counter(split.sizes) for split in dataset.splits.values()), Counter[str]())
    most = ", ".join(f"{size} ({count})" for size, count in sizes.most_common(5))
    say(f"sizes: {most}" + (f" and {len(sizes) - 5} more" if len(sizes) > 5 else ""))
    for name, split in dataset.splits.items():
        if split.classes:
            say(f"classes in {name}: " + ", ".join(f"{label} ({count})" for label, count in split.classes.items()))
    forms = sum((Counter(split.formats) for split in dataset.splits.values()), Counter[str]())
    for form, count in sorted(forms.items()):
        say(f"stored as {form}: {count} images, {_DECODED[form]}")
    for what, count in dataset.converted.items():
        say(f"converted: {what} ({count} images)")
    for note in dataset.notes:
        say(f"note: {note}")


def show_rejected(folder: Path, dataset: Manifest, most: int = 5) -> None:
    """Print the first `most` files that were left out of the shards in `folder`, with the reason."""
    if not dataset.rejected:
        return
    path = folder / manifest.REJECTED
    if files.is_local(path):
        files.check_regular(path)
    try:
        with path.open("rb") as lines:
            for line in islice(iter(lambda: lines.readline(_LINE), b""), most):
                item = schema.parse_json(line)
                console.out.print(f"left out: {item['file']}: {item['reason']}")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not what medsass shard writes; run: medsass verify {folder}") from error
    if dataset.rejected > most:
        console.out.print(f"and {dataset.rejected - most} more, listed in {folder / manifest.REJECTED}")


def show_plan(dataset: Manifest, pairs: Sequence[tuple[str, tuple[str, ...]]]) -> None:
    """Print the result of a dry run, with some images and their masks."""
    rows = [[name, f"{split.samples}"] for name, split in dataset.splits.items()]
    console.out.print(console.table(["split", "image files"], rows))
    for image, masks in pairs:
        more = f" and {len(masks) - 1} more" if masks[1:] else ""
        console.out.print(f"{image} -> {masks[0] if masks else 'no mask'}{more}")
    for note in dataset.notes:
        console.out.print(f"note: {note}")
    if dataset.rejected:
        console.out.print(f"{dataset.rejected} masks without an image")
    console.out.print("nothing written (--dry-run)")


def info(config: InfoConfig) -> None:
    """Print the content of `config.shards` and draw the contact sheet, if asked for: the first images of each split with
    their masks, in the splits' proportions.
    """
    dataset = remote.load(config.shards)
    show(dataset)
    show_rejected(config.shards, dataset)
    if not config.preview:
        return
    total = sum(split.samples for split in dataset.splits.values())
    tiles: list[figures.Tile] = []
    for name, split in dataset.splits.items():
        left = max(2, round(_PAIRS * split.samples / total))
        for key, content in islice(_samples(config, split), left):
            encoded = contents.image(config.shards, key, content)
            tiles.append((opening.from_bytes(encoded).array, f"{name}: {key}"))
            if "mask.png" in content:
                tiles.append((opening.from_bytes(content["mask.png"]).array // 255, "mask"))
    columns = _COLUMNS if any(split.masks for split in dataset.splits.values()) else _COLUMNS - 2
    figures.sheet([tiles[start : start + columns] for start in range(0, len(tiles), columns)], config.preview)
    console.out.print(f"preview: {config.preview}")


def _samples(config: InfoConfig, split: Split) -> Iterator[tuple[str, dict[str, bytes]]]:
    for shard in split.shards:
        with remote.local(config.shards / shard.file) as path:
            yield from tar.read(path)
