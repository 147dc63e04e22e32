"""Result files that grow cell by cell, and `benchmarks.all`: nothing measured is lost, whatever fails, dies or runs out of time."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import all as everything
from benchmarks.support import cells, result
from benchmarks.support.cells import Cell, Options, ResultFile


def _file(out: Path, seconds: float = 60, fresh: bool = False) -> ResultFile:
    return ResultFile("made-up", Options(Path("data"), out, "cpu", seconds, fresh))


def _saved(out: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((out / f"{result.device('cpu')}-made-up.json").read_text())
    return content


def _cells(*names: str) -> list[Cell]:
    return [Cell(name, lambda name=name: [{"value": len(name)}]) for name in names]  # type: ignore[misc]


def _status(run: Callable[[], None]) -> int:
    """The exit status of a process that does it."""
    pid = os.fork()
    if pid == 0:
        run()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _boom() -> list[cells.Row]:
    raise RuntimeError("no such peer\nand more")


def test_a_failure_is_named_and_the_rest_is_measured(tmp_path: Path) -> None:
    results = _file(tmp_path)
    first, last = _cells("a", "ccc")
    assert results.fill([first, Cell("bad", _boom), last], lambda _: [])
    saved = _saved(tmp_path)
    assert [(row["cell"], row["value"]) for row in saved["rows"]] == [("a", 1), ("ccc", 3)]  # type: ignore[attr-defined]
    assert saved["failed"] == {"bad": ["RuntimeError: no such peer"]}


def test_what_is_measured_is_not_measured_again_unless_asked(tmp_path: Path) -> None:
    _file(tmp_path).fill(_cells("a"), lambda _: [])
    again = [Cell("a", _boom), *_cells("bb")]
    _file(tmp_path).fill(again, lambda _: [])
    assert "failed" not in _saved(tmp_path)
    _file(tmp_path, fresh=True).fill(again, lambda _: [])
    assert "failed" in _saved(tmp_path)


def test_when_the_time_is_over_the_rest_is_left(tmp_path: Path) -> None:
    assert not _file(tmp_path, seconds=-1).fill(_cells("a"), lambda _: [])
    assert _saved(tmp_path)["rows"] == []
    assert _file(tmp_path).fill(_cells("a"), lambda _: [])


def test_a_cell_that_kills_its_process_is_tried_twice_and_loses_nothing(tmp_path: Path) -> None:
    def run() -> None:
        deadly = Cell("deadly", lambda: os._exit(9))
        _file(tmp_path).fill([*_cells("a"), deadly, *_cells("bb")], lambda _: [])

    for attempt in (1, 2):
        assert _status(run) == 9
        assert _saved(tmp_path)["failed"] == {"deadly": ["did not end"] * attempt}
        assert len(_saved(tmp_path)["rows"]) == 1  # type: ignore[arg-type]
    assert _status(run) == 0
    assert [row["cell"] for row in _saved(tmp_path)["rows"]] == ["a", "bb"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("end", [SystemExit(3), KeyboardInterrupt()])
def test_a_cell_that_is_cut_off_is_as_if_it_had_not_begun(end: BaseException, tmp_path: Path) -> None:
    def cut() -> list[cells.Row]:
        raise end

    for _ in range(3):
        with pytest.raises(type(end)):
            _file(tmp_path).fill([*_cells("a"), Cell("long", cut)], lambda _: [])
        assert "failed" not in _saved(tmp_path)
    assert _file(tmp_path).fill([*_cells("a", "long")], lambda _: [])
    assert len(_saved(tmp_path)["rows"]) == 2  # type: ignore[arg-type]


def test_a_wrong_row_is_measured_again(tmp_path: Path) -> None:
    _file(tmp_path).fill([Cell("a", lambda: [{"value": 1, "wrong": "the mask"}])], lambda _: [])
    _file(tmp_path).fill([Cell("a", lambda: [{"value": 2, "wrong": ""}])], lambda _: [])
    assert [row["value"] for row in _saved(tmp_path)["rows"]] == [2]  # type: ignore[attr-defined]


def test_a_gpu_that_fails_for_good_leaves_the_rest_to_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ResultFile, "_usable", lambda _: False)
    assert not _file(tmp_path).fill([Cell("bad", _boom), *_cells("a")], lambda _: [])
    monkeypatch.undo()
    assert _file(tmp_path).fill([Cell("bad", _boom), *_cells("a")], lambda _: [])
    assert _saved(tmp_path)["failed"] == {"bad": ["RuntimeError: no such peer"]}


def test_targets_are_of_the_rows_so_far(tmp_path: Path) -> None:
    def targets(rows: list[cells.Row]) -> list[result.Target]:
        return [result.Target("sum", "", ">=", 4, sum(row["value"] for row in rows))]

    _file(tmp_path).fill([*_cells("a", "bbb"), Cell("bad", _boom)], targets)
    assert _saved(tmp_path)["targets"][0]["value"] == 4  # type: ignore[index]


@pytest.mark.parametrize(
    ("ends", "asked", "failed"),
    [
        ({"one": ["done"], "two": ["done"]}, ["one", "two"], ""),
        ({"one": ["unfinished", "done"], "two": ["done"]}, ["one", "two", "one"], ""),
        ({"one": ["exit status 1"], "two": ["done"]}, ["one", "two"], r"failed: one \(exit status 1\)"),
    ],
)
def test_programs_run_in_turn_and_unfinished_ones_go_on(
    ends: dict[str, list[str]], asked: list[str], failed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def run(name: str, *_: object) -> str:
        ran.append(name)
        return ends[name].pop(0)

    monkeypatch.setattr(everything, "SHARES", {"cpu": {"one": 0.5, "two": 1.0}})
    monkeypatch.setattr(everything, "run", run)
    monkeypatch.setattr(sys, "argv", ["all", "--device", "cpu", "--minutes", "1", "--out", str(tmp_path)])
    if failed:
        with pytest.raises(SystemExit, match=failed):
            everything.main()
    else:
        everything.main()
    assert ran == asked


def test_what_is_begun_anew_is_begun_anew_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(everything, "SHARES", {"cpu": {"one": 1.0}})
    monkeypatch.setattr(everything, "run", lambda _, options, __: (asked.append(options.fresh), "unfinished")[1])
    monkeypatch.setattr(sys, "argv", ["all", "--device", "cpu", "--minutes", "1", "--out", str(tmp_path), "--fresh"])
    everything.main()
    assert asked == [True, False]


def test_a_program_that_takes_too_long_is_asked_to_end_and_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks/slow.py").write_text("import time; time.sleep(600)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)  # it may lead to the real benchmarks
    monkeypatch.setattr(everything, "GRACE", 0.5)
    assert everything.run("slow", Options(tmp_path, tmp_path, "cpu", 0, False), 0.0) == "unfinished"
    (tmp_path / "benchmarks/broken.py").write_text("raise SystemExit(4)")
    assert everything.run("broken", Options(tmp_path, tmp_path, "cpu", 0, False), 30.0) == "exit status 4"


def test_an_unknown_program_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["all", "--device", "cpu", "--only", "labels,kernels"])
    with pytest.raises(SystemExit, match=r"--only must name some of labels, .*; got kernels"):
        everything.main()


def test_every_program_of_all_is_there() -> None:
    names = {name for shares in everything.SHARES.values() for name in shares}
    assert all((Path(everything.__file__).parent / f"{name}.py").is_file() for name in names)
    assert set(everything.WHOLE).isdisjoint(everything.SHARES["cuda"])
