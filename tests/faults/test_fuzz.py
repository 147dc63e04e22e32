"""`medsass shard` on mutated files: it never dies, and each file is stored, so that DALI decodes it again, or has a reason."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import webdataset

from medsass.data.dali import Decoder
from medsass.data.shards.manifest import REJECTED, load
from medsass.data.shards.verify import verify
from tests.support import forks, mutants
from tests.support.effort import counted
from tests.support.faults import one_split

pytest.importorskip("pydicom")


def decode_again(shards: str) -> None:
    """Decode every image and mask of a shard folder by the training decoder, in this process; the files' own size counts."""
    paths = [f"{shards}/{item.file}" for split in load(Path(shards)).splits.values() for item in split.shards]
    decoder, count = Decoder(8, 1), 0
    for sample in webdataset.WebDataset(paths, shardshuffle=False, empty_check=False):
        meta = json.loads(sample["json"])
        (extension,) = {"png", "jpg", "jp2"} & set(sample)
        (pixels,) = decoder([sample[extension]])
        assert not isinstance(pixels, ValueError), (meta["source"], pixels)
        assert pixels.shape == (meta["height"], meta["width"], 3), meta["source"]
        count += 1
    print(count)


@pytest.mark.parametrize("seed", range(counted(1, 10)))
def test_mutants_are_stored_or_left_out_with_a_reason_and_the_command_lives(seed: int, tmp_path: Path) -> None:
    source, out, count = tmp_path / "source", tmp_path / "out", counted(400, 1000)
    source.mkdir()
    mutants.write(source, count, seed)
    recipe = one_split(tmp_path, "first")  # of several splits, one would lose what the other holds too
    words = [sys.executable, "-m", "medsass", "shard", str(source), str(out), "--recipe", recipe]
    environment = {**os.environ, "PYTHONPATH": str(forks.ROOT)}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert verify(out, trusting=False) == []
    listed = [json.loads(line) for line in (out / REJECTED).read_text("utf-8").splitlines()]
    assert all(item["reason"].strip() and "\n" not in item["reason"] for item in listed)
    samples = sum(split.samples for split in load(out).splits.values())
    assert samples + len({item["file"] for item in listed}) == count == samples + len(listed)
    program = f"from tests.faults import test_fuzz; test_fuzz.decode_again({str(out)!r})"
    again = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False
    )
    assert again.returncode == 0, again.stderr
    assert int(again.stdout) == samples > count // 20
    print(f"{samples} stored, {len(listed)} left out, {sum('died' in item['reason'] for item in listed)} by death")
