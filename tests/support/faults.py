"""Runs `medsass shard` in tests of faults, interrupts it, and reads what it wrote."""

import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import webdataset
from click.testing import CliRunner
from numpy.typing import NDArray

from medsass.cli import main
from medsass.config import ShardConfig
from medsass.data.sharding import shard
from medsass.data.shards import tar
from medsass.data.shards.manifest import REJECTED, Manifest, load

OPTIONS: dict[str, Any] = {"images": "images/*", "masks": "masks/*", "max_shard_bytes": 20_480}


def config(source: Path, out: Path, **changes: object) -> ShardConfig:
    return ShardConfig(source, out, **{**OPTIONS, **changes})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def stored(folder: Path) -> dict[str, dict[str, bytes]]:
    """Return samples by key, as the webdataset library reads them."""
    paths = [str(folder / item.file) for split in load(folder).splits.values() for item in split.shards]
    dataset = webdataset.WebDataset(paths, shardshuffle=False, empty_check=False)
    return {sample["__key__"]: {k: v for k, v in sample.items() if k[0] != "_"} for sample in dataset}


def by_source(folder: Path) -> dict[str, str]:
    """Return the key of each source file."""
    return {json.loads(content["json"])["source"]: key for key, content in stored(folder).items()}


def decoded(data: bytes) -> NDArray[Any]:
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED))


def reasons(folder: Path) -> dict[str, str]:
    """Return the reason of each file in rejected.jsonl, which must name each file once."""
    lines = [json.loads(line) for line in (folder / REJECTED).read_text("utf-8").splitlines()]
    assert load(folder).rejected == len(lines) == len({item["file"] for item in lines})
    return {item["file"]: item["reason"] for item in lines}


def command(*words: object) -> tuple[int, str]:
    """Run `medsass shard` and return its exit code and error output, at most one line."""
    done = CliRunner().invoke(main, ["shard", *map(str, words)])
    assert not done.exception or isinstance(done.exception, SystemExit), done.exc_info
    assert done.stderr.count("\n") <= 1
    return done.exit_code, done.stderr


def part(out: Path) -> Path:
    return out.with_name(f"{out.name}.part")


def interrupt(source: Path, out: Path, **changes: object) -> None:
    """Run `medsass shard` and interrupt it, as Ctrl-C does, after its first batch."""

    def stop(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shard.write(config(source, out, **changes), stop)
    assert list(part(out).glob("*.tar"))


def one_split(folder: Path, frames: str = "all") -> str:
    """Write a recipe that takes all files, and return its path."""
    path = folder / "all.toml"
    path.write_text(f'name = "all"\n[[images]]\npath = "**/*"\nframes = "{frames}"\n[splits]\ntrain = 1.0\n')
    return str(path)


def samples(folder: Path, manifest: Manifest) -> dict[str, dict[str, bytes]]:
    """Return the files of every sample in a shard folder, by key and extension."""
    files = [folder / item.file for split in manifest.splits.values() for item in split.shards]
    return {key: content for path in files for key, content in tar.read(path)}


def open_files(folder: Path) -> list[str]:
    """Return the files in a folder that this process has open."""
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return [name for link in links if (name := os.path.realpath(link)).startswith(f"{folder}/")]
