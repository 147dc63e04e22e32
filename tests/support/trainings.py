"""Commands that train a tiny network, started in forks, and comparisons of the run directories that they leave."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from medsass.models import checkpoint
from tests.support import forks

OPTIONS: dict[str, object] = {"model": "unet-resnet18", "size": 16, "epochs": 2, "batch_size": 4}
OPTIONS |= {"polarity": "bright", "save_every": 1e-6, "device": "cpu", "threads": 1}
FILES = {"config.json", "metrics.jsonl", "tensorboard", "last.pt", "best.pt", "model.safetensors"}
FILES |= {"progress.png", "samples.png"}
_TIMES = {"seconds", "images_per_second", "waited"}


def command(shards: Path, run: Path, *words: str, **changes: object) -> list[object]:
    """Return the command line of a training that takes a second and saves after every step."""
    options = {**OPTIONS, **changes}
    if "--resume" in words:
        return ["train", shards, run, *words]
    return ["train", shards, run, *words, *(w for k, v in options.items() for w in ("--" + k.replace("_", "-"), v))]


def start(run: Path, *words: object, log: str = "log", **options: object) -> forks.Fork:
    """Start a command in a fork that logs beside `run`. options: of `forks.Server.start`."""
    return forks.server().start(run.with_name(log), words, **options)  # type: ignore[arg-type]


def history(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, without times and speeds."""
    return [_timeless(json.loads(line)) for line in (run / "metrics.jsonl").read_text().splitlines()]


def _timeless(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name not in _TIMES}


def assert_same(run: Path, other: Path) -> None:
    """Assert that both runs finished with the same files, weights, optimiser state and losses, bit for bit."""
    names = sorted(path.name for path in run.iterdir())
    assert names == sorted(path.name for path in other.iterdir())
    assert not [name for name in names if name.endswith(".part")]
    assert history(run) == history(other)
    for name in ("best.pt", "model.safetensors"):
        assert (run / name).read_bytes() == (other / name).read_bytes(), name
    last, expected = (checkpoint.load(one / "last.pt") for one in (run, other))
    for saved in (last, expected):
        saved["history"] = [_timeless(line) for line in saved["history"]]
    assert history(run) == last["history"]
    assert last.keys() == expected.keys()
    for name in last:
        assert _bits(last[name]) == _bits(expected[name]), name


def assert_whole(run: Path) -> None:
    """Assert that every file of a run that another program may read now is complete."""
    for name in ("last.pt", "best.pt"):
        if (run / name).exists():
            assert checkpoint.load(run / name)["model"]
    if (run / "model.safetensors").exists():
        assert load_file(run / "model.safetensors")
    for name in ("config.json", "metrics.jsonl"):
        if (run / name).exists():
            text = (run / name).read_text()
            assert [json.loads(line) for line in ([text] if name == "config.json" else text.splitlines())]


def _bits(value: Any) -> Any:
    """Return the value with tensors as bytes."""
    if isinstance(value, torch.Tensor):
        return value.dtype, value.shape, value.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    if isinstance(value, dict):
        return {key: _bits(item) for key, item in value.items()}
    return [_bits(item) for item in value] if isinstance(value, list | tuple) else value


def until(true: Callable[[], object], seconds: float = 60) -> None:
    """Wait until a condition is true. Raises `TimeoutError`."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.01)
