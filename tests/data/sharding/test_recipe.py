"""Recipes: the bundled ones parse, and each broken rule is named."""

import json
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from medsass import bundled
from medsass.config import POLARITIES, RANGES
from medsass.data.sharding import recipe

MINIMAL = 'name = "mine"\n[[images]]\npath = "*.png"\n[splits]\ntrain = 1.0\n'


def file(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text, "utf-8")
    return str(path)


@pytest.mark.parametrize("path", sorted(bundled.folder("shards").glob("*.toml")), ids=lambda path: path.stem)
def test_bundled_recipe_holds_what_its_file_says(path: Path) -> None:
    table = tomllib.loads(path.read_text("utf-8"))
    loaded = recipe.load(path.stem)
    assert loaded.name == path.stem == table["name"]
    assert loaded.polarity == table["polarity"]
    assert [images.path for images in loaded.images] == [item["path"] for item in table["images"]]
    assert [images.masks for images in loaded.images] == [item.get("masks", "") for item in table["images"]]
    assert dict(loaded.splits) == table.get("splits", {})
    assert loaded.masks.required == table.get("masks", {}).get("required", False)


def test_names_are_the_bundled_files() -> None:
    assert {"covid19_radiography", "dsb2018", "folder", "isic2017"} <= set(recipe.names())
    assert recipe.names() == sorted(path.stem for path in bundled.folder("shards").iterdir() if path.suffix == ".toml")


@pytest.mark.parametrize(
    ("typed", "meant"), [("dsb2081", "dsb2018"), ("isic", "isic2017"), ("covid", "covid19_radiography")]
)
def test_unknown_name_names_the_nearest(typed: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f"recipe '{typed}' does not exist; did you mean '{meant}'.*path to a .toml"):
        recipe.load(typed)


def test_missing_toml_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "gone.toml"
    with pytest.raises(ValueError, match="does not exist") as caught:
        recipe.load(str(path))
    assert str(path) in str(caught.value)


def test_minimal_recipe_takes_the_defaults(tmp_path: Path) -> None:
    loaded = recipe.load(file(tmp_path, MINIMAL))
    assert (loaded.name, loaded.polarity, dict(loaded.splits)) == ("mine", "auto", {"train": 1.0})
    assert loaded.images == (recipe.Images("*.png"),)
    assert loaded.masks == recipe.Masks("binary", False, False, False)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ('polarty = "dark"\n' + MINIMAL, "'polarty' in the file is unknown: did you mean polarity\\? known: name, images"),
        (MINIMAL.replace("path =", "paht ="), r"'paht' in \[\[images\]\] 1 is unknown: did you mean path\? known: path, masks"),
        (MINIMAL.replace('path = "*.png"', 'masks = "*.png"'), r"'path' in \[\[images\]\] 1 is missing; add it"),
        (MINIMAL + '[masks]\nresise = true\n', r"'resise' in \[masks\] is unknown: did you mean resize\? known: foreground"),
        (MINIMAL + '[classes]\nkeys = "x"\n', r"'keys' in \[classes\] is unknown: did you mean key\? known: key"),
        (MINIMAL.replace('name = "mine"', ""), "'name' in the file is missing; add it"),
        ('name = "mine"\n', r"at least one \[\[images\]\] table with a 'path'"),
        ('images = "*.png"\n' + 'name = "mine"\n', r"'images' in the file must be a list of tables; got '\*.png'"),
        ('polarity = "light"\n' + MINIMAL, "'polarity' in the file must be one of bright, dark, auto; got 'light'"),
        (MINIMAL + '[masks]\nforeground = "white"\n', r"'foreground' in \[masks\] must be one of binary, nonzero, half or a list of "
         "whole numbers or a list of texts; got 'white'"),
        (MINIMAL.replace("path =", 'frames = "some"\npath ='), r"'frames' in \[\[images\]\] 1 must be one of auto, first, middle, all or a whole number; got 'some'"),
        (MINIMAL + '[masks]\nresize = "yes"\n', r"'resize' in \[masks\] must be true or false; got 'yes'"),
        ('title = 3\n' + MINIMAL, "'title' in the file must be text; got 3"),
        (MINIMAL.replace("1.0", "0.5"), r"\[splits\] must be positive shares that sum to 1; got \{'train': 0.5\}"),
        (MINIMAL.replace("1.0", "1.5\nval = -0.5"), "positive shares that sum to 1"),
        (MINIMAL.replace("[splits]\ntrain = 1.0", ""), r"\[\[images\]\] without 'split' need a \[splits\] table"),
        (MINIMAL.replace("train =", "Train ="), "a split's name is lower-case letters, digits and _; got 'Train'"),
        (MINIMAL + "[groups]\ncase = 'case[0-9]+'\n", r"pattern 'case\[0-9\]\+' must contain \(\?P<group>\.\.\.\)"),
        (MINIMAL + "[classes]\npattern = '([a-z]+)/'\n", r"pattern '\(\[a-z\]\+\)/' must contain \(\?P<class>\.\.\.\)"),
        (MINIMAL + "[groups]\ncase = '(?P<group>'\n", r"pattern '\(\?P<group>' is not a regular expression: missing \), unterminated"),
        ("name = \n", "not a recipe: not a TOML file: Invalid value"),
        ("just words", "not a recipe: "),
    ],
)  # fmt: skip
def test_broken_rule_names_the_file_and_the_rule(text: str, rule: str, tmp_path: Path) -> None:
    path = file(tmp_path, text)
    with pytest.raises(ValueError, match=rule) as caught:
        recipe.load(path)
    assert str(caught.value).startswith(f"{path}: not a recipe: ")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (MINIMAL.replace("1.0", '"all"'), r"'train' in \[splits\] must be a number; got 'all'"),
        ('splits = 3\n' + MINIMAL.replace("[splits]\ntrain = 1.0", ""), "'splits' in the file must be a table; got 3"),
        ('masks = "masks/*.png"\n' + MINIMAL, r"'masks' in the file must be a table; got 'masks/\*.png'"),
        ('name = "mine"\nimages = ["*.png"]\n', r"\[\[images\]\] 1 must be a table; got '\*.png'"),
        ("variants = 3\n" + MINIMAL, r"each variant must be a table \[variants.NAME\]; got 3"),
        (MINIMAL + "[variants]\nsmall = 3\n", r"each variant must be a table \[variants.NAME\]; got \{'small': 3\}"),
    ],
)  # fmt: skip
def test_value_of_another_type_is_refused(text: str, rule: str, tmp_path: Path) -> None:
    path = file(tmp_path, text)
    with pytest.raises(ValueError, match=f"not a recipe: {rule}") as caught:
        recipe.load(path)
    assert path in str(caught.value)


VARIED = (
    MINIMAL
    + """[masks]
foreground = "half"
[variants.small]
polarity = "dark"
images = { array = "a", channels = [1] }
[variants.large]
masks = { resize = true }
"""
)


def test_first_variant_is_the_default_and_its_images_go_into_every_table(tmp_path: Path) -> None:
    path = file(tmp_path, VARIED)
    assert recipe.load(path) == recipe.load(path, "small")
    small, large = recipe.load(path, "small"), recipe.load(path, "large")
    assert (small.polarity, small.images[0].array, small.images[0].channels) == ("dark", "a", (1,))
    assert (large.polarity, large.images[0].array) == ("auto", "")
    assert small.masks == recipe.Masks("half")
    assert large.masks == recipe.Masks("half", resize=True)


@pytest.mark.parametrize(("text", "known"), [(VARIED, "small, large"), (MINIMAL, "none")], ids=["some", "none"])
def test_unknown_variant_names_those_that_exist(text: str, known: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"it has no variant 'medium'; variants: {known}"):
        recipe.load(file(tmp_path, text), "medium")


@pytest.mark.parametrize(("text", "value"), [("nonzero", "nonzero"), ("1,3", (1, 3)), ("255", (255,))])
def test_foreground_option(text: str, value: object) -> None:
    assert recipe.parse_foreground(text) == value


def test_foreground_option_that_is_neither_is_refused() -> None:
    with pytest.raises(
        ValueError,
        match="--foreground must be binary, nonzero, half, levels such as 1,3 or colours such as '#ff0000'; got 'white'",
    ):
        recipe.parse_foreground("white")


def test_choices_are_those_of_the_options() -> None:
    hints = get_type_hints(recipe.Recipe)
    assert (get_args(hints["polarity"]), get_args(hints["range"])) == (POLARITIES, RANGES)


def test_numbers_of_a_recipe_are_kept_as_they_are_written(tmp_path: Path) -> None:
    loaded = recipe.load(file(tmp_path, MINIMAL.replace("1.0", "1") + "[masks]\nforeground = [3, 1]\n"))
    held = json.dumps(asdict(loaded))
    assert '"foreground": [3, 1]' in held
    assert held.endswith('"splits": {"train": 1}}')


def test_recipe_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL, "utf-8-sig")
    assert recipe.load(str(path)) == recipe.load(file(tmp_path, MINIMAL))


def test_binary_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ValueError, match="not a recipe"):
        recipe.load(str(path))
