"""The budget of memory: how it is set and checked, what a worker process may take, and what the kernel refuses beyond."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from medsass import budget


@pytest.fixture(autouse=True)
def _anew() -> Iterator[None]:
    budget.limit.cache_clear()
    yield
    budget.limit.cache_clear()


@pytest.mark.parametrize(
    ("text", "size"), [("8G", 8e9), ("1.5g", 1.5e9), ("500M", 5e8), ("2 TB", 2e12), ("4096", 4096), ("64KiB", 64e3)]
)
def test_it_is_what_the_environment_says(text: str, size: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(budget.VARIABLE, text)
    assert budget.limit() == int(size)


@pytest.mark.parametrize("text", ["much", "-1G", "1e9", "8 G B"])
def test_what_is_no_size_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(budget.VARIABLE, text)
    with pytest.raises(
        ValueError, match=f"{budget.VARIABLE} must be a size in bytes, such as 8G or 500M; got '{text}'"
    ):
        budget.limit()


def test_without_it_half_of_the_free_memory_is_taken_and_not_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(budget.VARIABLE, raising=False)
    for free in (8_000, 2_000):
        monkeypatch.setattr(budget, "free", lambda free=free: free)
        assert budget.limit() == 4_000


def test_more_than_it_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(budget.VARIABLE, "1G")
    budget.check(1e9)
    with pytest.raises(
        budget.ExceededError, match=r"a scan would take 2.9 GB .* the 1.0 GB .* set MEDSASS_MEMORY=3.0G"
    ):
        budget.check(2.9e9, "a scan")
    budget.check_packed(10**9, 8e9)  # as large as files are: no bomb
    with pytest.raises(budget.ExceededError):
        budget.check_packed(10**6, 1.1e9)


def test_a_worker_takes_its_share_alone_all_of_it_and_the_kernel_refuses_more() -> None:
    code = """
from medsass import budget
budget.share(10**8)
budget.check(10**8)
try:
    budget.check(10**9)
except budget.ScarceError:
    print("scarce")
try:
    budget.check(10**10)
except budget.ExceededError:
    print("exceeded")
try:
    bytearray(2 * 10**9)
except MemoryError:
    print("refused by the kernel")
budget.share(None)
budget.check(10**9)
print(len(bytearray(10**9)))
"""
    words = [sys.executable, "-c", code]
    done = subprocess.run(
        words, capture_output=True, text=True, env={budget.VARIABLE: "2G", "PYTHONPATH": ":".join(sys.path)}, check=True
    )
    assert done.stdout.splitlines() == ["scarce", "exceeded", "refused by the kernel", "1000000000"]


def test_where_proc_is_hidden_the_budget_holds_without_the_backstop(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert 0 < budget.free(tmp_path) <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    monkeypatch.setattr(budget, "_share", None)
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    budget.share(10**8, tmp_path)
    assert resource.getrlimit(resource.RLIMIT_DATA) == limits
    budget.check(10**8)
