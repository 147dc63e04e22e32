"""Tar files whose headers would fill the memory, or never end."""

import tarfile
from pathlib import Path

import pytest

from medsass.data.sharding.catalog import tars


def header(name: bytes, kind: bytes, size: int) -> bytes:
    """Return a block of a tar file by POSIX, which announces a member."""
    block = (
        name.ljust(100, b"\0")
        + b"0000644\0"
        + b"0000000\0" * 2
        + b"%011o\0" % size
        + b"0" * 11
        + b"\0"
        + b" " * 8
        + kind
    )
    block = block.ljust(257, b"\0") + b"ustar\x0000"
    block = block.ljust(512, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_a_header_that_would_fill_the_memory_is_refused(kind: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(header(b"a.png", b"0", 512) + bytes(512) + header(b"@", kind, 7 << 30))
    with path.open("r+b") as file:
        file.truncate(8 << 30)  # a sparse file
    found = tars.members(path)
    assert next(found).name == "a.png"
    with pytest.raises(tars.BrokenTarError, match=r"damaged at byte 1024, after 'a\.png': nothing beyond that is read"):
        next(found)


def test_a_chain_of_headers_a_long_name_and_sparse_maps_come_to_an_end(tmp_path: Path) -> None:
    path, end = tmp_path / "a.tar", header(b"a.png", b"0", 0) + bytes(1024)
    link = header(b"@", b"L", 2) + b"a\0".ljust(512, b"\0")
    path.write_bytes(link * 900 + end)
    with pytest.raises(tars.BrokenTarError, match=r"not a tar file|damaged at byte"):
        list(tars.members(path))
    path.write_bytes(header(b"@", b"L", 8000) + (b"n" * 7999).ljust(8192, b"\0") + end)
    with pytest.raises(tars.BrokenTarError, match="a name of 7,999 letters"):
        list(tars.members(path))
    said = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n"
    path.write_bytes(
        header(b"@", b"x", len(said)) + said.ljust(512, b"\0") + header(b"a.png", b"0", 50_000_000) + b"1" * 50_000_176
    )
    with pytest.raises(tars.BrokenTarError, match=r"a header of more than 1,048,576 bytes|not a tar file"):
        list(tars.members(path))


def test_many_members_without_content_are_no_long_header(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as packed:
        for number in range(5000):
            packed.addfile(tarfile.TarInfo(f"{number}.txt"))
    assert len(list(tars.members(tmp_path / "a.tar"))) == 5000
