"""README against the repository: its size, numbers, make targets, and its Python."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

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


def test_its_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    disc = cv2.circle(np.full((64, 64), 200, np.uint8), (32, 32), 15, 90, -1)
    cv2.imwrite("photo.png", disc)
    exec(block, {})
    mask = cv2.imread("mask.png", cv2.IMREAD_UNCHANGED)
    assert np.array_equal(mask[24:40, 24:40], np.full((16, 16), 255))
    assert not mask[:12].any()
