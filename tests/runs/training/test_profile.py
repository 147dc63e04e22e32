"""The trace of `train --profile` and its page."""

import gzip
import json
from pathlib import Path

import pytest
import torch
from torch.profiler import record_function

from medsass.runs.distributed import ALONE, Ranks
from medsass.runs.training import profile


@pytest.mark.parametrize("steps", [1, 2, 5, 40])
def test_some_steps_are_traced_whatever_the_trainings_length(tmp_path: Path, steps: int) -> None:
    with profile.traced(tmp_path / "profile", "cpu", steps, ALONE) as step:
        for _ in range(steps):
            with record_function("forward"):
                torch.ones(50, 50) @ torch.ones(50, 50)
            step()
    page = (tmp_path / "profile" / profile.SUMMARY).read_text()
    traced = min(10, max(1, steps // 2))
    assert page.startswith(f"# Where the time went: {traced} steps of ")
    assert "| forward | " in page
    (row,) = [line for line in page.splitlines() if line.startswith("| `aten::mm`")]
    assert float(row.split("|")[2]) == 1.0  # calls a step
    with gzip.open(tmp_path / "profile" / profile.TRACE) as file:
        events = json.load(file)["traceEvents"]
    assert sum(event.get("name") == "aten::mm" for event in events) == traced


@pytest.mark.parametrize(("folder", "ranks"), [(None, ALONE), ("profile", Ranks(1, 2))])
def test_nothing_is_traced_unasked_or_twice(tmp_path: Path, folder: str | None, ranks: Ranks) -> None:
    with profile.traced(tmp_path / folder if folder else None, "cpu", 4, ranks) as step:
        for _ in range(4):
            step()
    assert not list(tmp_path.iterdir())
