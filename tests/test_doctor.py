"""The doctor's checks: a package that fails, exits or hangs becomes a finding."""

from pathlib import Path

import pytest

from medsass import doctor
from medsass.doctor import Finding


def _package(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Put a package `cucim` with this source in front of the installed one."""
    (folder / "cucim").mkdir()
    (folder / "cucim" / "__init__.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_a_check_that_works_gives_its_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _package(tmp_path, monkeypatch, "print('a greeting')\n__version__ = '9.8'")
    assert doctor._try("cuCIM") == Finding("cuCIM", True, "9.8")


def test_a_check_that_raises_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _package(tmp_path, monkeypatch, "raise RuntimeError('driver\\n too old')")
    assert doctor._try("cuCIM") == Finding("cuCIM", False, "driver too old")


def test_a_check_that_ends_the_interpreter_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _package(tmp_path, monkeypatch, "import os; os._exit(7)")
    assert doctor._try("cuCIM") == Finding("cuCIM", False, "ended with exit code 7")


def test_a_check_that_hangs_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _package(tmp_path, monkeypatch, "while True: pass")
    monkeypatch.setattr(doctor, "_PATIENCE", 1)
    assert doctor._try("cuCIM") == Finding("cuCIM", False, "no answer within 1 s")


def test_a_long_answer_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _package(tmp_path, monkeypatch, "raise RuntimeError('x' * 500)")
    assert doctor._try("cuCIM").detail == "x" * 160 + "…"


def test_a_missing_package_is_not_installed() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"^not installed$"):
        doctor._module("a_package_that_does_not_exist")


def test_an_answer_that_fails_exits_with_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> str:
        raise OSError("libcuda.so not found")

    monkeypatch.setitem(doctor.CHECKS, "GPU", fail)
    with pytest.raises(SystemExit) as end:
        doctor.answer("GPU")
    assert end.value.code == 1
    assert capsys.readouterr().out == "libcuda.so not found\n"


def _paths(*works: str) -> dict[str, str]:
    return dict(doctor.paths([Finding(name, name in works, "") for name in doctor.CHECKS]))


def test_without_dali_nothing_that_reads_shards_can_run() -> None:
    paths = _paths("GPU", "torch")
    assert paths["shard"].startswith("cannot run: install DALI")
    assert paths["train, evaluate, demo"].startswith("cannot run: install DALI")


def test_with_dali_and_without_a_gpu_all_runs_on_the_cpu() -> None:
    paths = _paths("DALI on the CPU")
    assert "on the CPU" in paths["train, evaluate, demo"]
    assert not [path for path in paths.values() if "GPU" in path or "cannot" in path]


def test_with_a_gpu_training_runs_there() -> None:
    paths = _paths("GPU", "DALI on the CPU", "DALI on the GPU")
    assert "on the GPU" in paths["train, evaluate, demo"]
    assert paths["predict"] == "network on the GPU"


def test_a_gpu_that_dali_cannot_use_is_said() -> None:
    assert "cannot run on the GPU" in _paths("GPU", "DALI on the CPU")["train, evaluate, demo"]
