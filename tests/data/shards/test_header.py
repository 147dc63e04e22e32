"""Tar headers, against tarfile."""

import tarfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medsass.data.shards import header
from tests.data.shards.test_contents import _NAMES
from tests.support.effort import examples


@given(st.text("abcXYZ019_-.", min_size=1, max_size=100), st.integers(0, 2**33 - 1))
def test_header_is_tarfiles(name: str, size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o644, 0
    assert header.header(name, size) == info.tobuf(tarfile.USTAR_FORMAT)


@pytest.mark.parametrize(("name", "size"), [("a" * 101, 1), ("a", 2**33)], ids=["name", "size"])
def test_what_a_tar_header_cannot_hold_is_refused(name: str, size: int) -> None:
    with pytest.raises(ValueError, match="do not fit into a tar file"):
        header.header(name, size)


@given(st.lists(st.tuples(_NAMES, st.integers(0, (1 << 33) - 1)), min_size=1, max_size=5), st.data())
@examples(100)
def test_headers_that_tar_writes(files: list[tuple[str, int]], data: st.DataObject) -> None:
    files = [(name, size) for name, size in files if min(map(ord, name)) >= ord(" ")] or [("a", 1)]
    headers = [header.header(name, size) for name, size in files]
    at = data.draw(st.integers(0, len(headers) - 1))
    changed = bytearray(headers[at])
    changed[data.draw(st.integers(0, 511))] ^= 1 << data.draw(st.integers(0, 7))
    rows = np.frombuffer(b"".join([*headers, bytes(changed), bytes(512)]), np.uint8).reshape(-1, 512)
    names, sizes = header.read_headers(rows)
    assert list(zip(names, sizes, strict=True))[: len(files)] == files
    assert names[len(files) :] == [None, None]
