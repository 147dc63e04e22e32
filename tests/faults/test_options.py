"""`medsass shard` with wrong recipes and options: one line, exit code 2, nothing written."""

from pathlib import Path

import numpy as np
from PIL import Image

from medsass.data.sharding import shard
from tests.support.faults import command, config, decoded, stored


def recipe_file(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(f'name = "mine"\n{text}[[images]]\npath = "images/*.png"\nmasks = "masks/*.png"\n')
    return path


SPLITS = "[splits]\ntrain = 1.0\n"


def test_wrong_recipes_and_options_are_one_line_and_exit_code_2(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def error(*words: object, text: str = SPLITS, more: str = "") -> str:
        path = recipe_file(tmp_path, text)
        path.write_text(path.read_text() + more)
        code, line = command(source, out, "--recipe", path, *words)
        assert code == 2
        assert not list(tmp_path.glob("out*"))
        return line

    assert "mine.toml: not a recipe: 'polarty' in the file is unknown: did you mean polarity?" in error(
        text=f'polarty = "dark"\n{SPLITS}'
    )
    assert "'mask' in [[images]] 1 is unknown: did you mean masks?" in error(more='mask = "x"\n')
    assert "mine.toml: not a recipe: " in error(text="[splits\n")
    assert "no image matches 'images/*.png', 'lost/*.png'" in command(
        tmp_path / "source" / "masks",
        out,
        "--recipe",
        recipe_file(tmp_path, SPLITS + '[[images]]\npath = "lost/*.png"\n'),
    )[1].replace("'lost/*.png', 'images/*.png'", "'images/*.png', 'lost/*.png'")
    table = '[classes]\nkey = "id"\ncolumns = ["a"]\n'
    assert "source/labels.csv is missing: it holds the class labels of 'images/*.png'" in error(
        text=SPLITS + table, more='classes = "labels.csv"\n'
    )
    (source / "labels.csv").write_bytes(b"id,a\n\xff,1\n")
    assert "source/labels.csv: class labels that are not UTF-8 (" in error(
        text=SPLITS + table, more='classes = "labels.csv"\n'
    )
    assert "it has no variant 'x'; variants: none" in error("--variant", "x")
    assert "--group-by must be one of image, folder, patient, series for recipe 'mine'" in error("--group-by", "eye")
    assert (
        "--foreground must be binary, nonzero, half, levels such as 1,3 or colours such as '#ff0000'; got 'red'"
        in error("--foreground", "red")
    )
    assert "recipe 'dsb2081' does not exist; did you mean 'dsb2018'?" in command(source, out, "--recipe", "dsb2081")[1]
    assert "no such folder; SOURCE is the folder" in command(tmp_path / "nowhere", out)[1]


def test_glob_that_matches_nothing_beside_one_that_does_is_noted(source: Path, tmp_path: Path) -> None:
    text = '[[images]]\npath = "images/*.png"\nsplit = "train"\n[[images]]\npath = "late/*.png"\nsplit = "test"\n'
    (tmp_path / "two.toml").write_text(f'name = "two"\n{text}')
    made = shard.write(config(source, tmp_path / "out", recipe=str(tmp_path / "two.toml"), images="", masks=""))
    assert made.notes == ["no file matches 'late/*.png': split 'test' left out"]


def test_masks_of_more_than_two_levels_need_a_word(source: Path, tmp_path: Path) -> None:
    levels = np.repeat(np.array([0, 1, 2, 3, 127, 128, 200, 255], np.uint8), 4)[None].repeat(32, 0)
    for path in (source / "masks").iterdir():
        Image.fromarray(levels).save(path)
    words = [source, tmp_path / "out", "--images", "images/*", "--masks", "masks/*"]
    code, error = command(*words)
    assert code == 2
    assert "the masks hold the levels 0 (the mask of images/" in error
    assert (
        "so that one rule must say what is foreground in all of them: --foreground 1,2,3,127,128,200,255 (some of these levels)"
        in error
    )
    masks = {"nonzero": levels > 0, "half": levels > 127, "1,3": (levels == 1) | (levels == 3)}
    for word, expected in masks.items():
        assert command(*words, "--foreground", word, "--overwrite") == (0, "")
        for sample in stored(tmp_path / "out").values():
            array = decoded(sample["mask.png"])
            np.testing.assert_array_equal(array, expected * np.uint8(255))


def test_dry_run_writes_nothing_and_counts_as_the_run(copied: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} | {tmp_path: tmp_path.stat().st_mtime_ns}
    words = ["--images", "images/*", "--masks", "masks/*"]
    assert command(copied, tmp_path / "out", *words, "--dry-run") == (0, "")
    planned = shard.plan(config(copied, tmp_path / "out"))[0]
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path, *tmp_path.rglob("*"))}
    made = shard.write(config(copied, tmp_path / "out"))
    assert {name: split.samples for name, split in planned.splits.items()} == {
        name: split.samples for name, split in made.splits.items()
    }
    assert (planned.recipe, planned.options) == (made.recipe, made.options)
