"""Mutated files of strangers, given to the commands that read them: `python -m tests.support.fuzz FOLDER SECONDS INPUT...`.

An input is `kind:seed:number`, or `kind:seed:0-9` for ten of them and, until the seconds are over, for those after. It follows
from these three alone. This process may die of it: it limits its memory, builds a small shard folder, a run and tables in
FOLDER, mutates one file at a time, and prints a JSON line for each answer that is none: a traceback, a hang, a file elsewhere,
control characters.
"""

import contextlib
import io
import itertools
import json
import os
import random
import resource
import shutil
import signal
import sys
import tarfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from click.testing import CliRunner

from medsass import errors
from medsass.cli import main as medsass
from medsass.data.loading.loader import Loader, LoaderConfig
from medsass.runs.training.train import train
from medsass.text import printable
from tests.conftest import tiny
from tests.support import built, hostile, mutants, networks

MEMORY = 4 << 30  # bytes that this process may take
LONGEST = 60.0  # seconds for one input
RECIPE = """name = "some"
polarity = "auto"
refine = "border"
[[images]]
path = "images/*.png"
masks = "masks/{stem}.png"
[masks]
foreground = "nonzero"
[classes]
pattern = "(?P<class>[a-z]+)"
[groups]
patient = "(?P<group>p[0-9])"
[splits]
train = 0.6
val = 0.2
test = 0.2
"""
GRID = """[datasets.some]
shards = "shards"
[defaults]
epochs = 2
size = 32
[[runs]]
dataset = "some"
method = ["medsass", "supervised"]
seed = [0, 1]
"""
OPTIONS = 'labels = "otsu"\npolarity = "bright"\nrefine = "blur:1,border"\nepochs = 2\nlr = 0.001\nchosen_on = "it"\n'


def build(good: Path) -> None:
    """Fill a folder with everything that is mutated."""
    shards = built.build(good / "shards", splits={"train": 8, "val": 2, "test": 2})
    train(tiny(shards, good / "run", epochs=1, batch_size=4))
    for kind in ("images", "masks"):
        (good / "source" / kind).mkdir(parents=True)
        for number in range(6):
            pixels = np.full((16, 16), 40 * (kind == "masks" and number % 2), np.uint8)
            pixels[4:9, 4 + number] = 200
            cv2.imwrite(str(good / "source" / kind / f"p{number % 3}_{number}.png"), pixels)
    with tarfile.open(good / "foreign.tar", "w", format=tarfile.PAX_FORMAT) as opened:
        for path in sorted((good / "source/images").iterdir()):
            opened.add(path, f"a/{path.name}")
    for name, text in {"recipe.toml": RECIPE, "grid.toml": GRID, "labels.toml": OPTIONS}.items():
        (good / name).write_text(text)


def batches(folder: Path) -> None:
    """Read every batch of a training split."""
    loader = Loader(LoaderConfig(folder / "shards", "train", 4, 32, device="cpu", threads=1))
    for _ in loader.epoch(0):
        pass


COMMANDS: dict[str, tuple[str, list[str | Callable[[Path], None]]]] = {
    "manifest": ("shards/manifest.json", ["verify shards", "info shards", "label shards out", batches]),
    "index": ("shards/train-000000.idx", ["verify shards", "label shards out", batches]),
    "tar": ("shards/train-000000.tar", ["verify shards", "info shards --preview out.png", "label shards out", batches]),
    "config": ("run/config.json", ["predict run source/images/p0_0.png --out out", "evaluate run shards"]),
    "weights": ("run/model.safetensors", ["predict run source/images/p0_0.png --out out"]),
    "checkpoint": ("run/last.pt", ["train shards run --resume"]),
    "recipe": ("recipe.toml", ["shard source out --recipe recipe.toml --dry-run"]),
    "grid": ("grid.toml", ["experiment grid.toml out --dry-run"]),
    "options": ("labels.toml", ["train nowhere out --config labels.toml"]),
    "foreign": ("foreign.tar", ["shard foreign.tar out --recipe webdataset --dry-run"]),
}  # fmt: skip
OUTPUTS = {"out", "out.png"}


def mutated(data: bytes, name: str, rng: random.Random) -> bytes:
    """Change a file: its values where it is text, else its bytes."""
    table = None
    if name.endswith(".json") and rng.random() < 0.7:
        table = json.loads(data)
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            _change(table, rng)
        return json.dumps(table).encode()
    for _ in range(rng.choice((1, 1, 2, 5))):
        if name.endswith((".toml", ".idx", ".json")) and rng.random() < 0.7:
            data = _words(data, rng)
        else:
            data = rng.choice((mutants.flip, mutants.cut, mutants.splice, mutants.fill, mutants.number))(
                data or b"x", rng
            )
    return data


def _change(table: Any, rng: random.Random) -> None:
    """Replace, remove, repeat or wrap a value anywhere in a table."""
    places = list(_places(table))
    if not places:
        return
    held, key = rng.choice(places)
    how = rng.random()
    if how < 0.6:
        held[key] = rng.choice(hostile.VALUES)
    elif how < 0.7:
        del held[key]
    elif how < 0.8:
        held[key] = [held[key]] * rng.choice((0, 2, 100))
    elif how < 0.9 and isinstance(held, dict):
        held[rng.choice((f"{key}x", "", "../x", hostile.ESCAPE))] = held[key]
    else:
        for _ in range(rng.choice((1, 100))):
            held[key] = {"x": held[key]} if rng.random() < 0.5 else [held[key]]


def _places(table: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(table) if isinstance(table, dict) else range(len(table)):
        yield table, key
        if isinstance(table[key], (dict, list)):
            yield from _places(table[key])


def _words(data: bytes, rng: random.Random) -> bytes:
    """Replace a word or a line of a text."""
    separator = rng.choice((b" ", b"\n", b'"'))
    words = data.split(separator)
    value = rng.choice([*hostile.VALUES, "(a+)+$", "{a,b}" * 30, "*a" * 40, "**/" * 30, "[" * 50, "x" * 10_000])
    text = str(value).encode("utf-8", "surrogatepass")
    words[rng.randrange(len(words))] = (
        text if rng.random() < 0.7 else rng.choice(words)[:1000] * rng.choice((0, 2, 1000))
    )
    return separator.join(words)


def answer(step: str | Callable[[Path], None], folder: Path) -> tuple[int, str]:
    """Return exit code and what was said of a command, or of a function that a command calls."""
    if isinstance(step, str):
        done = CliRunner().invoke(medsass, step.split(" "))
        if done.exception and not isinstance(done.exception, SystemExit):
            return 1, "".join(traceback.format_exception(done.exception))
        return done.exit_code, done.output
    try:
        step(folder)
    except Exception as error:
        text = errors.line(error, "train")
        return (1, traceback.format_exc()) if text is None else (2, printable(text))
    return 0, ""


class HangError(BaseException):
    """An input took longer than it may."""


def _hung(*_: object) -> None:
    raise HangError


def run(kind: str, good: Path, work: Path, seed: int, number: int) -> str:
    """Give one input to its commands, and return what is wrong with an answer, or ""."""
    name, steps = COMMANDS[kind]
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(good, work)
    os.chdir(work)
    rng = random.Random(f"{kind} {seed} {number}")
    (work / name).write_bytes(mutated((good / name).read_bytes(), name, rng))
    before = {path.relative_to(work) for path in work.rglob("*")}
    for step in steps:
        signal.setitimer(signal.ITIMER_REAL, LONGEST)
        try:
            code, said = answer(step, work)
        except HangError:
            return f"{step}: takes more than {LONGEST:.0f} s"
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if wrong := hostile.verdict(code, said if code else ""):
            return f"{step}: {wrong}: {said[-1500:]}"
        own = OUTPUTS | ({"run"} if kind == "checkpoint" else set())
        after = {path.relative_to(work) for path in work.rglob("*")}
        if strays := [str(path) for path in after - before if path.parts[0] not in own]:
            return f"{step}: wrote {strays[:3]}"
        for output in OUTPUTS:
            shutil.rmtree(work / output, ignore_errors=True)
            (work / output).unlink(missing_ok=True)
    return ""


def numbers(text: str, seconds: float) -> Iterator[int]:
    """Yield the numbers of an input, "7" or "0-9"; after a range go on until the seconds are over."""
    first, dash, last = text.partition("-")
    end = time.monotonic() + seconds
    yield from range(int(first), int(last or first) + 1)
    for number in itertools.count(int(last)) if dash else ():
        if time.monotonic() > end:
            return
        yield number + 1


def main(root: Path, seconds: float, inputs: Sequence[str]) -> None:
    """Try the inputs, the ranges of them for as many seconds together, and print what is wrong, and how many there were."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, _hung)
    warnings.simplefilter("ignore")
    start = time.monotonic()
    ranges, tried = sum("-" in each for each in inputs), Counter[str]()
    with networks.light(), contextlib.redirect_stdout(io.StringIO()) as said:
        os.chdir(root)
        build(root / "good")
        for kind, seed, number in (
            (kind, int(seed), number)
            for kind, seed, which in (each.split(":") for each in inputs)
            for number in numbers(which, seconds / max(ranges, 1))
        ):
            os.chdir(root)
            print(f"{kind}:{seed}:{number}", file=sys.stderr, flush=True)  # the last one is the one that killed
            if wrong := run(kind, root / "good", root / "work", seed, number):
                print(json.dumps({"input": f"{kind}:{seed}:{number}", "wrong": wrong}), file=sys.__stdout__, flush=True)
            tried[kind] += 1
            said.seek(0)
            said.truncate()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    print(
        json.dumps(
            {"inputs": list(inputs), "seconds": round(time.monotonic() - start), "tried": tried, "memory": memory}
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:])
