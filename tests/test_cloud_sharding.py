"""`medsass shard` from and to S3: the same bytes as in a folder, resumed uploads, and errors in one line."""

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from medsass.config import ShardConfig
from medsass.data import synthetic
from medsass.data.sharding import shard
from medsass.data.shards import manifest
from medsass.data.shards.verify import verify
from tests.support import packed, servers
from tests.support.faults import contents
from tests.support.servers import S3

pytest.importorskip("moto")
pytest.importorskip("s3fs")


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with servers.running_s3() as running:
        yield running


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 generated images with masks, and one that is broken."""
    folder = tmp_path_factory.mktemp("source")
    synthetic.generate(folder, 24, seed=3, size=32)
    (folder / "images" / "broken.png").write_bytes(b"\x89PNG")
    shutil.copy(folder / "masks" / "nuclei_0000.png", folder / "masks" / "broken.png")
    return folder


@pytest.fixture(scope="module")
def uploaded(source: Path, s3: S3) -> Path:
    """The source in S3."""
    for path in source.rglob("*.png"):
        (s3.bucket / "source" / path.relative_to(source).as_posix()).write_bytes(path.read_bytes())
    return s3.bucket / "source"


def _shard(source: Path, out: Path, **changes: object) -> ShardConfig:
    options = {"images": "images/*", "masks": "masks/*", "max_shard_bytes": 30_720, **changes}
    return ShardConfig(source, out, **options)  # type: ignore[arg-type]


def test_tar_files_in_s3_are_read_as_local_ones(s3: S3, tmp_path: Path) -> None:
    packed.dataset(tmp_path / "tars", {"train": 4, "val": 2})
    s3.upload(tmp_path / "tars", "tars")
    packed.made(tmp_path / "tars" / "*.tar", tmp_path / "local")
    packed.made(s3.bucket / "tars" / "*.tar", tmp_path / "from")
    assert contents(tmp_path / "from") == contents(tmp_path / "local")
    packed.made(s3.bucket / "tars" / "{train,val}-000000.tar", tmp_path / "braces")
    assert json.loads((tmp_path / "braces" / manifest.NAME).read_bytes())["splits"].keys() == {"train", "val"}


@pytest.mark.parametrize("options", [{}, {"tile": 16}], ids=["whole", "tiles"])
def test_shards_from_and_to_s3_are_the_folders(
    options: dict[str, int], source: Path, uploaded: Path, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shard.write(_shard(source, tmp_path / "local", **options))
    shard.write(_shard(uploaded, tmp_path / "from", **options))
    assert contents(tmp_path / "from") == contents(tmp_path / "local")
    out = s3.bucket / f"out{len(options)}"
    written = shard.write(_shard(uploaded, out, **options))
    assert contents(out) == contents(tmp_path / "local")
    assert (written.rejected, manifest.load(out).rejected) == (1, 1)
    assert verify(out, trusting=False) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["from", "local"]


def test_shards_in_s3_are_replaced_only_when_asked(
    source: Path, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = s3.bucket / "replaced"
    shard.write(_shard(source, out))
    with pytest.raises(FileExistsError, match=r"holds shards already; .*--overwrite"):
        shard.write(_shard(source, out, size=16))
    shard.write(_shard(source, out, size=16, overwrite=True))
    assert manifest.load(out).options.size == 16


def test_an_interrupted_upload_goes_on(source: Path, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    out, puts = s3.bucket / "interrupted", itertools.count()
    put = out.fs.put_file  # type: ignore[attr-defined]

    def fail(*values: object) -> object:
        if next(puts) == 4:
            raise OSError(110, "Connection timed out", "s3://bucket/interrupted")
        return put(*values)

    with monkeypatch.context() as patch:
        patch.setattr(out.fs, "put_file", fail)  # type: ignore[attr-defined]
        with pytest.raises(
            ValueError,
            match=r"written \(.*timed out.*; 1 finished tar files are kept in .*interrupted.part: go on with",
        ):
            shard.write(_shard(source, out))
    assert not (out / "manifest.json").is_file()
    shard.write(_shard(source, out, resume=True))
    shard.write(_shard(source, tmp_path / "local"))
    assert contents(out) == contents(tmp_path / "local")


def test_a_source_at_an_address_that_is_empty_is_named(s3: S3, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="s3://bucket/nothing"):
        shard.write(_shard(s3.bucket / "nothing", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_keys_in_s3_that_lead_upwards_are_passed_over(s3: S3, source: Path, tmp_path: Path) -> None:
    data = (source / "images" / "nuclei_0001.png").read_bytes()
    for key in ("up/a.png", "up/../../b.png", "up/.hidden/c.png"):
        s3.bucket.fs.pipe_file(f"bucket/{key}", data)  # type: ignore[attr-defined]
    written = shard.write(ShardConfig(s3.bucket / "up", tmp_path / "out"))
    assert sum(split.samples for split in written.splits.values()) == 1
