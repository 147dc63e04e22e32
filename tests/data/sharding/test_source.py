"""A source's files, on this machine and at an address (in memory), as they were listed or not at all."""

import errno
from pathlib import Path

import numpy as np
import pytest

from medsass import files
from medsass.data.sharding.listing import UNREADABLE
from medsass.data.sharding.source import Access, reason


def stat(path: Path) -> tuple[int, str]:
    status = path.stat()
    return status.st_size, str(status.st_mtime_ns)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "x").mkdir(parents=True)
    (folder / "x" / "a.png").write_bytes(b"pixels")
    (folder / "b.svs").write_bytes(b"slide")
    np.save(folder / "c.npy", np.arange(3))
    (folder / "c.npy").rename(folder / "c.png")
    return folder


def test_whole_files_come_as_bytes_and_others_where_they_are(source: Path, tmp_path: Path) -> None:
    access = Access(source, tmp_path / "fetched", pieces=False)
    assert access.at_hand("x/a.png") == (Path("x/a.png"), b"pixels")
    assert access.at_hand("b.svs") == (source / "b.svs", None)
    assert access.at_hand("c.png") == (source / "c.png", None)  # an array, whatever it is named
    assert Access(source, tmp_path / "fetched", pieces=True).at_hand("x/a.png") == (source / "x" / "a.png", None)
    assert not (tmp_path / "fetched").exists()


def test_what_is_read_in_pieces_is_copied_from_an_address_until_it_is_released(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("upath")
    remote = files.location("memory://access")
    for path in ("x/a.png", "b.svs"):
        (remote / path).parent.mkdir(parents=True, exist_ok=True)
        (remote / path).write_bytes((source / path).read_bytes())
    access = Access(remote, tmp_path / "fetched", pieces=False)
    assert access.at_hand("x/a.png") == (Path("x/a.png"), b"pixels")
    copy, data = access.at_hand("b.svs")
    assert (copy.parent, copy.suffix, copy.read_bytes(), data) == (tmp_path / "fetched", ".svs", b"slide", None)
    assert access.at_hand("b.svs")[0] == copy
    access.release("x/a.png", "b.svs")
    assert list((tmp_path / "fetched").iterdir()) == []


def test_a_file_that_is_not_what_was_listed_is_told(source: Path, tmp_path: Path) -> None:
    access, path = Access(source, tmp_path, pieces=False), source / "x" / "a.png"
    listed = stat(path)
    access.check("x/a.png", listed)
    path.write_bytes(b"other!!")
    with pytest.raises(ValueError, match="the file changed after the run began"):
        access.check("x/a.png", listed)
    path.unlink()
    with pytest.raises(ValueError, match="the file is gone since the run began"):
        access.check("x/a.png", listed)
    with pytest.raises(ValueError, match="rename it"):
        access.check("x/a.png", (UNREADABLE, "rename it"))


def test_faults_of_the_machine_are_no_reasons() -> None:
    assert reason(ValueError("truncated")) == "truncated"
    assert reason(PermissionError(errno.EACCES, "Permission denied", "a.png")) == "Permission denied"
    with pytest.raises(OSError, match="No space left"):
        reason(OSError(errno.ENOSPC, "No space left on device"))
