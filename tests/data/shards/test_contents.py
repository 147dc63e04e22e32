"""The samples of a tar file from its bytes, in pieces of any length, against Python's tarfile."""

import io
import json
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medsass.data.shards import contents
from medsass.data.shards.contents import Contents
from tests.support.effort import examples

_NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=24)
_FILES = st.lists(
    st.tuples(_NAMES, st.sampled_from(["png", "mask.png", "json"]), st.binary(max_size=1500)), max_size=12
)
_FORMATS = st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT])


def _packed(files: list[tuple[str, bytes]], form: int = tarfile.USTAR_FORMAT, owner: int = 0) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=form) as opened:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size, info.uid = len(data), owner
            opened.addfile(info, io.BytesIO(data))
    return target.getvalue()


def _read(data: bytes, lengths: list[int]) -> Contents:
    found, at = Contents(), 0
    for length in [*lengths, len(data)]:
        found.update(data[at : at + length])
        at += length
    found.finish()
    return found


@given(_FILES, _FORMATS, st.sampled_from([0, 1000]), st.lists(st.integers(1, 3000)))
@examples(200)
def test_members_are_those_that_tarfile_finds(
    files: list[tuple[str, str, bytes]], form: int, owner: int, lengths: list[int]
) -> None:
    named = [(f"{name}.{extension}", data) for name, extension, data in files]
    data = _packed([one for one in named if len(one[0].encode()) < 100], form, owner)
    with tarfile.open(fileobj=io.BytesIO(data)) as opened:
        expected = [(info.name, info.offset_data, info.size) for info in opened]
    found = _read(data, lengths)
    assert [member for sample in found.samples for member in sample.values()] == expected
    assert found.broken is None


@given(_FILES, st.lists(st.integers(1, 3000)), st.data())
@examples(200)
def test_a_header_without_its_checksum_ends_it(
    files: list[tuple[str, str, bytes]], lengths: list[int], data: st.DataObject
) -> None:
    named = [(f"{at}{extension}", held) for at, (_, extension, held) in enumerate(files)]
    packed = bytearray(_packed([*named, ("last", b"")]))
    with tarfile.open(fileobj=io.BytesIO(packed)) as opened:
        held = [(info.name, info.offset) for info in opened]
    at = data.draw(st.integers(0, len(held) - 1))
    packed[held[at][1] + data.draw(st.integers(0, 147))] ^= 1 << data.draw(st.integers(0, 6))
    found = _read(bytes(packed), lengths)
    assert [name for sample in found.samples for name, *_ in sample.values()] == [name for name, _ in held[:at]]
    assert found.broken == held[at][1]


@given(st.integers(0, 2000), st.lists(st.integers(1, 700)))
@examples(50)
def test_the_text_of_a_sample_is_read_across_pieces(padding: int, lengths: list[int]) -> None:
    meta = {"key": "a", "width": 3, "height": 2, "class": "x" * padding, "mask_coverage": 0.25}
    files = [("a.png", b"1" * 700), ("a.mask.png", b"2"), ("a.json", json.dumps(meta).encode())]
    found = _read(_packed(files), lengths)
    assert found.flaws == []
    assert (found.tally.keys, found.tally.coverage) == (["a"], 0.25)
    assert found.tally.counts == {
        ("samples",): 1,
        ("masks",): 1,
        ("formats", "png"): 1,
        ("sizes", "3x2"): 1,
        ("classes", "x" * padding): 1,
    }


def test_a_text_too_long_is_a_flaw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "_LONGEST", 1 << 12)
    meta = {"key": "a", "width": 3, "height": 2, "class": None, "padding": "x" * (1 << 14)}
    files = [("a.png", b"1"), ("a.json", json.dumps(meta).encode()), ("b.png", b"")]
    data = _packed(files)
    found = _read(data, [512] * (len(data) // 512))
    assert found.tally.keys == ["a", "b"]
    assert found.flaws[0].startswith("a.json is not what medsass writes (ValueError")
