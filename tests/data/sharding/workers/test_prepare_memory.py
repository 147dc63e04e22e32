"""Images that take more memory than a worker's share, or than the budget: read alone, or left out."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from medsass import budget
from medsass.config import ShardConfig
from medsass.data.sharding import shard
from tests.support.faults import by_source, reasons


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a source of which, within 60 MB for two workers, b.png fits alone and c.png never."""
    (tmp_path / "source").mkdir()
    for name, side in (("a", 64), ("b", 2200), ("c", 4000), ("d", 64), ("e", 2200)):
        noise = np.random.default_rng(ord(name)).integers(0, 65535, (side, side, 3)).astype(np.uint16)
        cv2.imwrite(str(tmp_path / "source" / f"{name}.png"), noise[: side // 2])
    monkeypatch.setattr(budget, "limit", lambda: 60_000_000)
    return tmp_path / "source"


@pytest.mark.parametrize("tile", [0, 512])
def test_what_exceeds_a_share_is_read_alone_whatever_the_number_of_workers(
    pictures: Path, tile: int, tmp_path: Path
) -> None:
    stored = []
    for workers in (1, 3):
        out = tmp_path / f"out-{workers}"
        shard.write(ShardConfig(pictures, out, workers=workers, tile=tile))
        stored.append({path.name: path.read_bytes() for path in out.glob("*.tar")})
        assert reasons(out) == {"c.png": reasons(out)["c.png"]}
        assert "4000x2000 pixels would take 0.1 GB of memory, more than the 0.1 GB" in reasons(out)["c.png"]
        assert {name[0] for name in by_source(out)} == set("abde")
    assert stored[0] == stored[1]
