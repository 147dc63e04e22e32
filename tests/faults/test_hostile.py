"""Malformed runs, shard folders and tables: every command that reads them answers in lines, and soon."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copytree, rmtree

import pytest
from click.testing import CliRunner
from PIL import Image

from medsass import errors
from medsass.cli import main
from medsass.data.shards import manifest
from medsass.runs import run_directory
from tests.conftest import facts, tiny
from tests.support import built, hostile
from tests.support.hostile import Case

RECIPE = """name = "x"
polarity = "dark"
title = "t"
homepage = "h"
refine = "blur:3"
[splits]
train = 0.5
val = 0.5
[[images]]
path = "*.png"
frames = "all"
channels = [0]
[groups]
p = "(.*)"
"""
GRID = """title = "t"
numbers = ""
[datasets.d]
shards = "shards"
split = "test"
[defaults]
size = 16
lr = 0.1
[[runs]]
dataset = "d"
seed = [0, 1]
[evaluate]
protocols = ["network"]
"""


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """Let no test wait for ever, as for a pipe."""
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("waits"))
    signal.alarm(120)
    yield
    signal.alarm(0)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built.build(tmp_path_factory.mktemp("good") / "shards", splits={"train": 3, "val": 2, "test": 2})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run") / "run"
    run_directory.create(tiny(Path("shards"), run, wandb="x"), facts(regime={"lr": 0.1, "betas": [0.9, 0.99]}))
    (run / "model.safetensors").write_bytes(b"x")
    return run


def _answers(*words: object) -> str:
    result = CliRunner().invoke(main, [str(word) for word in words])
    return hostile.verdict(result.exit_code, result.stderr) or hostile.verdict(0, result.stdout)


def _all(good: Path, cases: Iterator[Case], answers: Callable[[Path], str]) -> dict[str, str]:
    """What is wrong with the answers to each case."""
    wrong, copy = {}, good.with_name("copy")
    for case in cases:
        copytree(good, copy)
        case.change(copy)
        wrong[case.name] = answers(copy)
        rmtree(copy)
    return {name: said for name, said in wrong.items() if said}


def _line(read: Callable[[], object]) -> str:
    """What is wrong with how a function reads something: it may succeed, or raise what becomes a line."""
    try:
        read()
    except Exception as error:
        return "" if errors.line(error, "train") else repr(error)
    return ""


@pytest.mark.parametrize("name", ["manifest.json", "train-000000.idx", "train-000000.tar"])
@pytest.mark.parametrize("cases", [hostile.texts, hostile.places])
def test_shard_folders_whose_files_are_none(name: str, cases: Callable[[str], Iterator[Case]], good: Path) -> None:
    def answers(copy: Path) -> str:
        words = (("info", copy, "--preview", copy / "p.png"), ("label", copy, copy / "out"), ("verify", copy))
        large = (copy / name).is_file() and (copy / name).stat().st_size > 1 << 30  # verify reads all there is
        return next(filter(None, (_answers(*line) for line in words[: 2 if large else 3])), "")

    assert _all(good, cases(name), answers) == {}


def test_shard_folders_whose_members_are_links_or_lie_elsewhere(good: Path) -> None:
    def answers(copy: Path) -> str:
        words = (("info", copy, "--preview", copy / "p.png"), ("verify", copy), ("label", copy, copy / "out"))
        return next(filter(None, (_answers(*line) for line in words)), "")

    assert _all(good, hostile.tar("train-000000.tar"), answers) == {}
    assert _all(good, hostile.index("train-000000.idx"), answers) == {}


def test_each_value_of_a_manifest(good: Path) -> None:
    assert _all(good, hostile.values("manifest.json")(good), lambda copy: _line(lambda: manifest.load(copy))) == {}


def test_each_value_of_a_run(run: Path) -> None:
    assert _all(run, hostile.values("config.json")(run), lambda copy: _line(lambda: run_directory.stored(copy))) == {}


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("cases", [hostile.texts, hostile.places])
def test_runs_whose_files_are_none(name: str, cases: Callable[[str], Iterator[Case]], run: Path, good: Path) -> None:
    def answers(copy: Path) -> str:
        return _answers("evaluate", copy, good, "--device", "cpu") or _answers("export", copy)

    assert _all(run, cases(name), answers) == {}


def test_each_line_of_recipes_and_grids(tmp_path: Path) -> None:
    Image.new("L", (9, 9)).save(tmp_path / "a.png")
    wrong = {}
    for text, words in ((RECIPE, ("shard", tmp_path, tmp_path / "out", "--dry-run", "--recipe")), (GRID, ())):
        for name, data in hostile.tables(text):
            path = tmp_path / "a.toml"
            path.write_bytes(data)
            line = (*words, path) if words else ("experiment", path, tmp_path / "out", "--dry-run", "--device", "cpu")
            wrong[name] = _answers(*line)
    assert {name: said for name, said in wrong.items() if said} == {}


def test_pipes_are_named_and_not_waited_for(good: Path, run: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.toml"
    os.mkfifo(pipe)
    said = f"{pipe}: it is a named pipe, and no file"
    lines: list[tuple[object, ...]] = [
        ("predict", run, pipe, "--device", "cpu"),
        ("tune", good, "--out", pipe, "--device", "cpu"),
        ("experiment", pipe, tmp_path / "out"),
    ]
    for line in lines:
        result = CliRunner().invoke(main, [str(word) for word in line])
        assert result.exit_code == 2
        assert said in result.stderr
    result = CliRunner().invoke(main, ["train", str(good), str(tmp_path / "run"), "--config", str(pipe)])
    assert "it is a named pipe" in result.stderr
