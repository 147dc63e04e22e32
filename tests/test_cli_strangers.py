"""The command line and what strangers wrote: names, tables, runs."""

from pathlib import Path

import pytest

from medsass.config import TrainConfig
from medsass.runs import run_directory
from tests.conftest import facts, tiny
from tests.test_cli import _assert_one_line, _run, seen

__all__ = ["seen"]


def test_resume_takes_nothing_that_sends_or_reads_elsewhere_from_the_files_of_a_run(
    tmp_path: Path, seen: list[TrainConfig]
) -> None:
    run = tmp_path / "run"
    old = tiny(Path("s"), run, wandb="theirs\x1b[2J", init=Path("/etc"), cache="host", profile=True, seed=5)
    run_directory.create(old, facts())
    (run / "last.pt").touch()
    result = _run("train", "s", run, "--resume")
    assert result.stderr == (
        f"medsass: {run} had --cache host --profile --wandb theirs\\x1b[2J: not taken from its files; give them again to go "
        "on with them\n"
    )
    assert _run("train", "s", run, "--resume", "--wandb", "mine", "--cache", "none", "--profile").stderr == ""
    first, second = seen
    assert (first.wandb, first.init, first.cache, first.profile, first.seed) == ("", None, "none", False, 5)
    assert (second.wandb, second.init) == ("mine", None)
    (run / "last.pt").unlink()
    assert " --init /etc " in _run("train", "s", run, "--resume").stderr


def test_names_of_strangers_move_no_cursor(tmp_path: Path) -> None:
    name = "\x1b]0;title\x07\u202egnp.\n[red]medsass: all is well.toml"
    result = _run("shard", tmp_path, tmp_path / "out", "--recipe", name)
    _assert_one_line(result, r"\x1b]0;title\x07\u202egnp. [red]medsass: all is well.toml")
    table = tmp_path / "a.toml"
    table.write_text('"\\u001b[31m" = 1')
    result = _run("train", "s", "r", "--config", table)
    assert result.exit_code == 2
    assert "\x1b" not in result.stderr
    assert r"unknown option '\x1b[31m'" in result.stderr


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("flip = 3", "'flip' must be true or false; got 3"),
        ("size = inf", "'size' must be a number or text; got inf"),
        ("epochs = [1]", "'epochs' must be a number or text; got [1]"),
        ("lr = {x = 1}", "'lr' must be a number or text; got {'x': 1}"),
        (f"epochs = {10**30}", "'epochs' must be a number or text; got 10"),
        ("lr = 2020-01-01", "'lr' must be a number or text; got datetime"),
    ],
)
def test_values_of_a_table_have_the_type_of_their_option(
    row: str, said: str, tmp_path: Path, seen: list[TrainConfig]
) -> None:
    (tmp_path / "a.toml").write_text(row)
    result = _run("train", "s", "r", "--config", tmp_path / "a.toml")
    assert result.exit_code == 2
    assert said in result.stderr
    assert seen == []
