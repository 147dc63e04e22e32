"""`medsass verify` of datasets of many tar files, beside reading them and beside their SHA-256.

    python -m benchmarks.verify [DATA]

Each dataset of DATA is written many times over, under other keys. MB/s, median of several rounds, of: reading the tar files
from disk (the page cache is emptied of them first); verifying them from disk, sealed and with a look into each sample; verifying
them from memory; and the SHA-256 of their bytes alone, from memory, by one core.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from benchmarks.support import result
from medsass.config import ShardConfig
from medsass.data.sharding import shard
from medsass.data.shards import manifest, tar
from medsass.data.shards.verify import verify

ROUNDS = 5
MAX_BYTES = 64 << 20  # of a tar file
_PIECE = 1 << 20


@dataclass(frozen=True)
class Case:
    """A dataset of DATA, its recipe, and how many times it is written."""

    name: str
    recipe: str
    copies: int


CASES = (Case("ISIC 2017, JPEG 256² with masks", "isic2017", 200), Case("DSB 2018 microscopy, PNG", "dsb2018", 140))


def write(case: Case, data: Path, folder: Path) -> tuple[Path, int]:
    """Write the training samples of a dataset many times over. Returns the shard folder and the number of samples."""
    one, many = folder / "one", folder / "many"
    many.mkdir()
    stated = shard.write(ShardConfig(data / case.recipe, one, recipe=case.recipe))
    split = stated.splits["train"]
    samples = [sample for each in split.shards for sample in tar.read(one / each.file)]
    writer, shards = tar.ShardWriter(many, "train", MAX_BYTES), []
    for copy in range(case.copies):
        for key, content in samples:
            said = content["json"].replace(f'"key": "{key}"'.encode(), f'"key": "{copy}_{key}"'.encode())
            shards.append(writer.add(f"{copy}_{key}", {**content, "json": said}))
    shards.append(writer.close())
    counts: dict[str, Any] = {
        name: {key: count * case.copies for key, count in getattr(split, name).items()}
        for name in ("classes", "sizes", "formats")
    }
    counts |= {"samples": split.samples * case.copies, "masks": split.masks * case.copies}
    split = replace(split, shards=[each for each in shards if each], **counts)
    manifest.Manifest(stated.recipe, {"train": split}).save(many, sealed=True)
    return many, split.samples


def forget(paths: list[Path]) -> None:
    """Drop files from the page cache, so that they are read from disk."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def read(paths: list[Path], use: Callable[[bytes], Any]) -> None:
    """Read files from start to end, and `use` each piece."""
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while data := file.read(_PIECE):
                use(data)


def check(folder: Path, *, trusting: bool = True) -> None:
    """Verify a shard folder that is intact."""
    if problems := verify(folder, trusting=trusting):
        raise ValueError(problems[0])


def measure(case: Case, data: Path) -> dict[str, Any]:
    """Return the row of a dataset."""
    with tempfile.TemporaryDirectory() as folder:
        many, samples = write(case, data, Path(folder))
        tars = sorted(many.glob("*.tar"))
        megabytes = sum(path.stat().st_size for path in tars) / 1e6
        work: dict[str, Callable[[], Any]] = {
            "read_disk": partial(read, tars, len),
            "verify_disk": partial(check, many),
            "look_disk": partial(check, many, trusting=False),
            "verify_memory": partial(check, many),
            "hash_memory": lambda: read(tars, hashlib.sha256().update),
        }
        times: dict[str, list[float]] = {name: [] for name in work}
        for _ in range(ROUNDS):
            for name, run in work.items():
                if name.endswith("disk"):
                    forget(tars)
                start = perf_counter()
                run()
                times[name].append(perf_counter() - start)
    speeds = {f"{name}_mb_per_second": megabytes / median(values) for name, values in times.items()}
    pairs = zip(times["read_disk"], times["verify_disk"], strict=True)  # of one round: the speed of disks drifts
    ratio = {"verify_over_read": median(read / verified for read, verified in pairs)}
    return {"case": case.name, "samples": samples, "tar_files": len(tars), "megabytes": megabytes, **speeds, **ratio}


def main() -> None:
    """Measure all and save the result."""
    data = result.data("verify", [case.recipe for case in CASES])
    rows = [measure(case, data) for case in CASES]
    aims = [
        result.Target(
            f"verify over reading from disk, {row['case']}",
            "ratio",
            ">=",
            1.0,
            row["verify_over_read"],
        )
        for row in rows
    ]
    result.save("verify", "cpu", rows, aims, {})


if __name__ == "__main__":
    main()
