"""A run directory, which `train` writes and other commands read. Only this module names its files."""

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import NonNegativeInt
from pydantic.dataclasses import dataclass

from medsass import config, files, temporary
from medsass.config import TrainConfig, schema
from medsass.config.options import Arithmetic, Kept, Polarity, Range, Reading

CONFIG, METRICS, TENSORBOARD = "config.json", "metrics.jsonl", "tensorboard"
LAST, BEST, WEIGHTS = "last.pt", "best.pt", config.options.WEIGHTS
PROGRESS, SAMPLES, PROFILE = "progress.png", "samples.png", "profile"
WANDB = "wandb"  # files of Weights & Biases
SCORES, EXPORT = "scores.json", "export"  # of evaluate --json and of export, if they write into the run

_OURS = {CONFIG, METRICS, TENSORBOARD, LAST, BEST, WEIGHTS, PROGRESS, SAMPLES, PROFILE, WANDB, SCORES, EXPORT}
# Options that may differ when a run is resumed.
_FREE = {"run", "shards", "resume", "overwrite", "device", "threads", "compile", "graphs", "cache", "save_every"}
_FREE |= {"profile", "wandb", "auto_batch"}
# Options that send something, read elsewhere or fill memory and disk: a run may be somebody else's, so that its files do not
# set them.
_GIVEN = ("wandb", "init", "cache", "profile")


@dataclass(frozen=True, config=schema.CLOSED)
class Origin:
    """The run whose weights a training started from (--init): its method, what was taken, and whether labels had a part."""

    method: str
    takes: Kept
    labels_read: bool


@dataclass(frozen=True, kw_only=True, config=schema.CLOSED)
class Facts(Reading):
    """The content of config.json besides the options. Defaults are for facts that older runs did not store.

    Args:
        medsass: the version that trained.
        polarity: which side of the threshold was foreground.
        shards_sha256: hash of the shards' manifest.
        keeps: the part of the network whose weights the run holds.
        segments: whether the method trained a network that segments.
        labels_read: whether masks had a part, in this training or in the one that it started from.
        init: the run that it started from.
        regime: learning rate, schedule and patience, as `Regime` names them.
        precision: arithmetic of the network.
        tile, level, depth, range, channels, frames, axis, every, window: the options of that name of the shards.
    """

    medsass: str
    polarity: Polarity
    device: Literal["cpu", "cuda", "unknown"] = "unknown"
    shards_sha256: str
    keeps: Kept = "network"
    segments: bool = True
    labels_read: bool | None = None
    init: Origin | None = None
    regime: dict[str, bool | int | float | str | list[float] | None] | None = None
    precision: Arithmetic | None = None
    tile: NonNegativeInt = 0
    level: NonNegativeInt = 0
    depth: Literal[8, 16] = 8
    range: Range = "minmax"


@dataclass(frozen=True, kw_only=True, config=schema.CLOSED)
class _Content(Facts):
    train: dict[str, Any]


def create(cfg: TrainConfig, facts: Facts) -> None:
    """Make `cfg.run` a new run directory that holds config.json: the options and the `facts`.

    With --overwrite the files of an old run are deleted, and no others. Raises as `check_new` does.
    """
    for path in sorted(check_new(cfg), key=lambda path: path.name != CONFIG):  # first: without it the rest is no run
        temporary.remove(path)
    cfg.run.mkdir(parents=True, exist_ok=True)
    content = {"medsass": facts.medsass, "train": config.plain(cfg), **asdict(facts)}
    files.write(cfg.run / CONFIG, json.dumps(content, indent=1, default=str) + "\n")  # str: addresses


def check_new(cfg: TrainConfig) -> list[Path]:
    """Return the files of an old run in `cfg.run`, which a new one replaces. Raises `FileExistsError` where the folder holds
    anything else, or a run without --overwrite, and `ValueError` where it is an address.
    """
    check_local(cfg.run, "RUN")
    held = files.own_content(
        cfg.run, "RUN", lambda name: name.removesuffix(".part") in _OURS or temporary.is_ours(name), "a run's"
    )
    existing = [path for path in held if not temporary.is_ours(path.name)]  # those a run leaves that was killed at once
    files.refuse_links(*existing)
    if existing and not cfg.overwrite:
        raise FileExistsError(
            f"{cfg.run} already holds a run; go on with --resume, replace it with --overwrite, or choose another folder"
        )
    return existing


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the lock of a run directory, which is made where it does not exist. Raises `FileExistsError` where another training
    holds it, or where a link in the directory would lead what is written elsewhere.
    """
    new = not run.exists()
    run.mkdir(parents=True, exist_ok=True)
    try:
        with temporary.locked(run, str(run), "medsass train"):
            files.refuse_links(*run.iterdir())
            yield
    finally:
        with suppress(OSError):  # unless it is empty
            run.rmdir() if new else None


def stored(run: Path) -> tuple[TrainConfig, Facts]:
    """Read the configuration and the facts of a run.

    Raises `FileNotFoundError` or `ValueError` where `run` is not a run directory.
    """
    check_local(run, "RUN")
    path = run / CONFIG
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: {run} is not a run directory; make one with: medsass train SHARDS {run}"
        )
    try:
        content = schema.check_json(_Content, files.read(path))
        known = {item.name for item in fields(TrainConfig)}  # options come and go from version to version
        values = {name: value for name, value in content.train.items() if name in known}
        for name in {"shards", "run", "init"} & values.keys():
            if isinstance(values[name], str):
                values[name] = Path(values[name])  # also an address: to open some is to send something
            elif name != "init" or values[name] is not None:
                raise ValueError(f"--{name} must be a path; got {values[name]!r}")
        old = TrainConfig(**{**values, "resume": False, "overwrite": False})
    except ValueError as error:
        raise ValueError(f"{path} is not the configuration of a run ({error}); train again") from error
    if content.labels_read is None:
        content = replace(content, labels_read=old.method == "supervised")
    return old, content


def resumed(run: Path, given: Collection[str]) -> tuple[dict[str, Any], str]:
    """Return the options with which a run is resumed where the user does not give others, and what to tell the user: which of
    `_GIVEN` the run had, that are not among those `given` and have their defaults.
    """
    old, _ = stored(run)
    defaults = {item.name: item.default for item in fields(old) if item.name in _GIVEN}
    begun = {"init"} if (run / LAST).is_file() else set()  # whose weights the checkpoint replaces
    dropped = [
        f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}")
        for name, default in defaults.items()
        if name not in {*given, *begun} and (value := getattr(old, name)) != default
    ]
    note = ""
    if dropped:
        them = f"{'it' if len(dropped) == 1 else 'them'}"
        note = f"{run} had {' '.join(dropped)}: not taken from its files; give {them} again to go on with {them}"
    return {**{item.name: getattr(old, item.name) for item in fields(old)}, **defaults}, note


def check_weights(run: Path) -> tuple[TrainConfig, Facts]:
    """Return `stored`. Raises as it does, and `FileNotFoundError` where no epoch was finished."""
    found, path = stored(run), run / WEIGHTS
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: no epoch of this run was finished; start it with medsass train")
    return found


def check_resume(cfg: TrainConfig, facts: Facts | None = None) -> None:
    """Raise `ValueError` naming each option of `cfg` and each of the `facts`, if known, that differs from the stored run."""
    old, old_facts = stored(cfg.run)
    begun = {"init"} if cfg.init is None and (cfg.run / LAST).is_file() else set()
    names = [item.name for item in fields(cfg) if item.name not in {*_FREE, *begun}]
    pairs: dict[str, tuple[Any, Any]] = {name: (getattr(old, name), getattr(cfg, name)) for name in names}
    names = [item.name for item in fields(facts) if item.name != "medsass"] if facts else []
    pairs |= {name: (getattr(old_facts, name), getattr(facts, name)) for name in names}
    differ = [
        f"{name} ({_short(was)} in the run, {_short(now)} now)" for name, (was, now) in pairs.items() if was != now
    ]
    if differ:
        raise ValueError(
            f"{cfg.run} cannot be resumed with another configuration: {', '.join(differ)}; drop these options or give the run's, or start a new run"
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
