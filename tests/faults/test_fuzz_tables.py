"""Mutated manifests, indexes, tar files, runs, weights, recipes and grids: each answer is a result or a line, whatever they hold."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.support import forks, fuzz
from tests.support.effort import counted

SEED = 0
# Inputs that were once answered by a traceback, a hang or worse.
KEPT = ("checkpoint:3:738",)
SECONDS = 1800.0  # of `make test-all`


def test_mutated_files_are_answered_by_a_result_or_by_a_line(tmp_path: Path) -> None:
    inputs = [*KEPT, *(f"{kind}:{SEED}:0-{counted(10, 100) - 1}" for kind in fuzz.COMMANDS)]
    words = [sys.executable, "-m", "tests.support.fuzz", str(tmp_path), str(counted(0, 1) * SECONDS), *inputs]
    environment = {**os.environ, "PYTHONPATH": str(forks.ROOT)}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, f"{done.stderr[-2000:]}"
    *wrong, told = [json.loads(line) for line in done.stdout.splitlines()]
    assert wrong == []
    assert set(told["tried"]) == set(fuzz.COMMANDS)
    assert told["memory"] < fuzz.MEMORY
    print(told)
