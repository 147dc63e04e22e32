"""Recipes: the bundled ones parse, and each broken rule is named."""

import tomllib
from pathlib import Path

import pytest

from medsass import bundled
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
        ('polarty = "dark"\n' + MINIMAL, "unknown field 'polarty' in the file; known: .*polarity"),
        (MINIMAL.replace("path =", "paht ="), r"unknown field 'paht' in \[\[images\]\]; known: path"),
        (MINIMAL + '[masks]\nresise = true\n', r"unknown field 'resise' in \[masks\]; known: .*resize"),
        (MINIMAL + '[classes]\nkeys = "x"\n', r"unknown field 'keys' in \[classes\]; known: key"),
        (MINIMAL.replace('path = "*.png"', 'masks = "*.png"'), r"field 'path' is missing in \[\[images\]\]"),
        (MINIMAL.replace('name = "mine"', ""), "field 'name' is missing"),
        ('name = "mine"\n', r"at least one \[\[images\]\] table with a 'path'"),
        ('images = "*.png"\n' + 'name = "mine"\n', r"at least one \[\[images\]\] table with a 'path'"),
        ('polarity = "light"\n' + MINIMAL, "polarity must be one of bright, dark, auto; got 'light'"),
        (MINIMAL + '[masks]\nforeground = "white"\n', "foreground must be one of binary, nonzero, half, or a list of levels; got 'white'"),
        (MINIMAL + '[masks]\nresize = "yes"\n', r"field 'resize' in \[masks\] must be bool; got 'yes'"),
        ('title = 3\n' + MINIMAL, "field 'title' in the file must be str; got 3"),
        (MINIMAL.replace("1.0", "0.5"), r"\[splits\] must be positive shares that sum to 1; got \{'train': 0.5\}"),
        (MINIMAL.replace("1.0", "1.5\nval = -0.5"), "positive shares that sum to 1"),
        (MINIMAL.replace("[splits]\ntrain = 1.0", ""), r"\[\[images\]\] without 'split' need a \[splits\] table"),
        (MINIMAL.replace("train =", "Train ="), "a split's name is lower-case letters, digits and _; got 'Train'"),
        (MINIMAL + "[groups]\ncase = 'case[0-9]+'\n", r"pattern 'case\[0-9\]\+' must contain \(\?P<group>\.\.\.\)"),
        (MINIMAL + "[classes]\npattern = '([a-z]+)/'\n", r"pattern '\(\[a-z\]\+\)/' must contain \(\?P<class>\.\.\.\)"),
        (MINIMAL + "[groups]\ncase = '(?P<group>'\n", "missing \\), unterminated subpattern"),
        ("name = \n", "not a recipe: Invalid value"),
        ("just words", "not a recipe: "),
    ],
)  # fmt: skip
def test_broken_rule_names_the_file_and_the_rule(text: str, rule: str, tmp_path: Path) -> None:
    path = file(tmp_path, text)
    with pytest.raises(ValueError, match=rule) as caught:
        recipe.load(path)
    assert str(caught.value).startswith(f"{path}: not a recipe: ")


@pytest.mark.parametrize(
    "text",
    [
        MINIMAL.replace("1.0", '"all"'),
        MINIMAL.replace('[splits]\ntrain = 1.0', "[masks]\n").replace('name = "mine"', 'name = "mine"\nsplits = 3'),
        'name = "mine"\nmasks = "masks/*.png"\n[[images]]\npath = "*.png"\n[splits]\ntrain = 1.0\n',
        'name = "mine"\nimages = ["*.png"]\n[splits]\ntrain = 1.0\n',
    ],
    ids=["share is text", "splits is a number", "masks is text", "images are text"],
)  # fmt: skip
def test_field_of_another_type_is_refused(text: str, tmp_path: Path) -> None:
    path = file(tmp_path, text)
    with pytest.raises(ValueError, match="not a recipe") as caught:
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
    assert recipe.foreground(text) == value


def test_foreground_option_that_is_neither_is_refused() -> None:
    with pytest.raises(
        ValueError, match="--foreground must be binary, nonzero, half or levels such as 1,3; got 'white'"
    ):
        recipe.foreground("white")


def test_binary_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ValueError, match="not a recipe"):
        recipe.load(str(path))
