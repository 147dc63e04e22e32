"""Tar files that are checked in several processes, against the same check in one."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from medsass.data.shards import manifest, parallel
from medsass.data.shards.verify import verify
from tests.support.damaged import edit

_DIES_OF_A_TAR = f"import os; from medsass.data.shards import damage; damage.find = os.abort; {parallel._PROGRAM}"


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list["subprocess.Popen[bytes]"]:
    """The processes that were started, however short the work."""
    started: list[subprocess.Popen[bytes]] = []

    class Kept(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            started.append(self)

    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    monkeypatch.setattr(parallel, "_worth", lambda *_: True)
    monkeypatch.setattr(subprocess, "Popen", Kept)
    return started


def _spoil(folder: Path) -> None:
    """Damage a tar file, remove one, and change a count."""
    second, third = sorted(folder.glob("train-*.tar"))[1:3]
    content = bytearray(second.read_bytes())
    content[700] ^= 1
    second.write_bytes(content)
    third.unlink()
    edit(folder, lambda table: table["splits"]["val"].update(masks=1))


def test_problems_are_those_that_one_process_finds(
    broken: Path, processes: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    _spoil(broken)
    found = verify(broken)
    assert len(processes) == 2
    monkeypatch.undo()
    assert len(found) > 2
    assert found == verify(broken)


@pytest.mark.parametrize("program", ["import os; os.abort()", _DIES_OF_A_TAR, "print('no answer')"])
def test_where_a_process_dies_this_one_goes_on(
    program: str, broken: Path, processes: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    _spoil(broken)
    monkeypatch.setattr(parallel, "_PROGRAM", program)
    calls: list[tuple[int, int]] = []
    found = verify(broken, lambda done, total: calls.append((done, total)))
    assert len(processes) == 2
    monkeypatch.undo()
    assert found == verify(broken)
    assert calls[-1][0] == calls[-1][1]


def test_no_process_outlives_the_check(whole: Path, processes: list["subprocess.Popen[bytes]"]) -> None:
    shards = manifest.load(whole).splits["train"].shards
    results = parallel.find(whole, shards, lambda _: None)
    assert [next(results)[0] for _ in range(2)] == [[], []]
    results.close()  # type: ignore[attr-defined]
    assert processes
    assert all(process.returncode is not None for process in processes)


def test_an_address_is_read_by_this_process_alone(whole: Path, processes: list[Any]) -> None:
    upath = pytest.importorskip("upath")
    folder = upath.UPath("memory://parallel")
    for path in whole.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    assert verify(folder) == []
    assert not processes
