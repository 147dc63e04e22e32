"""Runs several `medsass` commands in one fresh interpreter, as a start costs more than most of them."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import json, sys
from click.testing import CliRunner
from medsass.cli import main
for line in json.load(sys.stdin):
    done = CliRunner().invoke(main, line)
    print(json.dumps([done.exit_code, done.stderr]))
print(json.dumps([name for name in ("torch", "nvidia.dali", "cupy", "lightly") if name in sys.modules]))
"""


def answers(
    lines: Sequence[Sequence[str]], folder: Path, environment: dict[str, str] | None = None
) -> tuple[list[tuple[int, str]], list[str]]:
    """Return the exit code and stderr of each command line, run in `folder`, and which heavy modules were imported."""
    variables = {**(os.environ if environment is None else environment), "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(
        line, input=json.dumps(lines), capture_output=True, text=True, check=True, cwd=folder, env=variables
    )
    *found, heavy = map(json.loads, done.stdout.splitlines())
    return [(code, said) for code, said in found], heavy
