"""A run directory, which `train` writes and other commands read. Only this module names its files."""

import json
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

from medsass import __version__, config, files
from medsass.config import TrainConfig
from medsass.models import checkpoint

CONFIG, METRICS, TENSORBOARD = "config.json", "metrics.jsonl", "tensorboard"
LAST, BEST, WEIGHTS = "last.pt", "best.pt", checkpoint.WEIGHTS
PROGRESS, SAMPLES, PROFILE = "progress.png", "samples.png", "profile"
WANDB = "wandb"  # files of Weights & Biases
SCORES, EXPORT = "scores.json", "export"  # of evaluate --json and of export, if they write into the run

_OURS = {CONFIG, METRICS, TENSORBOARD, LAST, BEST, WEIGHTS, PROGRESS, SAMPLES, PROFILE, WANDB, SCORES, EXPORT}
# Facts that older runs did not store.
_OLDER = {
    "tile": 0,
    "level": 0,
    "depth": 8,
    "range": "minmax",
    "keeps": "network",
    "regime": None,
    "segments": True,
    "init": None,
}
# Options that may differ when a run is resumed.
_FREE = frozenset(
    [
        "run",
        "shards",
        "resume",
        "overwrite",
        "device",
        "threads",
        "compile",
        "graphs",
        "cache",
        "save_every",
        "profile",
        "wandb",
        "auto_batch",
    ]
)


def create(cfg: TrainConfig, facts: dict[str, Any]) -> None:
    """Make `cfg.run` a new run directory that holds config.json: the options, and `facts` such as the data's hash.

    With --overwrite the files of an old run are deleted, and no others. Raises `FileExistsError` where the folder holds
    anything else, or a run without --overwrite, and `ValueError` where it is an address.
    """
    check_local(cfg.run, "RUN")
    existing = files.own_content(cfg.run, "RUN", lambda name: name.removesuffix(".part") in _OURS, "a run's")
    begun = [path for path in existing if path.name != f"{CONFIG}.part"]  # left by a run that was killed at once
    if begun and not cfg.overwrite:
        raise FileExistsError(
            f"{cfg.run} already holds a run; go on with --resume, replace it with --overwrite, or choose another folder"
        )
    for path in sorted(existing, key=lambda path: path.name != CONFIG):  # first: without it the rest is no run
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    cfg.run.mkdir(parents=True, exist_ok=True)
    content = {"medsass": __version__, "train": config.plain(cfg), **facts}
    files.write(cfg.run / CONFIG, json.dumps(content, indent=1, default=str) + "\n")  # str: addresses


def stored(run: Path) -> tuple[TrainConfig, dict[str, Any]]:
    """Read the configuration and the facts of a run, with defaults for facts that older runs did not store.

    Raises `FileNotFoundError` or `ValueError` where `run` is not a run directory.
    """
    check_local(run, "RUN")
    path = run / CONFIG
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: {run} is not a run directory; make one with: medsass train SHARDS {run}"
        )
    try:
        facts = json.loads(path.read_text("utf-8"))
        known = {item.name for item in fields(TrainConfig)}
        values = {name: value for name, value in facts.pop("train").items() if name in known}
        for name in ("shards", "run", "init"):
            if values.get(name):
                values[name] = _place(values[name])
        old = TrainConfig(**{**values, "resume": False, "overwrite": False})
        return old, {**_OLDER, "labels_read": values.get("method") == "supervised", **facts}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is not the configuration of a run ({error}); train again") from error


def _place(text: str) -> Path:
    try:
        return files.location(text)
    except ImportError:  # evaluate and predict do not need the shards of the training
        return Path(text)


def check_resume(cfg: TrainConfig, facts: dict[str, Any]) -> None:
    """Raise `ValueError` naming each option of `cfg`, and each of the data's `facts`, that differs from the stored run."""
    old, old_facts = stored(cfg.run)
    names = [item.name for item in fields(cfg) if item.name not in _FREE]
    pairs = {name: (getattr(old, name), getattr(cfg, name)) for name in names}
    pairs |= {name: (old_facts.get(name), facts[name]) for name in facts}
    differ = [
        f"{name} ({_short(was)} in the run, {_short(now)} now)" for name, (was, now) in pairs.items() if was != now
    ]
    if differ:
        raise ValueError(
            f"{cfg.run} cannot be resumed with another configuration: {', '.join(differ)}; drop these options or start a new run"
        )


def check_local(path: Path, name: str) -> None:
    """Raise `ValueError` where `path`, given as the argument or option `name`, is an address."""
    if not files.is_local(path):
        raise ValueError(f"{path}: {name} must be on this machine; only shards are read from addresses")


def check_file(path: Path, name: str) -> None:
    """Raise `ValueError` or `OSError` where no file can be written to `path`, given as the option `name`."""
    check_local(path, name)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; {name} must name a file")
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"{path}: there is no folder {path.parent} for {name}; make it first, or name another file"
        )


def _short(value: Any) -> str:
    """Shorten a value for a message, such as a hash."""
    text = "not given" if value is None else str(value)
    return text if len(text) <= 20 else text[:12] + "…"


def write_metrics(run: Path, history: list[dict[str, Any]]) -> None:
    """Write metrics.jsonl, one line per epoch."""
    files.write(run / METRICS, "".join(json.dumps(line) + "\n" for line in history))
