"""Files of a source, local and remote (in memory), and the check that they are as they were listed."""

import errno
from pathlib import Path

import numpy as np
import pytest

from medsass import files
from medsass.data.sharding.catalog.listing import UNREADABLE, Stat
from medsass.data.sharding.source import Source, reason

HERE = Stat(0, "")  # of a file that is no member of a tar file, what a fetch has no need of


def stat(path: Path) -> Stat:
    status = path.stat()
    return Stat(status.st_size, str(status.st_mtime_ns))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "x").mkdir(parents=True)
    (folder / "x" / "a.png").write_bytes(b"pixels")
    (folder / "b.svs").write_bytes(b"slide")
    np.save(folder / "c.npy", np.arange(3))
    (folder / "c.npy").rename(folder / "c.png")
    return folder


def test_whole_files_come_as_bytes_and_others_as_their_path(source: Path, tmp_path: Path) -> None:
    reader = Source(source, tmp_path / "copies")
    assert reader.fetch("x/a.png", HERE, "a", whole=True) == (Path("x/a.png"), b"pixels")
    assert reader.fetch("b.svs", HERE, "a", whole=True) == (source / "b.svs", None)
    assert reader.fetch("c.png", HERE, "a", whole=True) == (source / "c.png", None)  # an array under another name
    assert Source(source, tmp_path / "copies").fetch("b.svs", HERE, "a", whole=False) == (source / "b.svs", None)
    assert not (tmp_path / "copies").exists()


def test_remote_file_that_is_read_by_region_is_copied_until_it_is_released(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("upath")
    remote = files.location("memory://access")
    for path in ("x/a.png", "b.svs"):
        (remote / path).parent.mkdir(parents=True, exist_ok=True)
        (remote / path).write_bytes((source / path).read_bytes())
    reader = Source(remote, tmp_path / "copies")
    assert reader.fetch("x/a.png", HERE, "a", whole=True) == (Path("x/a.png"), b"pixels")
    copy, data = reader.fetch("b.svs", HERE, "a", whole=True)
    assert (copy.parent, copy.suffix, copy.read_bytes(), data) == (tmp_path / "copies/copies", ".svs", b"slide", None)
    assert reader.fetch("b.svs", HERE, "a", whole=True)[0] == copy
    reader.release("a", "x/a.png", "b.svs")
    assert list((tmp_path / "copies/copies").iterdir()) == []


def test_a_file_that_is_not_what_was_listed_is_refused(source: Path, tmp_path: Path) -> None:
    reader, path = Source(source, tmp_path), source / "x" / "a.png"
    listed = stat(path)
    reader.check("x/a.png", listed)
    path.write_bytes(b"other!!")
    with pytest.raises(ValueError, match="the file changed after the run began"):
        reader.check("x/a.png", listed)
    path.unlink()
    with pytest.raises(ValueError, match="the file is gone since the run began"):
        reader.check("x/a.png", listed)
    with pytest.raises(ValueError, match="rename it"):
        reader.check("x/a.png", Stat(UNREADABLE, "rename it"))


def test_faults_of_the_machine_are_no_reasons() -> None:
    assert reason(ValueError("truncated")) == "truncated"
    assert reason(PermissionError(errno.EACCES, "Permission denied", "a.png")) == "Permission denied"
    with pytest.raises(OSError, match="No space left"):
        reason(OSError(errno.ENOSPC, "No space left on device"))


def test_a_file_of_two_images_has_a_copy_for_each(tmp_path: Path) -> None:
    """A worker that is done with one image takes nothing from another worker."""
    pytest.importorskip("upath")
    remote = files.location("memory://shared")
    remote.mkdir(parents=True, exist_ok=True)
    (remote / "b.svs").write_bytes(b"slide")
    reader = Source(remote, tmp_path / "copies")
    one, other = (reader.fetch("b.svs", HERE, key, whole=True)[0] for key in "ab")
    reader.release("a", "b.svs")
    assert not one.exists()
    assert other.read_bytes() == b"slide"


def test_a_photograph_comes_as_bytes_wherever_it_is(tmp_path: Path) -> None:
    pytest.importorskip("upath")
    (tmp_path / "a").write_bytes(b"\xff\xd8\xff photograph")
    remote = files.location("memory://photographs")
    remote.mkdir(parents=True, exist_ok=True)
    (remote / "a").write_bytes((tmp_path / "a").read_bytes())
    own = stat(tmp_path / "a")
    for place in (tmp_path, remote):
        assert Source(place, tmp_path / "copies").fetch("a", own, "a", whole=False)[1] == (tmp_path / "a").read_bytes()


def test_no_name_of_a_copy_is_computed_where_none_was_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    reader = Source(tmp_path, tmp_path)  # the folder of copies holds other temporary files, and exists
    monkeypatch.setattr(Source, "_copy", lambda *_: pytest.fail("a hash for each file"))
    reader.release("a", "a.png")
