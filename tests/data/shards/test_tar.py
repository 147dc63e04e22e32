"""Tar shards against tarfile, the webdataset library and DALI's own index writer."""

import hashlib
import io
import struct
import subprocess
import sys
import tarfile
import tempfile
import zlib
from pathlib import Path

import pytest
import wds2idx
import webdataset
from hypothesis import example, given
from hypothesis import strategies as st

from medsass.data.shards import tar
from tests.support.effort import examples

Samples = dict[str, dict[str, bytes]]

FIRST = ["train-000000.crc", "train-000000.idx", "train-000000.tar"]

EXTENSIONS = st.sampled_from(["jpg", "png", "jp2", "mask.png", "json"])
CONTENTS = st.dictionaries(
    st.from_regex(r"[A-Za-z0-9_-]{1,80}", fullmatch=True),
    st.dictionaries(EXTENSIONS, st.binary(max_size=1500), min_size=1),
    min_size=1,
    max_size=6,
)


def write(folder: Path, samples: Samples, max_bytes: int = 1 << 20) -> list[tar.Shard]:
    writer = tar.ShardWriter(folder, "train", max_bytes)
    shards = [writer.add(key, content) for key, content in samples.items()]
    return [shard for shard in (*shards, writer.close()) if shard]


def dali_index(path: Path) -> bytes:
    """What DALI's wds2idx writes for the same tar."""
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "reference.idx"
        with wds2idx.IndexCreator(str(path), str(index), verbose=False) as creator:
            creator.create_index()
        return index.read_bytes()


def by_tarfile(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as opened:
        return {member.name: opened.extractfile(member).read() for member in opened}  # type: ignore[union-attr]


def by_webdataset(paths: list[Path]) -> list[tuple[str, dict[str, bytes]]]:
    # empty_check: the library asks for one sample per worker, which says nothing about the files
    dataset = webdataset.WebDataset([str(path) for path in paths], shardshuffle=False, empty_check=False)
    return [
        (sample["__key__"], {name: data for name, data in sample.items() if not name.startswith("__")})
        for sample in dataset
    ]


def some(count: int, size: int) -> Samples:
    return {f"key{i}": {"png": bytes([i % 256]) * size, "json": b"{}"} for i in range(count)}


@given(CONTENTS)
@examples(25)
def test_any_content_comes_back_and_the_index_equals_wds2idx(samples: Samples) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (shard,) = write(Path(folder), samples)
        path = Path(folder) / shard.file
        flat = {f"{key}.{ext}": data for key, content in samples.items() for ext, data in content.items()}
        assert by_tarfile(path) == flat
        assert list(tar.read(path)) == list(samples.items())
        text = path.with_suffix(".idx").read_bytes()
        assert text == dali_index(path)
        held = list(tar.read_index(text.decode()))
        assert (
            "".join(
                [f"v1.2 {len(held)}\n", *(tar.line({each.parts[1]: each for each in one}) for one in held)]
            ).encode()
            == text
        )


@pytest.mark.parametrize(
    "row",
    ["", "png 512 9", "png 512 9 a.png json", "png x 9 a.png", "png 512 -1 a.png", "png 12 9 a.png", "jpg 512 9 a.png"],
)
def test_a_line_that_no_index_has_is_refused(row: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the words are those of Python
        list(tar.read_index(f"v1.2 1\n{row}\n"))


def test_webdataset_reads_the_same_samples(tmp_path: Path) -> None:
    samples = some(9, 700)
    paths = [tmp_path / shard.file for shard in write(tmp_path, samples, max_bytes=10_240)]
    assert len(paths) > 1
    assert by_webdataset(paths) == list(samples.items())
    assert [sample for path in paths for sample in tar.read(path)] == list(samples.items())


@example(13, 0, 20_992)  # fits before tarfile pads the end to a record of 10,240 bytes, not after
@given(st.integers(1, 30), st.integers(0, 6000), st.integers(20_480, 60_000))
@examples(25)
def test_roll_over_keeps_each_tar_within_max_bytes(count: int, size: int, max_bytes: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shards = write(Path(folder), some(count, size), max_bytes)
        assert [shard.file for shard in shards] == [f"train-{i:06d}.tar" for i in range(len(shards))]
        assert sum(shard.samples for shard in shards) == count
        assert max((Path(folder) / shard.file).stat().st_size for shard in shards) <= max_bytes


def test_roll_over_happens_only_when_the_next_sample_would_not_fit(tmp_path: Path) -> None:
    shards = write(tmp_path, some(40, 512), max_bytes=20_480)  # 2048 bytes a sample: 9 and the end fit into 20480
    assert [shard.samples for shard in shards] == [9, 9, 9, 9, 4]


def test_sample_larger_than_max_bytes_gets_a_tar_of_its_own(tmp_path: Path) -> None:
    samples = {"a": {"png": b"1"}, "big": {"png": b"2" * 50_000}, "c": {"png": b"3"}}
    shards = write(tmp_path, samples, max_bytes=20_480)
    assert [[key for key, _ in tar.read(tmp_path / shard.file)] for shard in shards] == [["a"], ["big"], ["c"]]


def test_each_shard_has_the_index_that_wds2idx_writes(tmp_path: Path) -> None:
    shards = write(tmp_path, some(20, 3000), max_bytes=20_480)
    assert len(shards) > 2
    for shard in shards:
        path = tmp_path / shard.file
        assert path.with_suffix(".idx").read_bytes() == dali_index(path)


def test_shard_says_its_samples_size_and_hash(tmp_path: Path) -> None:
    for shard in write(tmp_path, some(20, 3000), max_bytes=20_480):
        data = (tmp_path / shard.file).read_bytes()
        assert (shard.bytes, shard.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert shard.samples == len({name.split(".")[0] for name in by_tarfile(tmp_path / shard.file)})


def test_headers_are_fixed(tmp_path: Path) -> None:
    (shard,) = write(tmp_path, some(3, 10))
    with tarfile.open(tmp_path / shard.file) as opened:
        for member in opened:
            assert (member.mtime, member.uid, member.gid, member.mode) == (0, 0, 0, 0o644)
            assert (member.uname, member.gname, member.type) == ("", "", tarfile.REGTYPE)


def test_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, some(12, 2000), max_bytes=20_480)
    files = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}


def test_no_sample_gives_no_file(tmp_path: Path) -> None:
    assert write(tmp_path, {}) == []
    assert list(tmp_path.iterdir()) == []


def test_no_temporary_file_stays(tmp_path: Path) -> None:
    write(tmp_path, some(10, 3000), max_bytes=20_480)
    assert {path.suffix for path in tmp_path.iterdir()} == {".tar", ".idx", ".crc"}


def test_abort_drops_the_tar_in_progress_and_keeps_finished_ones(tmp_path: Path) -> None:
    writer = tar.ShardWriter(tmp_path, "train", 20_480)
    for key, content in some(10, 512).items():
        writer.add(key, content)
    writer.abort()
    assert sorted(path.name for path in tmp_path.iterdir()) == FIRST
    assert writer.close() is None


@pytest.mark.parametrize("length", [80])
def test_longest_key_fits_the_header(length: int, tmp_path: Path) -> None:
    (shard,) = write(tmp_path, {"k" * length: {"mask.png": b"1"}})
    assert by_tarfile(tmp_path / shard.file) == {"k" * length + ".mask.png": b"1"}


def test_the_bytes_are_those_of_tarfile(tmp_path: Path) -> None:
    samples = some(30, 3000)
    (shard,) = write(tmp_path, samples)
    with tarfile.open(tmp_path / "reference", "w", format=tarfile.USTAR_FORMAT) as opened:
        for key, content in samples.items():
            for extension, data in content.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size, info.mode, info.mtime = len(data), 0o644, 0
                opened.addfile(info, io.BytesIO(data))
    assert (tmp_path / shard.file).read_bytes() == (tmp_path / "reference").read_bytes()


def test_checksums_are_the_crc32_of_every_4096_bytes(tmp_path: Path) -> None:
    for shard in write(tmp_path, some(20, 3000), max_bytes=30_720):
        data = (tmp_path / shard.file).read_bytes()
        expected = [zlib.crc32(data[start : start + 4096]) for start in range(0, len(data), 4096)]
        packed = (tmp_path / shard.file).with_suffix(".crc").read_bytes()
        assert packed == b"".join(struct.pack("<I", value) for value in expected)


def test_add_returns_the_tar_that_it_finished(tmp_path: Path) -> None:
    writer = tar.ShardWriter(tmp_path, "train", 20_480)
    returned = [writer.add(key, content) for key, content in some(10, 512).items()]
    assert returned[:9] == [None] * 9
    shard = returned[9]
    assert shard
    assert (shard.file, shard.samples) == ("train-000000.tar", 9)
    assert len(list(tar.read(tmp_path / shard.file))) == 9
    last = writer.close()
    assert last
    assert (last.file, last.samples) == ("train-000001.tar", 1)
    assert writer.close() is None


def test_writing_goes_on_behind_the_tars_that_exist(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    samples = some(40, 512)
    whole = write(tmp_path / "a", samples, max_bytes=20_480)
    write(tmp_path / "b", dict(list(samples.items())[:18]), max_bytes=20_480)  # two whole tar files
    writer = tar.ShardWriter(tmp_path / "b", "train", 20_480, first=2)
    rest = [writer.add(key, content) for key, content in list(samples.items())[18:]]
    assert [shard for shard in (*rest, writer.close()) if shard] == whole[2:]
    files = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}


def test_a_sample_that_cannot_be_written_drops_the_tar_in_progress(tmp_path: Path) -> None:
    writer = tar.ShardWriter(tmp_path, "train", 1 << 20)
    writer.add("good", {"png": b"1"})
    with pytest.raises(ValueError, match="do not fit into a tar file"):
        writer.add("k" * 200, {"png": b"2"})
    assert writer.close() is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["train-000001.idx", "train-000001.crc", "train-000001.tar"])
def test_a_file_that_cannot_be_put_in_place_leaves_none_of_the_three(name: str, tmp_path: Path) -> None:
    (tmp_path / name / "in the way").mkdir(parents=True)  # a folder that no file can replace
    writer = tar.ShardWriter(tmp_path, "train", 20_480)
    for key, content in some(18, 512).items():
        writer.add(key, content)
    with pytest.raises(OSError, match=name):
        writer.close()
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == FIRST


# Writes tar files into a folder until the system refuses; a size in bytes limits each file that is written
FILL = """
import hashlib, resource, sys
from pathlib import Path
from medsass.data.shards import tar
folder, limit, size = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
writer = tar.ShardWriter(folder, "train", 400_000)
try:
    for number in range(1000):
        if shard := writer.add(f"key{number}", {"png": bytes([number % 256]) * (300 if number < 400 else size)}):
            assert hashlib.sha256((folder / shard.file).read_bytes()).hexdigest() == shard.sha256
except OSError as error:
    writer.close()
    print(error.errno, *sorted(path.name for path in folder.iterdir()))
"""


def test_a_file_size_limit_leaves_finished_tars_and_no_other_file(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FILL, str(tmp_path), "450000", "600000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["27", *FIRST, *second()], done.stderr  # EFBIG


def test_a_full_disk_leaves_finished_tars_and_no_other_file(tmp_path: Path) -> None:
    mount = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=1m none "$0" && exec "$@"', str(tmp_path)]
    try:
        subprocess.run([*mount, "true"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no small file system can be mounted here")
    command = [*mount, sys.executable, "-c", FILL, str(tmp_path), "0", "3000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["28", *FIRST, *second()], done.stderr  # ENOSPC


def second() -> list[str]:
    return [name.replace("000000", "000001") for name in FIRST]
