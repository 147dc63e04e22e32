"""`medsass shard` while its source changes or cannot be read: files that changed are left out and named."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from medsass.data.sharding import shard
from medsass.data.shards import tar
from medsass.data.shards.manifest import load
from medsass.data.shards.verify import verify
from tests.support import deadly
from tests.support.faults import by_source, config, contents, interrupt, part, reasons


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def shrink(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def alter(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)


TAMPER: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "grown": ("images", grow, "the file changed after the run began; run medsass shard again"),
    "shrunk": ("images", shrink, "the file changed after the run began; run medsass shard again"),
    "altered": ("images", alter, "the file changed after the run began; run medsass shard again"),
    "gone": ("images", Path.unlink, "the file is gone since the run began; run medsass shard again"),
    "mask altered": ("masks", alter, "mask masks/{}: the file changed after the run began; run medsass shard again"),
    "mask gone": ("masks", Path.unlink, "mask masks/{}: the file is gone since the run began; run medsass shard again"),
}


@pytest.fixture
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read only a few images ahead of the writer, not all sixty."""
    monkeypatch.setattr("medsass.data.sharding.workers.prepare._GROUP", 1)


@pytest.mark.parametrize("tile", [0, 40])
@pytest.mark.usefixtures("one_at_a_time")
def test_files_that_change_during_the_run_are_left_out(tile: int, copied: Path, shards: Path, tmp_path: Path) -> None:
    paths = [shards / item.file for split in load(shards).splits.values() for item in split.shards]
    last = [key for path in paths for key, _ in tar.read(path)][-len(TAMPER) :]
    expected = {
        f"images/{key}.png": reason.format(f"{key}.png")
        for key, (_, _, reason) in zip(last, TAMPER.values(), strict=True)
    }

    def tamper(done: int, _total: int) -> None:
        if done < 50 and not tampered:
            tampered.append(done)
            for key, (kind, change, _) in zip(last, TAMPER.values(), strict=True):
                change(copied / kind / f"{key}.png")

    tampered: list[int] = []
    shard.write(config(copied, tmp_path / "out", workers=1, tile=tile), tamper)
    assert tampered
    assert reasons(tmp_path / "out") == expected
    whole = {f"images/{path.name}" for path in (copied / "images").iterdir()}
    assert set(by_source(tmp_path / "out")) == whole - set(expected)
    assert verify(tmp_path / "out", trusting=False) == []


@pytest.mark.usefixtures("one_at_a_time")
def test_strict_stops_at_a_file_that_changes(copied: Path, tmp_path: Path) -> None:
    def tamper(_done: int, _total: int) -> None:
        for path in (copied / "images").iterdir():
            alter(path)

    with pytest.raises(ValueError, match=r"images/nuclei_\d+.png: the file changed after the run began.*\(--strict\)"):
        shard.write(config(copied, tmp_path / "out", workers=1, strict=True), tamper)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("change", ["altered", "gone", "mask altered", "new"])
def test_source_that_changed_since_the_interruption_is_refused(change: str, copied: Path, tmp_path: Path) -> None:
    interrupt(copied, tmp_path / "out")
    kind, act, _ = TAMPER.get(change, ("images", lambda path: path.write_bytes(b"new"), ""))
    name = "another.png" if change == "new" else "nuclei_0007.png"
    act(copied / kind / name)
    before = contents(part(tmp_path / "out"))
    with pytest.raises(ValueError, match=rf"changed since .*\({kind}/{name}\); start again with --overwrite$"):
        shard.write(config(copied, tmp_path / "out", resume=True))
    assert contents(part(tmp_path / "out")) == before


def test_too_many_open_files_stop_the_run_instead_of_leaving_files_out(copied: Path, tmp_path: Path) -> None:
    with deadly.workers("crowd()"), pytest.raises(OSError, match="Too many open files"):
        shard.write(config(copied, tmp_path / "out"))
    assert not part(tmp_path / "out").exists()
