"""A run directory: what `train` writes and what `evaluate` and `predict` read. Its files are named here and nowhere else."""

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
WANDB = "wandb"  # what Weights & Biases keeps there
SCORES, EXPORT = "scores.json", "export"  # of evaluate --json and of export, where they are asked to write into the run

_OURS = {CONFIG, METRICS, TENSORBOARD, LAST, BEST, WEIGHTS, PROGRESS, SAMPLES, PROFILE, WANDB, SCORES, EXPORT}
# Facts that older runs did not store.
_OLDER = {"tile": 0, "level": 0, "depth": 8, "range": "minmax", "keeps": "network", "regime": None,
          "segments": True, "init": None}  # fmt: skip
# May differ when a run is resumed.
_FREE = {"run", "shards", "resume", "overwrite", "device", "threads", "compile", "graphs", "cache", "save_every", "profile",
         "wandb", "auto_batch"}  # fmt: skip


def create(cfg: TrainConfig, facts: dict[str, Any]) -> None:
    """Make `cfg.run` a new run directory with its config.json: the options, and `facts` such as the data's hash.

    Raises `FileExistsError` where it holds anything, unless --overwrite, which deletes what a run writes and no more,
    and `ValueError` where it is an address.
    """
    check_local(cfg.run, "RUN")
    existing = sorted(cfg.run.iterdir()) if cfg.run.is_dir() else []
    if cfg.run.exists() and not cfg.run.is_dir():
        raise FileExistsError(f"{cfg.run} is a file; RUN must be a folder")
    other = [path.name for path in existing if path.name.removesuffix(".part") not in _OURS]
    if other:
        raise FileExistsError(f"{cfg.run} holds files that are not a run's, such as {other[0]}; choose another folder")
    begun = [path for path in existing if path.name != f"{CONFIG}.part"]  # left alone by a run that was killed at once
    if begun and not cfg.overwrite:
        raise FileExistsError(
            f"{cfg.run} already holds a run; go on with --resume, replace it with --overwrite, or choose another folder"
        )
    for path in sorted(existing, key=lambda path: path.name != CONFIG):  # without it the rest is no run
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    cfg.run.mkdir(parents=True, exist_ok=True)
    content = {"medsass": __version__, "train": config.plain(cfg), **facts}
    files.write(cfg.run / CONFIG, json.dumps(content, indent=1, default=str) + "\n")  # str: addresses


def stored(run: Path) -> tuple[TrainConfig, dict[str, Any]]:
    """Configuration and facts of an existing run, with what an older one left out. Raises `FileNotFoundError` or `ValueError` where `run` is not one."""
    check_local(run, "RUN")
    path = run / CONFIG
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: {run} is not a run directory; make one with: medsass train SHARDS {run}"
        )
    try:
        facts = json.loads(path.read_text("utf-8"))
        known = {item.name: item for item in fields(TrainConfig)}
        values = {name: value for name, value in facts.pop("train").items() if name in known}
        paths = {name: _place(values[name]) for name in ("shards", "run", "init") if values.get(name)}
        return TrainConfig(**{**values, **paths, "resume": False, "overwrite": False}), {
            **_OLDER, "labels_read": values.get("method") == "supervised", **facts
        }  # fmt: skip
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is not the configuration of a run ({error}); train again") from error


def _place(text: str) -> Path:
    try:
        return files.location(text)
    except ImportError:  # evaluate and predict do not read the shards that the run was trained on
        return Path(text)


def check_resume(cfg: TrainConfig, facts: dict[str, Any]) -> None:
    """Raise `ValueError` naming each field in which `cfg` or the data's `facts` differ from the stored run's."""
    old, old_facts = stored(cfg.run)
    pairs = {
        name: (getattr(old, name), getattr(cfg, name))
        for name in (item.name for item in fields(cfg))
        if name not in _FREE
    }
    pairs |= {name: (old_facts.get(name), facts[name]) for name in facts}
    differ = [
        f"{name} ({_short(old)} in the run, {_short(now)} now)" for name, (old, now) in pairs.items() if old != now
    ]
    if differ:
        raise ValueError(
            f"{cfg.run} cannot be resumed with another configuration: {', '.join(differ)}; drop these options or start a new run"
        )


def check_local(path: Path, name: str) -> None:
    """Raise `ValueError` where `path`, the user's argument or option `name`, is an address and not on this machine."""
    if not files.is_local(path):
        raise ValueError(f"{path}: {name} must be on this machine; only shards are read from addresses")


def check_file(path: Path, name: str) -> None:
    """Raise `ValueError` or `OSError` where no file can be written to `path`, the user's option `name`."""
    check_local(path, name)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; {name} must name a file")
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"{path}: there is no folder {path.parent} for {name}; make it first, or name another file"
        )


def _short(value: Any) -> str:
    """A value for a message; of a hash the beginning is enough."""
    text = "not given" if value is None else str(value)
    return text if len(text) <= 20 else text[:12] + "…"


def write_metrics(run: Path, history: list[dict[str, Any]]) -> None:
    """Write metrics.jsonl, a line an epoch."""
    files.write(run / METRICS, "".join(json.dumps(line) + "\n" for line in history))
