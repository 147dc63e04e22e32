"""The list of a source's files against glob and the file system."""

import glob
import os
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medsass.data.formats.folder import OUTSIDE
from medsass.data.sharding.catalog.listing import UNREADABLE, Listing, Stat
from tests.support.effort import examples


def listing(source: Path) -> Listing:
    made = Listing(sqlite3.connect(":memory:"))
    made.fill(source)
    return made


def by_glob(source: Path, pattern: str) -> list[str]:
    found = glob.glob(pattern, root_dir=source, recursive=True)  # noqa: PTH207 - the reference
    return sorted(path for path in found if (source / path).is_file())


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("tree")
    for name in ("a.png", "b.PNG", "x/a.png", "x/y/a.png", "x/y/b c.png", "x[1]/é.png", "x/a.b.tif", "z/it's.png"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    (source / ".hidden").mkdir()
    (source / ".hidden" / "a.png").touch()
    (source / "x" / ".b.png").touch()
    return source


@pytest.mark.parametrize(
    "pattern",
    ["*", "*.png", "**/*", "**/*.png", "x/*", "x/**/*.png", "*/a.png", "x/y/b c.png", "*/*/*", "x[[]1]/*", "[ab].*",
     "x/y/[!a]*", "z/*'*", "nothing/*", "none.png", "**/a.png", "?.png", "x/**/y/*.png"],
)  # fmt: skip
def test_patterns_match_as_glob_does(pattern: str, tree: Path) -> None:
    assert list(listing(tree).match(pattern)) == by_glob(tree, pattern)


@given(st.text("ab*?/[]!.", min_size=1, max_size=8).filter(lambda p: not p.startswith("/") and "//" not in p))
@examples(150)
def test_any_pattern_matches_only_what_exists(tree: Path, pattern: str) -> None:
    try:
        found = list(listing(tree).match(pattern))
    except ValueError:  # a step that holds ** and more
        return
    assert set(found) <= set(by_glob(tree, "**/*"))


def test_stat_is_size_and_time(tree: Path) -> None:
    status = (tree / "x" / "a.png").stat()
    assert listing(tree).stats(["x/a.png"]) == (Stat(status.st_size, str(status.st_mtime_ns)),)


def test_changes_are_noticed(tmp_path: Path) -> None:
    for name in ("kept", "grown", "gone", "touched"):
        (tmp_path / name).write_text("1")
    made = listing(tmp_path)
    assert made.changed(tmp_path) == []
    (tmp_path / "grown").write_text("22")
    (tmp_path / "gone").unlink()
    os.utime(tmp_path / "touched", ns=(1, 1))
    assert sorted(made.changed(tmp_path)) == ["gone", "grown", "touched"]
    (tmp_path / "new").touch()
    assert len(made.changed(tmp_path)) == 3


def test_a_link_back_up_ends(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.png").touch()
    (tmp_path / "x" / "up").symlink_to(tmp_path)
    assert list(listing(tmp_path).match("**/*")) == ["x/a.png"]


def test_links_out_of_the_source_are_named_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.png").write_text("12")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "source" / "b.png").symlink_to(tmp_path / "real" / "a.png")
    (tmp_path / "by another name").symlink_to(tmp_path / "source")
    for source in (tmp_path / "source", tmp_path / "by another name"):
        made = listing(source)
        assert made.stats(list(made.match("**/*")))[0][:2] == (UNREADABLE, OUTSIDE)
        assert made.damaged == {"linked": OUTSIDE}


def test_links_out_of_the_source_are_followed_where_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.png").write_text("12")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "source" / "b.png").symlink_to(tmp_path / "real" / "a.png")
    (tmp_path / "source" / "broken.png").symlink_to(tmp_path / "nowhere")
    made = Listing(sqlite3.connect(":memory:"), follow=True)
    made.fill(tmp_path / "source")
    assert list(made.match("**/*")) == ["b.png", "broken.png", "linked/a.png"]
    assert made.stats(["b.png"])[0][0] == 2
    assert made.stats(["broken.png"])[0][:2] == (UNREADABLE, "a broken link: No such file or directory")


def test_a_file_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(
        NotADirectoryError, match="a: a file; SOURCE is the folder that holds the dataset: give the folder"
    ):
        listing(tmp_path / "a")
