"""Regular expressions, globs and braces of users: as Python takes them, and to an end in linear time."""

import re
import tomllib
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medsass import bundled
from medsass.data.sharding import patterns, recipe
from medsass.data.sharding.catalog import globs, splits

NAMES = (
    "a/b_1.png",
    "patient_Müller-07/scan 3.dcm",
    "病人２/图像_5.tif",
    "",
    "images/é/x.png",
    "P12/study4/a.b.c",
    "A" * 250,
)
WRITTEN = (r"(?P<group>\w+)", r"/(?P<group>[\w.-]+)$", r"(?P<group>\d+)", r"(?i:patient)[_ ](?P<group>[^/]*)", r"(?P<group>[^\d/]+)\Z",
           r"(?P<group>[^/]*?)[-_ .]\d", r"\[(?P<group>[]a]*|\w)", r"(?P<group>a)|b", r"(?P<group>[^\W\d_]+)", r"(?P<group>\S+)\s",
           r"(?P<group>\W+)\D", r"(?P<group>[\u56fe-\u75c5]+|\u00e9|\N{LATIN SMALL LETTER U WITH DIAERESIS})", r"(?P<group>[[:a]+)",
           r"(?P<group>\w{,3})/")  # fmt: skip
LINE = "lookaround, references, repetitions of more than 1,000"


def bundled_expressions() -> list[str]:
    found = []
    for path in bundled.folder("shards").glob("*.toml"):
        table = tomllib.loads(path.read_text("utf-8"))
        for part in (table, *table.get("variants", {}).values()):
            found += [*part.get("groups", {}).values(), part.get("classes", {}).get("pattern", "")]
    return sorted(set(found))


def same(expression: str, name: str) -> bool:
    one, other = re.search(expression, name), patterns.regex(expression).search(name)
    return (one and (one.span(), one.groupdict())) == (other and (other.span(), other.groupdict()))


@pytest.mark.parametrize("expression", [*WRITTEN, *bundled_expressions()])
def test_they_mean_what_they_mean_in_python(expression: str) -> None:
    for name in (
        *NAMES,
        "COVID-19_Radiography_Dataset/COVID/images/COVID-1.png",
        "7/images/a.png",
        "tissue/kidney_12_3.tif",
    ):
        assert same(expression, name), name


def test_those_of_the_bundled_recipes_mean_the_same_on_real_names(real_data: Path) -> None:
    names = [str(path.relative_to(real_data)) for path in islice(real_data.rglob("*"), 3000)]
    assert names
    for expression in bundled_expressions():
        assert all(same(expression, name) for name in names), expression


def test_boundaries_of_words_are_ascii_or_refused() -> None:
    expression = r"\b(?P<group>P\d+)\b"
    assert same(expression, "a/P12-3.png")
    with pytest.raises(ValueError, match=r"'病人P12.png' has '病'; write \(\?:\^"):
        patterns.regex(expression).search("病人P12.png")


@given(st.text("ab1Ä٣ /_-.\xa0", max_size=20))
def test_they_mean_the_same_on_any_name(name: str) -> None:
    assert all(same(expression, name) for expression in WRITTEN)


@pytest.mark.parametrize("expression", [r"(a+)+$", r"(a|aa)+$", r"(.*)*(.*)*(.*)*b$", "a?" * 40 + "a" * 40 + "b"])
def test_none_takes_longer_than_linear_time(expression: str) -> None:
    assert patterns.regex(expression).search("a" * 5000 + "!") is None


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        (r"(?=a)b", LINE),
        (r"(a)\1", LINE),
        (r"(a{1000}){1000}", LINE),
        ("(", "missing"),
        ("(" * 5000 + ")" * 5000, "not a regular"),
    ],
)
def test_what_cannot_be_searched_so_is_refused_in_one_line(expression: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as refused:
        patterns.regex(expression)
    assert "\n" not in str(refused.value)
    with pytest.raises(ValueError, match=r"--group-by .*"):
        splits.rule(recipe.load("folder"), f"(?P<group>{expression})")


@pytest.mark.parametrize("glob", ["*a" * 30 + "b", "**/*a/" * 20 + "b.png", "{stem}_" + "*a" * 30])
def test_a_glob_of_many_wildcards_comes_to_an_end(glob: str) -> None:
    made, name = globs.Glob(glob), "a" * 200 + "/" + "a" * 200
    assert not made.fits(name)
    assert made.wildcards(name) is None
    assert made.stem(name) == "a" * 200


def test_a_glob_of_many_wildcards_matches_as_one_of_few() -> None:
    assert globs.Glob("*a*/*b*/*.png").fits("xay/b/1.png")
    assert globs.Glob("*a*/*b*/*.png").wildcards("xay/b/1.png") == "x\0y\0\0\x001"
    assert not globs.Glob("*a*/*b*/*.png").fits("x/b/1.png")


@pytest.mark.parametrize(
    "pattern",
    [
        "{a,b}" * 40,
        "{1..999999999}",
        "{" * 20 + "a,b" + ",b}" * 20 + "{a,b}" * 20,
        "{0..999}{0..999}",
        "{a..z}" * 6,
        "{1..9" + "9" * 30 + "}",
    ],
)
def test_braces_that_stand_for_too_many_globs_are_refused_before_they_are_made(pattern: str) -> None:
    with pytest.raises(ValueError, match="its braces stand for more than 20,000 globs, or"):
        globs.expand(pattern)


def test_a_glob_whose_translation_would_take_minutes_is_refused() -> None:
    with pytest.raises(ValueError, match="has more than 16,384 letters"):
        globs.expand("[" * 100_000)


def test_braces_stand_for_what_they_did() -> None:
    assert patterns.braces("{a,b}/{1..3}.{png,t{if,ga}}")[:4] == ["a/1.png", "a/1.tif", "a/1.tga", "a/2.png"]
    assert len(patterns.braces("train-{000000..009999}.tar")) == 10_000
    assert patterns.braces("{stem}_mask.png") == ["{stem}_mask.png"]
    with pytest.raises(ValueError, match="or lie 30 deep"):
        globs.expand("{" * 3000 + "a,b" + "}" * 3000)


@pytest.mark.parametrize("path", ["../labels.csv", "/etc/passwd", "a/../../labels.csv"])
def test_a_file_of_classes_lies_below_the_source(path: str) -> None:
    table = {"name": "x", "images": [{"path": "*.png", "split": "train", "classes": path}]}
    with pytest.raises(ValueError, match="leads out of SOURCE; put the file below it"):
        recipe.parse(table)
