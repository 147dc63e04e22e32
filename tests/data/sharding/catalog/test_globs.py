"""Globs: braces, placeholders, what wildcards stand for, and forms of Unicode."""

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medsass.data.sharding.catalog.globs import Glob, expand
from tests.support.catalogued import make, masks, plain
from tests.support.effort import examples


@given(st.lists(st.sampled_from(["a", "é", "_", "1", "[", "]", "{", "-", " "]), min_size=1, max_size=8).map("".join))
@examples(50)
def test_wildcards_of_any_name(name: str) -> None:
    path = f"d/{name}_img.png"
    assert Glob("*/*_img.png").wildcards(path) == unicodedata.normalize("NFC", f"d\0{name}")
    assert Glob("*/{stem}_img.png").stem(path) == name
    assert Glob("*/*.tif").wildcards("d/e/x.tif") is None


def test_unbalanced_brace_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"'\{a,b/\*.png': .*; a brace that is a part of a name is written as a wildcard, \?"
    ):
        expand("{a,b/*.png")


@pytest.mark.parametrize(("pattern", "message"), [
    ("{dir}/{steam}_mask.png", r"'\{dir\}/\{steam\}_mask\.png': \{steam\} is no placeholder \(these are \{stem\}, \{name\}, .*\{key\}\), and no list"),
    ("a{}/*.png", r"\{\} is no placeholder"), ("{a,{b}}/*", r"\{b\} is no placeholder"),
    ("/data/images/*.png", r"'/data/images/\*\.png' begins with /, and globs are below SOURCE"),
    ("images/[z-a]*", r"'images/\[z-a\]\*' is no glob \(bad character range z-a"), ("images/[]", r"is no glob \(unterminated"),
    ("{dir}/[z-a]{stem}.png", r"is no glob"), ("../*.png", r"leads out of SOURCE; give the folder above both"),
])  # fmt: skip
def test_what_is_no_glob_below_the_source_is_refused(pattern: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        expand(pattern)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("pattern", ["Übung/masks/*.png", "Übung/masks/{stem}.png", "{dir}/../masks/{stem}.png"])
def test_accents_of_a_glob_fit_either_form_of_a_folder(pattern: str, form: str, tmp_path: Path) -> None:
    folder = unicodedata.normalize("NFC" if form == "NFD" else "NFD", "Übung")  # type: ignore[arg-type]
    make(tmp_path, *(f"{folder}/{kind}/{name}.png" for kind in ("images", "masks") for name in "ab"))
    images, pattern = (unicodedata.normalize(form, text) for text in ("Übung/images/*.png", pattern))  # type: ignore[arg-type]
    assert masks(tmp_path, plain(images, pattern)) == {
        f"{folder}/images/{name}.png": (f"{folder}/masks/{name}.png",) for name in "ab"
    }


@pytest.mark.parametrize("pattern", ["{stem}{stem}.png", "{key}/{stem}.png"])
def test_a_stem_stands_once_in_a_glob_of_images(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"is no glob \(redefinition.*; .*\{stem\} or \{key\} stands in it once"):
        Glob(pattern)
    assert expand("{stem}/{stem}.png") == ("{stem}/{stem}.png",)  # of a mask, where it is filled in
