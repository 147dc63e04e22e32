"""Datasets in tar files, written by webdataset and by tarfile."""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import webdataset
from PIL import Image

from medsass.config import ShardConfig
from medsass.data.sharding import shard
from medsass.data.shards.manifest import Manifest
from tests.support.faults import stored

RNG = np.random.default_rng(0)


def encoded(form: str, array: np.ndarray | None = None) -> bytes:
    """Return an image of 24 x 16 random pixels, or of `array`, as a file."""
    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (16, 24), np.uint8) if array is None else array).save(buffer, form)
    return buffer.getvalue()


def square(high: int = 255) -> np.ndarray:
    mask = np.zeros((16, 24), np.uint8)
    mask[4:9, 5:12] = high
    return mask


def pack(path: Path, content: Mapping[str, bytes] | Sequence[tuple[str, bytes]]) -> Path:
    """Write a tar file by tarfile, names as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as opened:
        for name, data in content.items() if isinstance(content, Mapping) else content:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            opened.addfile(info, io.BytesIO(data))
    return path


def dataset(folder: Path, splits: Mapping[str, int], masks: bool = True) -> dict[str, dict[str, bytes]]:
    """Write one tar file a split by webdataset's writer, and return the samples as webdataset reads them, by tar file and key."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in splits.items():
        with webdataset.TarWriter(str(folder / f"{split}-000000.tar")) as sink:
            for i in range(count):
                sample = {"__key__": f"{split}{i:03d}", "jpg": encoded("JPEG"), "cls": i % 2, "json": {"i": i}}
                sink.write(sample | ({"mask.png": encoded("PNG", square())} if masks else {}))
    read = webdataset.WebDataset(sorted(map(str, folder.glob("*.tar"))), shardshuffle=False, empty_check=False)
    return {f"{Path(sample['__url__']).name}/{sample['__key__']}": sample for sample in read}


def made(source: Path, out: Path, **options: object) -> Manifest:
    return shard.write(ShardConfig(source, out, **{"recipe": "webdataset", "workers": 1, **options}))  # type: ignore[arg-type]


def sources(out: Path) -> dict[str, str]:
    """Return the key of each image by its path in the source."""
    return {json.loads(sample["json"])["source"]: key for key, sample in stored(out).items()}
