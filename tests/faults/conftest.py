"""Sources that tests of faults may change."""

import shutil
from pathlib import Path

import pytest

from medsass.data import synthetic


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """12 good pairs."""
    synthetic.generate(tmp_path / "source", 12, seed=2, size=32)
    return tmp_path / "source"


@pytest.fixture
def copied(nuclei_folder: Path, tmp_path: Path) -> Path:
    """60 good pairs."""
    return Path(shutil.copytree(nuclei_folder, tmp_path / "source"))
