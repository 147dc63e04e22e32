"""README against the repository: its size, numbers, make targets, and its Python."""

import re
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text("utf-8")


def test_it_is_short() -> None:
    assert len(TEXT.encode()) <= 8192


def test_its_measurements_stand_in_the_tables() -> None:
    tables = (ROOT / "docs" / "measurements.md").read_text("utf-8")
    section = TEXT.split("## When it works", 1)[1].split("\n## ", 1)[0]
    numbers = set(re.findall(r"\b0\.\d{3}\b", section))
    assert len(numbers) >= 10
    assert sorted(number for number in numbers if number not in tables) == []


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"`make ([a-z-]+)`", TEXT))
    assert targets >= {"demo", "test", "docs"}
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_its_python_runs() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    found: dict[str, object] = {
        "images": torch.from_numpy(np.eye(8, dtype=np.uint8)[None, ..., None].repeat(3, 3) * 90)
    }
    exec(block, found)
    assert found["labels"].mask.shape == (1, 8, 8)  # type: ignore[attr-defined]
