"""Builds shard folders by tarfile, OpenCV and imagecodecs alone, so that tests of readers need none of the writers."""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import cv2
import imagecodecs
import numpy as np

from medsass.data.shards.manifest import Manifest, Options, Split
from medsass.data.shards.tar import Shard

SPLITS = {"train": 20, "val": 6, "test": 6}
SIZE = (40, 48)  # height, width


def sample(key: str, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the image, (H, W, 3) uint8 or (H, W) uint16, and the mask (H, W) uint8 in {0, 1} of a key.

    They show bright discs on a dark, noisy ground. 16-bit images use a tenth of their range, as microscopes do.
    """
    rng = np.random.default_rng(list(key.encode()))
    mask = np.zeros(SIZE, np.uint8)
    for _ in range(3):
        centre = int(rng.integers(6, SIZE[1] - 6)), int(rng.integers(6, SIZE[0] - 6))
        cv2.circle(mask, centre, int(rng.integers(3, 8)), 1, -1)
    bright, dark, noise = (170, 40, 8) if depth == 8 else (rng.integers(3000, 6500), 300, 60)
    gray = np.where(mask > 0, bright, dark) + rng.normal(0, noise, SIZE)
    if depth == 16:
        return gray.clip(0, 65535).astype(np.uint16), mask
    return np.repeat(gray.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2), mask


def build(folder: Path, depth: int = 8, extension: str = "png", splits: Mapping[str, int] = SPLITS) -> Path:
    """Fill `folder` with shards of `sample`, keys `<split>_<number>`, at most ten samples a tar file, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    table = {}
    for name, count in splits.items():
        keys = [f"{name}_{i:03d}" for i in range(count)]
        parts = [keys[start : start + 10] for start in range(0, count, 10)]
        shards = [_tar(folder, f"{name}-{i:06d}", part, depth, extension) for i, part in enumerate(parts)]
        table[name] = Split(shards, samples=count, masks=count)
    options = Options(depth=depth, tile=64, level=1, axis="x")
    Manifest({"name": "built", "polarity": "bright"}, table, options).save(folder)
    return folder


def _tar(folder: Path, stem: str, keys: list[str], depth: int, extension: str) -> Shard:
    buffer, lines = io.BytesIO(), []
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as opened:
        for key in keys:
            line = []
            for name, data in _files(key, depth, extension).items():
                info = tarfile.TarInfo(f"{key}.{name}")
                info.size = len(data)
                line.append(f"{name} {buffer.tell() + tarfile.BLOCKSIZE} {len(data)} {info.name}")
                opened.addfile(info, io.BytesIO(data))
            lines.append(" ".join(line))
    (folder / f"{stem}.tar").write_bytes(buffer.getvalue())
    (folder / f"{stem}.idx").write_text("".join(f"{line}\n" for line in [f"v1.2 {len(keys)}", *lines]))
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    return Shard(f"{stem}.tar", len(keys), len(buffer.getvalue()), digest)


def _files(key: str, depth: int, extension: str) -> dict[str, bytes]:
    image, mask = sample(key, depth)
    png = cv2.imencode(".png", image)[1].tobytes()
    jp2 = imagecodecs.jpeg2k_encode(image, level=0, reversible=True, codecformat="jp2")
    text = json.dumps({"key": key, "source": f"{key}.png", "width": SIZE[1], "height": SIZE[0]})
    return {
        extension: png if extension == "png" else bytes(jp2),
        "mask.png": cv2.imencode(".png", mask * 255)[1].tobytes(),
        "json": text.encode(),
    }
