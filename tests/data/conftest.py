"""What the tests of damaged shards share."""

import shutil
from pathlib import Path

import pytest

from tests.damaged import build


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An intact dataset. Read it, never change it."""
    folder = tmp_path_factory.mktemp("whole")
    build(folder)
    return folder


@pytest.fixture
def broken(whole: Path, tmp_path: Path) -> Path:
    """A copy of it, to be broken."""
    return Path(shutil.copytree(whole, tmp_path / "shards"))
