"""Options of the command line, made from config dataclasses."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from medsass.cli import main


@pytest.mark.parametrize("words", [["--foreground", "1", "--foreground", "2"], ["--foreground=1", "--foreground=1"]])
def test_an_option_of_one_value_is_refused_where_it_is_given_twice(words: list[str], tmp_path: Path) -> None:
    line = ["shard", str(tmp_path), str(tmp_path / "out")]
    done = CliRunner().invoke(main, [*line, *words])
    assert done.exit_code == 2
    assert "--foreground is given twice; it holds one value" in done.stderr
    several = CliRunner().invoke(main, [*line, "--images", "a/*", "--images", "b/*", "--dry-run", "--dry-run"])
    assert "no image matches" in several.stderr
