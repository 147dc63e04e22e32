"""The bytes of samples against tarfile's, and the errors of tar files that hold something else."""

import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from medsass import files
from medsass.data.loading import reader as module
from medsass.data.loading import samples
from medsass.data.loading.reader import Encoded, Reader
from medsass.data.shards import manifest
from medsass.data.shards.tar import ShardWriter
from tests.support import built, damaged

WANTED = ("image", "mask.png", "json")


def opened(folder: Path) -> Reader:
    return Reader(samples.load(folder, manifest.load(folder).split("train").shards))


def content(folder: Path) -> dict[str, bytes]:
    """Return all members of the training split."""
    found = {}
    for path in folder.glob("train-*.tar"):
        with tarfile.open(path) as archive:
            found |= {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    return found


def by_name(reader: Reader, read: list[Encoded]) -> dict[str, bytes]:
    return {
        reader.samples.name(item.number, what).decode(): data.tobytes()
        for item in read
        for what, data in item.files.items()
    }


def descriptors(folder: Path) -> int:
    """Count the files of `folder` that this process holds open."""
    links = list(Path("/proc/self/fd").iterdir())
    return sum(str(link.readlink()).startswith(str(folder)) for link in links if link.exists())


@pytest.mark.parametrize("wanted", [WANTED, ("image",), ("json",), ("image", "json"), ("image", "mask.png")])
def test_bytes_equal_tarfiles_in_any_order(wanted: tuple[str, ...], whole: Path) -> None:
    reader = opened(whole)
    order = np.random.default_rng(0).permutation(60).tolist()
    read = reader.read(order, wanted)
    assert [item.number for item in read] == order
    kinds = {"image": (".png", ".jpg"), "mask.png": (".mask.png",), "json": (".json",)}
    expected = {
        name: data
        for name, data in content(whole).items()
        if name.endswith(tuple(end for what in wanted for end in kinds[what]))
        and not ("mask.png" not in wanted and name.endswith(".mask.png"))
    }
    assert by_name(reader, read) == expected


def test_one_sample_can_be_read_by_many_threads(whole: Path) -> None:
    reader = opened(whole)
    expected = content(whole)
    with ThreadPoolExecutor(8) as pool:
        for read in pool.map(lambda start: reader.read([start % 60, 0, start % 7], WANTED), range(200)):
            found = by_name(reader, read)
            assert found == {name: expected[name] for name in found}


def test_names_of_the_full_length_are_accepted(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, "train", 1 << 20)
    keys = ["k" * (100 - len(".png")), "short"]
    for key in keys:
        writer.add(key, {"png": b"of " + key.encode()})
    shard = writer.close()
    assert shard
    reader = Reader(samples.load(tmp_path, [shard]))
    assert [item.files["image"].tobytes() for item in reader.read([0, 1], ["image"])] == [
        b"of " + key.encode() for key in keys
    ]


def test_the_bytes_at_an_address_equal_the_folders(whole: Path) -> None:
    """fsspec's in-memory files stand for S3, which is read in the same way."""
    pytest.importorskip("upath")
    address = files.location("memory://ranges")
    for path in whole.iterdir():
        (address / path.name).write_bytes(path.read_bytes())
    local = opened(whole)
    tars = [str(address / Path(path).name) for path in local.samples.tars]
    columns = local.samples
    far = Reader(samples.Samples(address, tars, columns.keys, columns.tar, columns.form, columns.spans))
    for one, other in zip(local.read(range(60), WANTED), far.read(range(60), WANTED), strict=True):
        assert {what: data.tobytes() for what, data in one.files.items()} == {
            what: data.tobytes() for what, data in other.files.items()
        }
    (address / "train-000000.tar").unlink()
    with pytest.raises(OSError, match=r"^memory://ranges cannot be read \(.*\); check the address") as error:
        far.read([0], ["image"])
    assert "\n" not in str(error.value)
    (address / "train-000000.tar").write_bytes((whole / "train-000000.tar").read_bytes()[:2000])
    with pytest.raises(
        ValueError,
        match=r"train-000000\.tar: sample .*ends before the sample does; run: medsass verify memory://ranges$",
    ):
        far.read(range(20), ["image"])


def test_a_tar_that_is_cut_off_is_named(broken: Path) -> None:
    reader = opened(broken)
    path = broken / damaged.FIRST
    last = int((reader.samples.tar == 0).sum()) - 1
    start, size = reader.samples.spans["image"][last].tolist()
    path.write_bytes(path.read_bytes()[: start + size - 1])
    reader.read(range(last), WANTED)
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole message is checked below
        reader.read([3, last], ["image"])
    key = reader.samples.key(last)
    said = f"{path}: sample {key}: the tar file ends before the sample does; run: medsass verify {broken}"
    assert str(error.value) == said


@pytest.mark.parametrize("what", WANTED)
@pytest.mark.parametrize("bit", [0, 5])
def test_a_member_that_is_overwritten_is_named(what: str, bit: int, broken: Path) -> None:
    reader = opened(broken)
    number = next(i for i in range(4, 20) if reader.samples.spans["mask.png"][i, 1] >= 0)
    start, _ = reader.samples.spans[what][number].tolist()
    damaged.damage(broken / damaged.FIRST, {start - 512 + bit: 1})
    others = [i for i in range(60) if i != number]
    reader.read(others, WANTED)
    name, key = reader.samples.name(number, what).decode(), reader.samples.key(number)
    expected = f"sample {key}: the tar file does not hold {name} where the index says; run: medsass verify {broken}"
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole message is checked below
        reader.read([number], WANTED)
    assert str(error.value) == f"{broken / damaged.FIRST}: {expected}"


def test_a_longer_name_is_refused(broken: Path) -> None:
    reader = opened(broken)
    start, _ = reader.samples.spans["image"][2].tolist()
    data = bytearray((broken / damaged.FIRST).read_bytes())
    data[start - 512 + len(reader.samples.name(2, "image"))] = ord("x")
    (broken / damaged.FIRST).write_bytes(data)
    with pytest.raises(ValueError, match="the tar file does not hold"):
        reader.read([2], ["image"])


def test_a_tar_that_is_gone_is_named(broken: Path) -> None:
    reader = opened(broken)
    (broken / damaged.SECOND).unlink()
    with pytest.raises(FileNotFoundError, match=damaged.SECOND):
        reader.read(range(60), WANTED)


def test_few_tar_files_stay_open_and_close_closes_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_OPEN", 3)
    folder = built.build(tmp_path / "many", splits={"train": 120})
    assert len(list(folder.glob("*.tar"))) == 12
    reader = opened(folder)
    for number in np.random.default_rng(0).permutation(120).tolist():
        reader.read([number], ["json"])
        assert 1 <= descriptors(folder) <= 3
    reader.close()
    assert descriptors(folder) == 0
    reader.read([5], ["json"])
    assert descriptors(folder) == 1
    del reader
    assert descriptors(folder) == 0
