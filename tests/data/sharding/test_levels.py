"""One rule of foreground for all masks of a dataset: levels that contradict one another end the run and are named."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from medsass.config import ShardConfig
from medsass.data.sharding import shard
from medsass.data.sharding.journal import Journal
from medsass.data.sharding.levels import DatasetLevels, MasksError
from tests.support.effort import examples
from tests.support.faults import samples

GRAY = np.random.default_rng(0).integers(0, 256, (24, 32), np.uint8)


def dataset(folder: Path, *masks: np.ndarray, image: np.ndarray = GRAY) -> Path:
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for i, mask in enumerate(masks):
        Image.fromarray(np.roll(image, i)).save(folder / f"images/{i}.png")
        Image.fromarray(mask).save(folder / f"masks/{i}.png")
    return folder


def square(*levels: int, ground: int = 0) -> np.ndarray:
    mask = np.full((24, 32), ground, np.uint8)
    for i, level in enumerate(levels):
        mask[4:10, 4 + 8 * i : 10 + 8 * i] = level
    return mask


def write(source: Path, **options: object) -> dict[str, float]:
    """Shard a source and return the coverage of each image's mask."""
    out = source.parent / "out"
    manifest = shard.write(ShardConfig(source, out, split="0.4,0.3,0.3", overwrite=True, **options))  # type: ignore[arg-type]
    stored = samples(out, manifest).values()
    found = (json.loads(content["json"]) for content in stored)
    return {meta["key"]: meta["mask_coverage"] for meta in found}


@pytest.mark.parametrize("masks", [
    (square(1), square(2), square(1)),  # an organ in some images, a tumour in others
    (square(1, 2), square(1), square()),
    (square(2, ground=1), square(2), square(1)),
    (square(ground=1), square(2, ground=1), square(2, ground=1)),  # what is all ground looks like all foreground
])  # fmt: skip
def test_classes_are_refused_with_their_levels_and_the_option(masks: tuple[np.ndarray, ...], tmp_path: Path) -> None:
    source = dataset(tmp_path / "source", *masks)
    with pytest.raises(
        ValueError,
        match=r"^the masks hold the levels .*1 \(.*2 \(.*--foreground 1,2 \(some of these levels\), nonzero, or half where edges are soft$",
    ):
        write(source)
    assert not list(tmp_path.glob("out*"))
    expected = {str(i): round(float(np.isin(mask, (2,)).mean()), 6) for i, mask in enumerate(masks)}
    assert write(source, foreground="2") == expected


def test_two_levels_of_the_dataset_need_no_rule(tmp_path: Path) -> None:
    masks = (square(255), square(), square(ground=255))
    assert write(dataset(tmp_path / "source", *masks)) == {
        str(i): round(float((mask > 0).mean()), 6) for i, mask in enumerate(masks)
    }


def test_mask_of_many_levels_alone_is_left_out(tmp_path: Path) -> None:
    soft = np.linspace(0, 255, 24 * 32).astype(np.uint8).reshape(24, 32)
    assert set(write(dataset(tmp_path / "source", square(255), soft, square(255)))) == {"0", "2"}


@given(st.lists(st.sets(st.sampled_from([0.0, 1.0, 2.0, 255.0]), min_size=1, max_size=2), min_size=1, max_size=6))
@examples(100)
def test_all_masks_are_by_one_rule_or_refused(masks: list[set[float]]) -> None:
    """By the definition: at most two levels in all, and no mask whose only level is the ground of another."""
    held = sorted(set.union(*masks))
    fits = len(held) <= 2 and not any(
        len(mask) == 1 and mask == {held[0]} and held[0] > 0 for mask in masks if len(held) == 2
    )
    found = DatasetLevels(Journal(None).database)
    try:
        for i, mask in enumerate(masks):
            found.add(f"{i}.png", tuple(sorted(mask)))
    except MasksError:
        assert not fits
    else:
        assert fits


@pytest.mark.parametrize(
    "masks", [(square(255), square()), (square(255, ground=255), square())], ids=["both", "one each"]
)
def test_zero_and_a_lower_level_are_for_the_user_to_tell(masks: tuple[np.ndarray, ...], tmp_path: Path) -> None:
    source = dataset(tmp_path / "source", *masks)
    for i, mask in enumerate(masks):  # 255 in a signed byte is -1
        (source / f"masks/{i}.png").unlink()
        np.save(source / f"masks/{i}.npy", mask.astype(np.int8))
    with pytest.raises(ValueError, match=r"-1.* 0.*--foreground .*nonzero"):
        write(source)
    nonzero = {str(i): round(float((mask > 0).mean()), 6) for i, mask in enumerate(masks)}
    assert write(source, foreground="nonzero") == nonzero
    assert write(source, foreground="0") == {key: round(1 - share, 6) for key, share in nonzero.items()}


def test_levels_are_known_to_a_run_that_goes_on() -> None:
    journal = Journal(None)
    DatasetLevels(journal.database).add("a.png", (0, 1))
    with pytest.raises(MasksError, match=r"0 \(a.png\), 1 \(a.png\), 2 \(b.png\)"):
        DatasetLevels(journal.database).add("b.png", (0, 2))


def test_nearly_empty_and_nearly_full_masks_are_warned_of(tmp_path: Path) -> None:
    source = dataset(tmp_path / "source", square(), square(ground=255), square(255))
    manifest = shard.write(ShardConfig(source, tmp_path / "out", split="0.4,0.3,0.3"))
    warnings = [note for note in manifest.notes if note.startswith("WARNING")]
    assert any(note.startswith("WARNING: 1 masks are below 0.1 % foreground, such as that of 0;") for note in warnings)
    assert any(note.startswith("WARNING: 1 masks are above 90 % foreground, such as that of 1;") for note in warnings)
    assert sum("in the mean" in note for note in warnings) == 2  # each split holds one image


def test_mask_of_another_size_names_the_option_that_resizes_it(tmp_path: Path) -> None:
    source = dataset(tmp_path / "source", square(255), square(255), square(255)[::2, ::2])
    assert set(write(source)) == {"0", "1"}
    rejected = json.loads((tmp_path / "out/rejected.jsonl").read_text().splitlines()[0])
    assert (
        rejected["reason"] == "mask masks/2.png: size 16x12 differs from the image's 32x24; --resize-masks resizes it"
    )
    assert set(write(source, resize_masks=True)) == {"0", "1", "2"}


@pytest.mark.parametrize("orientation", [3, 6])
def test_mask_without_a_tag_is_turned_as_its_image_by_option(orientation: int, tmp_path: Path) -> None:
    image, mask = np.roll(square(200), 3, axis=1)[:, :24], np.roll(square(255), 3, axis=1)[:, :24]
    source = dataset(tmp_path / "source", mask, mask, mask, image=image)
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(image).save(source / "images/0.png", exif=exif)
    manifest = shard.write(ShardConfig(source, tmp_path / "out", split="0.4,0.3,0.3"))
    assert any(note.startswith("WARNING: 1 images are turned by their orientation tag") for note in manifest.notes)
    manifest = shard.write(ShardConfig(source, tmp_path / "out", split="0.4,0.3,0.3", turn_masks=True, overwrite=True))
    assert not any("turned" in note for note in manifest.notes)
    stored = samples(tmp_path / "out", manifest)["0"]
    pixels = [np.asarray(Image.open(io.BytesIO(stored[name]))) for name in ("png", "mask.png")]
    np.testing.assert_array_equal(pixels[0] == 200, pixels[1] == 255)
    np.testing.assert_array_equal(pixels[1], np.rot90(mask, {3: 2, 6: -1}[orientation]))


@pytest.mark.parametrize("form", ["miniswhite", "tiff palette", "png palette"])
@pytest.mark.parametrize("some", [True, False])
def test_masks_whose_zero_is_shown_bright_are_told(form: str, some: bool, tmp_path: Path) -> None:
    source = dataset(tmp_path / "source", square(1), square(1), square(1))
    for i in range(3):
        (source / f"masks/{i}.png").unlink()
        bright = i < 2 or not some
        if form == "png palette":
            picture = Image.fromarray(square(1)).convert("P")
            picture.putpalette([255, 255, 255, 0, 0, 0] if bright else [0, 0, 0, 255, 255, 255])
            picture.save(source / f"masks/{i}.png")
        elif form == "tiff palette":
            ramp = np.linspace(0, 65535, 256).astype(np.uint16)
            table = np.stack([ramp[::-1] if bright else ramp] * 3)
            tifffile.imwrite(source / f"masks/{i}.tif", square(1), photometric="palette", colormap=table)
        else:
            shown = "miniswhite" if bright else "minisblack"
            tifffile.imwrite(source / f"masks/{i}.tif", square(1) > 0, photometric=shown)
    config = ShardConfig(source, tmp_path / "out", split="0.4,0.3,0.3", overwrite=True)
    manifest = shard.write(config)
    (note,) = [note for note in manifest.notes if "bright" in note]
    assert note.startswith("WARNING: 2 of 3 masks show their 0 bright" if some else "all masks show their 0 bright")
    masks = [
        np.asarray(Image.open(io.BytesIO(held["mask.png"]))) for held in samples(tmp_path / "out", manifest).values()
    ]
    np.testing.assert_array_equal(masks, [square(255)] * 3)
    assert not any("bright" in note for note in shard.write(replace(config, foreground="1")).notes)


@pytest.mark.parametrize(
    ("foreground", "missing"), [("1,2", ""), ("1,20", "20"), ("20,30,2", "20, 30"), ("nonzero", "")]
)
def test_levels_that_no_mask_holds_are_told(foreground: str, missing: str, tmp_path: Path) -> None:
    source = dataset(tmp_path / "source", square(1, 2), square(1), square(2))
    manifest = shard.write(ShardConfig(source, tmp_path / "out", foreground=foreground))
    told = [note for note in manifest.notes if "no mask holds" in note]
    assert told == ([f"WARNING: no mask holds {missing} of --foreground {foreground}"] if missing else [])


@pytest.mark.parametrize("foreground", ["7", "7,8", "#ff0000", "half"])
def test_a_rule_by_which_all_masks_are_ground_is_refused(foreground: str, tmp_path: Path) -> None:
    source = dataset(tmp_path / "source", square(1, 2), square(1), square(2))
    with pytest.raises(ValueError, match=f"no mask holds any foreground by --foreground {foreground}; without"):
        shard.write(ShardConfig(source, tmp_path / "out", foreground=foreground))
    assert not (tmp_path / "out").exists()


def test_colours_that_no_mask_holds_are_told(tmp_path: Path) -> None:
    masks = [np.stack([square(255), square(), square()], -1), np.stack([square(), square(255), square()], -1)] * 2
    source = dataset(tmp_path / "source", *masks)
    manifest = shard.write(ShardConfig(source, tmp_path / "out", foreground="#ff0000,#00FF00,#00ff01"))
    assert "WARNING: no mask holds #00ff01 of --foreground #ff0000,#00FF00,#00ff01" in manifest.notes


@pytest.mark.parametrize("foreground", ["half", "255", "#ffffff"])
def test_a_single_pixel_of_foreground_is_some(foreground: str, tmp_path: Path) -> None:
    masks = [np.zeros((1600, 1600), np.uint8) for _ in range(3)]
    for mask in masks:
        mask[5, 7] = 255
    source = dataset(
        tmp_path / "source", *masks, image=np.random.default_rng(0).integers(0, 256, (1600, 1600), np.uint8)
    )
    manifest = shard.write(ShardConfig(source, tmp_path / "out", foreground=foreground))
    assert sum(split.masks for split in manifest.splits.values()) == 3
    assert not any("no mask holds" in note for note in manifest.notes)


@pytest.mark.parametrize(("ground", "level", "told"), [
    (255, 0, "WARNING: the whole border is foreground in 3 of 3 masks, such as that of 0; if they are inverted, --foreground"),
    (1, 2, "WARNING: the masks hold 1 and 2, none 0, and 2 is foreground; --foreground 1 if that one is meant"),
    (0, 255, ""),
])  # fmt: skip
def test_masks_that_may_be_inverted_are_warned_of(ground: int, level: int, told: str, tmp_path: Path) -> None:
    masks = [np.roll(square(level, level, ground=ground), i, 0) for i in range(3)]
    notes = shard.write(ShardConfig(dataset(tmp_path / "in", *masks), tmp_path / "out")).notes
    warned = [note for note in notes if "inverted" in note or "none 0" in note]
    assert [note.startswith(told) for note in warned] == [True] * bool(told)


def test_a_mask_on_its_side_is_not_squeezed(tmp_path: Path) -> None:
    source = dataset(tmp_path / "in", square(255), square(255), square(255).T)
    made = shard.write(ShardConfig(source, tmp_path / "out", resize_masks=True))
    reasons = [json.loads(line)["reason"] for line in (tmp_path / "out/rejected.jsonl").read_text().splitlines()]
    assert reasons == ["mask masks/2.png: size 24x32 differs from the image's 32x24; it lies on its side: turn it"]
    assert sum(split.samples for split in made.splits.values()) == 2
