"""Shards damaged after they were written: the error names the sample or the tar file."""

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medsass.config import ShardConfig
from medsass.data.loading.loader import Augment, Loader
from medsass.data.sharding import shard
from tests.support.loaded import config


@pytest.fixture
def copy(shards: Path, tmp_path: Path) -> Path:
    """A copy of the shards, to be damaged."""
    return Path(shutil.copytree(shards, tmp_path / "copy"))


def member(shards: Path, extension: str) -> tuple[Path, str, int, int]:
    """Return tar file, key, offset and size of a member of the last training tar file."""
    path = sorted(shards.glob("train-*.tar"))[-1]
    with tarfile.open(path) as opened:
        found = [
            info for info in opened if info.name.endswith(f"0.{extension}") or info.name.endswith(f"1.{extension}")
        ][-1]
    return path, found.name.split(".")[0], found.offset_data, found.size


@pytest.mark.parametrize("cache", ["none", "host"])
@pytest.mark.parametrize("extension", ["png", "mask.png"])
def test_a_sample_that_cannot_be_decoded_is_named(extension: str, cache: str, copy: Path) -> None:
    path, key, offset, size = member(copy, extension)
    data = bytearray(path.read_bytes())
    data[offset + 30 : offset + size] = bytes(size - 30)
    path.write_bytes(data)
    loader = Loader(config(copy, cache=cache, augment=Augment()))
    with pytest.raises(ValueError, match=rf"^{path}: sample {key}: the training decoder .*verify {copy}$") as error:
        list(loader)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("cache", ["none", "host"])
def test_a_tar_that_is_cut_off_while_it_is_read_is_named(cache: str, copy: Path) -> None:
    loader = Loader(config(copy, cache=cache))
    path, _, offset, _ = member(copy, "png")
    path.write_bytes(path.read_bytes()[: offset + 10])
    with pytest.raises(
        ValueError, match=rf"^{path}: sample .*: the tar file ends before the sample does; run: .*verify {copy}$"
    ):
        list(loader)


def test_a_json_that_cannot_be_read_is_named_if_needed(copy: Path) -> None:
    path, key, offset, size = member(copy, "json")
    data = bytearray(path.read_bytes())
    data[offset : offset + size] = b"x" * size
    path.write_bytes(data)
    assert sum(len(batch.images) for batch in Loader(config(copy, info=False)))
    for options in ({"info": True}, {"augment": Augment(area=(0.2, 1.0)), "info": False}):
        with pytest.raises(ValueError, match=rf"^{path}: sample {key}: its JSON cannot be read; run: .*verify {copy}$"):
            list(Loader(config(copy, **options)))


def test_a_json_without_sizes_is_named_if_needed(copy: Path) -> None:
    path, key, offset, size = member(copy, "json")
    data = path.read_bytes()
    text = data[offset : offset + size].replace(b'"width"', b'"wydth"')
    path.write_bytes(data[:offset] + text + data[offset + size :])
    assert sum(len(batch.images) for batch in Loader(config(copy)))
    with pytest.raises(ValueError, match=f"sample {key}: its JSON does not say its height and width"):
        list(Loader(config(copy, augment=Augment(area=(0.2, 1.0)))))


def test_sizes_in_the_json_equal_those_of_the_decoded_images(tmp_path: Path) -> None:
    """Crops by area depend on them, also in files with an EXIF orientation."""
    source = tmp_path / "source"
    source.mkdir()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8))
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        for name in ("jpg", "png", "tif", "webp"):
            picture.save(source / f"{orientation}.{name}", exif=exif)
    picture.save(source / "plain.jp2")
    picture.convert("L").save(source / "gray.jpg")
    text = 'name = "turned"\n[[images]]\npath = "source/*"\nsplit = "train"\n'
    (tmp_path / "turned.toml").write_text(text)
    shard.write(ShardConfig(tmp_path, tmp_path / "out", recipe=str(tmp_path / "turned.toml"), near_duplicates=False))
    plain = Loader(config(tmp_path / "out", masks=False, cache="host", batch_size=1))
    sizes = [(batch.info[0]["height"], batch.info[0]["width"]) for batch in plain]
    assert plain._cache
    assert len(sizes) > 20
    assert {(20, 30), (30, 20)} == set(sizes)
    assert [tuple(size) for size in plain._cache.sizes.tolist()] == sizes
