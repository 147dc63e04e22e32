"""The cache of shards at addresses other than S3, on fsspec's files in memory."""

import shutil
from pathlib import Path

import pytest

from medsass import files
from medsass.data.shards import manifest, remote
from tests.support import built

pytest.importorskip("upath")

TWO = {"train": 12, "val": 2}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Shards on this machine; the cache is an empty folder beside them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return built.build(tmp_path / "shards", splits=TWO)


def _upload(folder: Path, name: str) -> Path:
    address = files.location(f"memory://{name}")
    for path in folder.iterdir():
        (address / path.name).write_bytes(path.read_bytes())
    return address


def _train(address: Path) -> list[Path]:
    return [Path(path) for path in remote.tars(address, remote.load(address).split("train").shards)]


def test_local_and_s3_files_are_read_where_they_are(folder: Path) -> None:
    shards = manifest.load(folder).split("train").shards
    assert remote.tars(folder, shards) == [str(folder / "train-000000.tar"), str(folder / "train-000001.tar")]
    bucket = files.location("s3://bucket/a")
    assert remote.tars(bucket, shards) == ["s3://bucket/a/train-000000.tar", "s3://bucket/a/train-000001.tar"]


def test_a_splits_files_are_copied_with_their_indices(folder: Path, tmp_path: Path) -> None:
    copies = _train(_upload(folder, "copied"))
    for path, name in zip(copies, ("train-000000", "train-000001"), strict=True):
        assert path.is_relative_to(tmp_path / "cache" / "medsass")
        assert path.read_bytes() == (folder / f"{name}.tar").read_bytes()
        assert path.with_suffix(".idx").read_bytes() == (folder / f"{name}.idx").read_bytes()
    assert len(list((tmp_path / "cache" / "medsass").rglob("*.*"))) == 4


def test_what_is_in_the_cache_is_not_fetched_again(folder: Path) -> None:
    address = _upload(folder, "kept")
    before = [path.stat().st_mtime_ns for path in _train(address)]
    dataset = remote.load(address)
    for path in address.iterdir():
        path.unlink()
    again = [Path(path) for path in remote.tars(address, dataset.split("train").shards)]
    assert [path.stat().st_mtime_ns for path in again] == before


def test_a_cached_file_of_another_size_is_fetched_again(folder: Path) -> None:
    address = _upload(folder, "cut")
    path = _train(address)[0]
    path.write_bytes(path.read_bytes()[:-512])
    assert _train(address)[0].read_bytes() == (folder / "train-000000.tar").read_bytes()


def test_shards_made_anew_at_the_same_address_are_fetched_anew(folder: Path) -> None:
    address = _upload(folder, "anew")
    first = [path.read_bytes() for path in _train(address)]
    shutil.rmtree(folder)
    _upload(built.build(folder, extension="jp2", splits=TWO), "anew")
    second = [path.read_bytes() for path in _train(address)]
    assert second == [(folder / f"train-00000{i}.tar").read_bytes() for i in (0, 1)]
    assert first != second


def test_bytes_other_than_the_manifests_are_refused_and_not_kept(folder: Path, tmp_path: Path) -> None:
    address = _upload(folder, "wrong")
    data = bytearray((folder / "train-000000.tar").read_bytes())
    data[5000] ^= 1
    (address / "train-000000.tar").write_bytes(bytes(data))
    with pytest.raises(
        OSError, match=r"^memory://wrong/train-000000\.tar: its bytes are not those .*verify memory://wrong$"
    ):
        _train(address)
    assert list((tmp_path / "cache").rglob("*.tar*")) == []


def test_without_a_variable_the_cache_is_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    one, other = (remote.cache_of(files.location(f"memory://{name}")) for name in "ab")
    assert one.parent == other.parent == tmp_path / ".cache" / "medsass"
    assert one != other


def test_an_address_without_shards_is_named() -> None:
    with pytest.raises(
        FileNotFoundError, match=r"memory://nothing/manifest\.json was not found .*medsass shard SOURCE"
    ):
        remote.load(files.location("memory://nothing"))


def test_a_local_folder_keeps_the_manifests_own_message(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"is missing: .* is not a finished shard folder"):
        remote.load(tmp_path)


def test_a_local_file_is_itself_and_a_remote_one_a_copy_for_a_while(folder: Path) -> None:
    with remote.local(folder / "val-000000.tar") as path:
        assert path == folder / "val-000000.tar"
    with remote.local(_upload(folder, "while") / "val-000000.tar") as path:
        assert path.read_bytes() == (folder / "val-000000.tar").read_bytes()
    assert not path.exists()
