"""A shard folder of two splits, and functions that damage its bytes or its manifest."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import wds2idx

from medsass.data.shards.damage import Problem
from medsass.data.shards.manifest import Manifest, Split
from medsass.data.shards.tar import Member, ShardWriter

SPLITS = {"train": 60, "val": 9}
MAX_BYTES = 81_920
FIRST, SECOND = "train-000000.tar", "train-000001.tar"


def image(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (16 + seed % 7, 24, 3), np.uint8)
    return cv2.imencode(".png" if seed % 3 else ".jpg", pixels)[1].tobytes()


def sample(key: str, seed: int) -> tuple[dict[str, bytes], dict[str, Any]]:
    meta: dict[str, Any] = {"key": key, "width": 24, "height": 16 + seed % 7, "class": ["a", "b", None][seed % 3]}
    content = {"png" if seed % 3 else "jpg": image(seed)}
    if seed % 4:
        mask = np.zeros((meta["height"], 24), np.uint8)
        mask[: seed % 16] = 255
        content["mask.png"] = cv2.imencode(".png", mask)[1].tobytes()
        meta["mask_coverage"] = round(float((mask > 0).mean()), 6)
    content["json"] = json.dumps(meta, sort_keys=True).encode()
    return content, meta


def build(folder: Path, change: Callable[[str, dict[str, bytes]], dict[str, bytes]] | None = None) -> None:
    """Write a shard folder of two splits. The manifest counts what `sample` returns, even if `change` alters it."""
    splits = {}
    for name, count in SPLITS.items():
        writer, shards, metas, formats = ShardWriter(folder, name, MAX_BYTES), [], [], []
        for seed in range(count):
            content, meta = sample(f"{name}_{seed:04d}", seed)
            shards.append(writer.add(meta["key"], change(meta["key"], content) if change else content))
            metas.append(meta)
            formats.append(next(iter(content)))
        shards.append(writer.close())
        sizes = [f"{meta['width']}x{meta['height']}" for meta in metas]
        labels = [meta["class"] for meta in metas if meta["class"]]
        covers = [meta["mask_coverage"] for meta in metas if "mask_coverage" in meta]
        counts = [{x: values.count(x) for x in values} for values in (labels, sizes, formats)]
        mean = round(sum(covers) / len(covers), 6)
        splits[name] = Split([item for item in shards if item], count, len(covers), counts[0], mean, *counts[1:])
    (folder / "rejected.jsonl").write_text('{"file": "a"}\n{"file": "b"}\n')
    Manifest({"name": "some", "polarity": "bright"}, splits, rejected=2).save(folder, sealed=not change)


def members(path: Path) -> list[Member]:
    """Return the members of a tar file by DALI's own index writer."""
    with tempfile.TemporaryDirectory() as folder, wds2idx.IndexCreator(path, f"{folder}/idx", verbose=False) as creator:
        return [Member(name, offset, size) for offset, name, size in creator._get_data_tar()]


def damage(path: Path, changes: dict[int, int]) -> None:
    """Flip bits of the bytes at these offsets."""
    data = bytearray(path.read_bytes())
    for offset, bits in changes.items():
        data[offset] ^= bits
    path.write_bytes(data)


def edit(folder: Path, change: Callable[[Any], Any]) -> None:
    """Change the manifest."""
    path = folder / "manifest.json"
    table = json.loads(path.read_text())
    change(table)
    path.write_text(json.dumps(table))


def harmed(held: list[Member], *offsets: int) -> tuple[str, ...]:
    """Return the keys of the samples that lie in the same blocks of 4096 bytes as the bytes at `offsets`."""
    blocks = {offset // 4096 for offset in offsets}
    return tuple(dict.fromkeys(
        one.key for one in held if blocks & set(range((one.offset - 512) // 4096, (one.end - 1) // 4096 + 1))
    ))  # fmt: skip


def places(problems: list[Problem]) -> list[tuple[str, tuple[str, ...]]]:
    return [(problem.file, problem.samples) for problem in problems]
