"""Names that cannot be guessed, locks, and what killed processes left."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from medsass import files, temporary

ROOT = Path(__file__).resolve().parents[1]
HOLD = """
import sys, time
from pathlib import Path
from medsass import temporary
folder = Path(sys.argv[1])
file, path = temporary.created(folder)
with temporary.scratch(folder), temporary.locked(folder, "it", "medsass train"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_file_is_written_where_no_one_could_have_put_a_link(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("old")
    (tmp_path / "out").symlink_to("victim")
    for number in range(2):
        with files.atomic(tmp_path / "out") as file:
            assert temporary.is_ours(Path(file.name).name)
            file.write(b"new")
        assert not (tmp_path / "out").is_symlink()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "victim"], number
    assert (tmp_path / "victim").read_text() == "old"


def test_no_link_is_followed_to_make_a_file_or_a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = iter([f".medsass-{digit * 16}.part" for digit in "ab"])
    monkeypatch.setattr(temporary, "_name", lambda: next(names))
    (tmp_path / f".medsass-{'a' * 16}.part").symlink_to("victim")
    with pytest.raises(FileExistsError):
        temporary.created(tmp_path)
    (tmp_path / temporary.LOCK).symlink_to("victim")
    with pytest.raises(OSError, match="symbolic links"), temporary.locked(tmp_path, "it", "medsass train"):
        pass
    assert not (tmp_path / "victim").exists()


def test_modes_are_those_of_any_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    files.write(tmp_path / "out", b"")
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_what_a_killed_process_left_goes_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as other:
        assert other.stdout
        assert other.stdout.readline() == b"held\n"
        before = sorted(tmp_path.iterdir())
        assert len(before) == 3
        assert all(temporary.is_ours(path.name) for path in before)
        temporary.sweep.cache_clear()
        files.write(tmp_path / "out", b"")
        assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "out"])
        with (
            pytest.raises(FileExistsError, match="it is being written by another medsass train; wait for it"),
            temporary.locked(tmp_path, "it", "medsass train"),
        ):
            pass
        other.kill()
    (tmp_path / f".medsass-{'0' * 16}.part").mkdir()  # killed before it was locked
    temporary.sweep.cache_clear()
    files.write(tmp_path / "out", b"")
    with temporary.locked(tmp_path, "it", "medsass train"):
        assert {path.name for path in tmp_path.iterdir()} == {"out", temporary.LOCK}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_temporary_files_are_beside_what_they_are_for(tmp_path: Path) -> None:
    before = tempfile.gettempdir()
    with temporary.scratch(tmp_path) as own:
        assert own.parent == tmp_path
        with tempfile.NamedTemporaryFile() as file:
            assert Path(file.name).parent == own
        Path(own, "left").touch()
    assert tempfile.gettempdir() == before
    assert list(tmp_path.iterdir()) == []
