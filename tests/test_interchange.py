"""Shards read by other programs, pixel by pixel: webdataset, Hugging Face datasets, GNU tar and DALI."""

import importlib
import io
import json
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
import webdataset
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader

from benchmarks.support.layouts import disks
from medsass.config import ShardConfig
from medsass.data.sharding import shard
from medsass.data.shards.manifest import load

Pairs = dict[str, tuple[NDArray[Any], NDArray[Any]]]  # image and mask (0 and 255) by key

ODD = ["a b", "it's", 'say "x"', "é", "img[1]", "-rf", "a.b.c"]  # names that a file of the source may have


def tars(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.glob("*.tar"))


def opened(data: bytes) -> NDArray[Any]:
    return np.asarray(Image.open(io.BytesIO(data)))


def made(folder: Path, suffix: str, count: int = 24) -> Path:
    """Write colour images of a format with their masks, the first ones under odd names."""
    generator = np.random.default_rng(1)
    for number in range(count):
        name = ODD[number] if number < len(ODD) else f"image_{number:02d}"
        labels = disks(generator, 60, 80)
        noise = generator.integers(0, 100, (60, 80, 3), np.uint8)
        image, mask = noise + (labels > 0)[..., None] * np.uint8(120), (labels > 0) * np.uint8(255)
        for kind, array, end in (("images", image, suffix), ("masks", mask, "png")):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(folder / kind / f"{name}.{end}")
    return folder


def truth(source: Path, folder: Path) -> Pairs:
    """Return the files of the source as Pillow reads them, by the key that each got."""
    pairs = {}
    for meta in (json.loads(data) for name, data in members(folder).items() if name.endswith(".json")):
        image = source / meta["source"]
        pairs[meta["key"]] = (opened(image.read_bytes()), opened((source / "masks" / f"{image.stem}.png").read_bytes()))
    assert len(pairs) == len(list((source / "images").iterdir()))
    return pairs


def members(folder: Path) -> dict[str, bytes]:
    """Return all files of all tar files, by Python's tarfile."""
    found = {}
    for path in tars(folder):
        with tarfile.open(path) as tar:
            found.update({member.name: tar.extractfile(member).read() for member in tar})  # type: ignore[union-attr]
    return found


def equal(found: Pairs, expected: Pairs) -> None:
    assert set(found) == set(expected)
    for key, pair in expected.items():
        for array, other in zip(found[key], pair, strict=True):
            np.testing.assert_array_equal(array, other)


@pytest.fixture(scope="module", params=["jpg", "png"])
def plain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Pairs]:
    """Extension of the images, folder of several shards, and what they must hold."""
    folder = tmp_path_factory.mktemp(request.param)
    source, out = made(folder / "source", request.param), folder / "out"
    shard.write(ShardConfig(source, out, images="images/*", masks="masks/*.png", max_shard_bytes=50_000))
    assert len(tars(out)) > 3
    return request.param, out, truth(source, out)


@pytest.fixture(scope="module")
def tiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Pairs]:
    """Tiles of one 16-bit slide of the whole range, which is stored in 8 bits, with masks."""
    folder = tmp_path_factory.mktemp("tiles")
    labels = disks(np.random.default_rng(2), 150, 200)
    plane = np.random.default_rng(3).integers(0, 256, (150, 200)).astype(np.uint16) * np.uint16(257)
    for kind in ("images", "masks"):
        (folder / "source" / kind).mkdir(parents=True)
    tifffile.imwrite(folder / "source" / "images" / "slide.tif", plane, tile=(64, 64))
    Image.fromarray((labels > 0) * np.uint8(255)).save(folder / "source" / "masks" / "slide.png")
    options: dict[str, Any] = {"images": "images/*", "masks": "masks/*", "tile": 64, "range": "type"}
    shard.write(ShardConfig(folder / "source", folder / "out", max_shard_bytes=20480, **options))
    pairs = {}
    for y in (0, 64, 86):
        for x in (0, 64, 128, 136):
            place = slice(y, y + 64), slice(x, x + 64)
            image, mask = (plane[place] // 257).astype(np.uint8), (labels[place] > 0) * np.uint8(255)
            pairs[f"slide-y{y:06d}-x{x:06d}"] = image, mask
    return folder / "out", pairs


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Pairs]:
    """16-bit shards."""
    folder, generator, pairs = tmp_path_factory.mktemp("deep"), np.random.default_rng(4), {}
    for kind in ("images", "masks"):
        (folder / "source" / kind).mkdir(parents=True)
    for number in range(9):
        image = generator.integers(0, 65536, (40, 50)).astype(np.uint16)
        mask = (disks(generator, 40, 50) > 0) * np.uint8(255)
        tifffile.imwrite(folder / "source" / "images" / f"cell{number}.tif", image)
        Image.fromarray(mask).save(folder / "source" / "masks" / f"cell{number}.png")
        pairs[f"cell{number}"] = image, mask
    options: dict[str, Any] = {"images": "images/*", "masks": "masks/*", "depth": 16, "max_shard_bytes": 20480}
    shard.write(ShardConfig(folder / "source", folder / "out", **options))
    return folder / "out", pairs


# The webdataset library


def by_webdataset(folder: Path, *decoder: Any) -> Iterator[dict[str, Any]]:
    # empty_check: the library asks for one sample per worker, which says nothing about the files
    yield from webdataset.WebDataset(tars(folder), shardshuffle=False, empty_check=False).decode(*decoder)


def test_webdataset_decodes_the_same_pixels(plain: tuple[str, Path, Pairs]) -> None:
    extension, folder, pairs = plain
    for decoder in ("pil", "rgb8"):
        found = {item["__key__"]: item for item in by_webdataset(folder, decoder)}
        gray = {key: np.asarray(item["mask.png"])[..., 0] for key, item in found.items()}  # both give RGB
        equal({key: (np.asarray(item[extension]), gray[key]) for key, item in found.items()}, pairs)
        assert all(item["json"]["key"] == key for key, item in found.items())  # a dict: its default for .json
        assert {item["json"]["height"] for item in found.values()} == {60}


def test_webdataset_decodes_tiles(tiled: tuple[Path, Pairs]) -> None:
    folder, pairs = tiled
    found = {item["__key__"]: item for item in by_webdataset(folder, "l8")}
    equal({key: (item["png"], item["mask.png"]) for key, item in found.items()}, pairs)
    for key, item in found.items():
        assert key == f"slide-y{item['json']['tile']['y']:06d}-x{item['json']['tile']['x']:06d}"


def test_webdataset_decodes_16_bit_with_pillow(deep: tuple[Path, Pairs]) -> None:
    folder, pairs = deep
    found = by_webdataset(folder, webdataset.handle_extension("png", opened))
    masks = {item["__key__"]: item for item in by_webdataset(folder, webdataset.handle_extension("mask.png", opened))}
    equal({item["__key__"]: (item["png"], masks[item["__key__"]]["mask.png"]) for item in found}, pairs)


def test_webdataset_feeds_a_data_loader_of_several_workers(plain: tuple[str, Path, Pairs]) -> None:
    extension, folder, pairs = plain
    dataset = webdataset.WebDataset(tars(folder), shardshuffle=False, empty_check=False).decode("rgb8")
    batches = DataLoader(dataset.to_tuple("__key__", extension, "mask.png").batched(5), batch_size=None, num_workers=2)
    rows = [row for keys, *arrays in batches for row in zip(keys, *(list(array) for array in arrays), strict=True)]
    assert len(rows) == len(pairs)
    equal({key: (np.asarray(image), np.asarray(mask)[..., 0]) for key, image, mask in rows}, pairs)


# Hugging Face datasets


@pytest.fixture
def hugging_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The library without a network, with its cache in a folder of this test."""
    variables = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    library = importlib.import_module("datasets")
    monkeypatch.setattr(library.config, "HF_HUB_OFFLINE", True)
    return library


def by_hugging_face(library: Any, folder: Path, cache: Path, streaming: bool) -> dict[str, dict[str, Any]]:
    rows = library.load_dataset(
        "webdataset", data_files=tars(folder), split="train", streaming=streaming, cache_dir=str(cache)
    )
    return {row["__key__"]: row for row in rows}


@pytest.mark.parametrize("streaming", [False, True])
def test_hugging_face_reads_the_same_pixels(
    streaming: bool, plain: tuple[str, Path, Pairs], hugging_face: Any, tmp_path: Path
) -> None:
    extension, folder, pairs = plain
    found = by_hugging_face(hugging_face, folder, tmp_path, streaming)
    equal({key: (np.asarray(row[extension]), np.asarray(row["mask.png"])) for key, row in found.items()}, pairs)
    files = members(folder)
    for key, row in found.items():
        meta = json.loads(files[f"{key}.json"])
        assert {name: row["json"][name] for name in meta} == meta


@pytest.mark.parametrize("streaming", [False, True])
def test_hugging_face_reads_tiles_and_16_bit(
    streaming: bool, tiled: tuple[Path, Pairs], deep: tuple[Path, Pairs], hugging_face: Any, tmp_path: Path
) -> None:
    for name, (folder, pairs) in {"tiles": tiled, "deep": deep}.items():
        found = by_hugging_face(hugging_face, folder, tmp_path / name, streaming)
        equal({key: (np.asarray(row["png"]), np.asarray(row["mask.png"])) for key, row in found.items()}, pairs)
    assert np.asarray(found["cell0"]["png"]).dtype == np.uint16


def test_hugging_face_reads_sources_of_several_kinds_encoded_alike(hugging_face: Any, tmp_path: Path) -> None:
    """It wants files of the same types in each sample: --encode says which. JSON fields that only some have are fine."""
    generator, expected = np.random.default_rng(6), {}
    (tmp_path / "source").mkdir()
    for number in range(12):
        image, key = generator.integers(0, 256, (20, 30), np.uint8), f"photo{number}"
        if number % 2:
            image[0, :2] = 0, 255
            tifffile.imwrite(tmp_path / "source" / f"{key}.tif", image.astype(np.uint16) * np.uint16(257))
        else:
            Image.fromarray(image).save(tmp_path / "source" / f"{key}.jpg")
        expected[key] = image if number % 2 else np.asarray(Image.open(tmp_path / "source" / f"{key}.jpg"))
    shard.write(ShardConfig(tmp_path / "source", tmp_path / "out", encode="png"))
    for streaming in (False, True):
        found = by_hugging_face(hugging_face, tmp_path / "out", tmp_path / "cache", streaming)
        assert set(found) == set(expected)
        for key, image in expected.items():
            np.testing.assert_array_equal(np.asarray(found[key]["png"]), image)


# tar


def test_gnu_tar_lists_and_unpacks_the_same_files(plain: tuple[str, Path, Pairs], tmp_path: Path) -> None:
    extension, folder, pairs = plain
    names: list[str] = []
    for path in tars(folder):
        listed = subprocess.run(["tar", "tf", path], capture_output=True, text=True, check=True)
        unpacked = subprocess.run(["tar", "xf", path, "-C", str(tmp_path)], capture_output=True, text=True, check=True)
        assert listed.stderr == unpacked.stderr == ""
        names += listed.stdout.splitlines()
    expected = members(folder)
    assert names == list(expected)
    assert len(names) == len(set(map(str.lower, names))) == 3 * len(pairs)
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}\.(jpg|png|mask\.png|json)", name) for name in names)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == expected
    for key, (image, _) in pairs.items():
        np.testing.assert_array_equal(opened((tmp_path / f"{key}.{extension}").read_bytes()), image)


# DALI without medsass


def test_dali_decodes_16_bit_exactly(deep: tuple[Path, Pairs]) -> None:
    folder, pairs = deep
    dali, fn, types = (importlib.import_module(f"nvidia.dali{name}") for name in ("", ".fn", ".types"))
    paths = tars(folder)

    @dali.pipeline_def(batch_size=len(pairs), num_threads=1, device_id=None)  # type: ignore[untyped-decorator]
    def define() -> Any:
        indices = [path.replace(".tar", ".idx") for path in paths]
        image, mask, meta = fn.readers.webdataset(paths=paths, index_paths=indices, ext=["png", "mask.png", "json"])
        image = fn.decoders.image(image, output_type=types.GRAY, dtype=types.UINT16)
        return image, fn.decoders.image(mask, output_type=types.GRAY), meta

    images, masks, metas = define().run()
    found = {}
    for i in range(len(pairs)):
        key = json.loads(bytes(np.asarray(metas[i])))["key"]
        found[key] = np.asarray(images[i])[..., 0], np.asarray(masks[i])[..., 0]
    assert found["cell0"][0].dtype == np.uint16
    equal(found, pairs)


def test_opencv_reads_16_bit_exactly(deep: tuple[Path, Pairs]) -> None:
    folder, pairs = deep
    assert load(folder).options.depth == 16
    files = members(folder)
    for key, (image, _) in pairs.items():
        data = np.frombuffer(files[f"{key}.png"], np.uint8)
        np.testing.assert_array_equal(np.asarray(cv2.imdecode(data, cv2.IMREAD_UNCHANGED)), image)
