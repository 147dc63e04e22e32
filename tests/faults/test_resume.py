"""`medsass shard` interrupted by the user or a full disk, then resumed: the same bytes, or a refusal."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from medsass.data.sharding import journal, shard
from medsass.data.shards.verify import verify
from tests.support.faults import command, config, contents, interrupt, part

# For each size, fills a file system of that size, makes room and goes on; prints a line of observations
FULL = """
import json, shutil, subprocess, sys
from pathlib import Path
from click.testing import CliRunner
from medsass.cli import main
from medsass.config import ShardConfig
from medsass.data.sharding import shard
from medsass.data.shards.verify import verify
source, disk, sizes = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
out, part = disk / "out", disk / "out.part"
options = {"images": "images/*.png", "masks": "masks/*.png", "max_shard_bytes": 100_000}
words = [word for name, value in options.items() for word in ("--" + name.replace("_", "-"), str(value))]
def contents(folder):
    return {path.name: path.read_bytes().hex() for path in folder.iterdir()}
def resize(size):
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)
shard.write(ShardConfig(source, disk / "first", **{**options, "images": "images/nuclei_000*.png"}, size=16))
for size in sizes:
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(disk / "first", out)
    resize(size)
    done = CliRunner().invoke(main, ["shard", str(source), str(out), "--overwrite", *words])
    seen = {"code": done.exit_code, "error": done.stderr, "bug": repr(done.exception), "old": verify(out, trusting=False) == [] and
            contents(out) == contents(disk / "first"), "tars": len(list(part.glob("*.tar"))), "part": part.exists()}
    resize("64m")
    again = {"resume": True} if part.exists() else {"overwrite": True}
    shard.write(ShardConfig(source, out, **options, **again))
    print(json.dumps({**seen, "new": contents(out)}))
"""


def test_full_disk_is_one_line_and_room_brings_the_same_bytes(
    nuclei_folder: Path, shards: Path, tmp_path: Path
) -> None:
    mount = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=64m none "$0" && exec "$@"', str(tmp_path)]
    try:
        subprocess.run([*mount, "true"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no small file system can be mounted here")
    sizes = [f"{size}k" for size in range(240, 640, 44)]
    words = [*mount, sys.executable, "-c", FULL, str(nuclei_folder), str(tmp_path), *sizes]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    seen = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(seen) == len(sizes), done.stderr
    expected = {name: data.hex() for name, data in contents(shards).items()}
    for size, one in zip(sizes, seen, strict=True):
        assert one["new"] == expected, size
        if one["code"] == 0:
            continue
        assert one["code"] == 2, one
        assert re.fullmatch(rf"medsass: {tmp_path}/out.part.*(No space left on device|disk is full).*\n", one["error"])
        assert one["old"], size
        assert one["part"] == (one["tars"] > 0) == ("go on with --resume" in one["error"]), one["error"]
    assert {one["tars"] > 0 for one in seen if one["code"]} == {True, False}


OTHERS = {"size": 16, "tile": 16, "encode": "png", "depth": 16, "range": "type", "near_duplicates": True}
OTHERS |= {"max_shard_bytes": 30_000, "group_by": "image", "level": 1}


def test_resume_with_other_options_is_refused_by_name_and_harms_nothing(
    copied: Path, shards: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    interrupt(copied, out, max_shard_bytes=100_000, images="images/*.png", masks="masks/*.png")
    same = {"max_shard_bytes": 100_000, "images": "images/*.png", "masks": "masks/*.png", "resume": True}
    for name, value in OTHERS.items():
        pattern = (
            rf"^--{name.replace('_', '-')} differs from the interrupted run's: it was .* and is {value}; .*--overwrite$"
        )
        with pytest.raises(ValueError, match=pattern):
            shard.write(config(copied, out, **{**same, name: value}))
    for changed in ({"masks": ""}, {"foreground": "half"}):
        with pytest.raises(ValueError, match=r"^recipe differs from the interrupted run's"):
            shard.write(config(copied, out, **{**same, **changed}))
    shard.write(config(copied, out, **same))
    assert contents(out) == contents(shards)


def test_resume_of_a_finished_dataset_with_other_options_is_refused(source: Path, tmp_path: Path) -> None:
    made = shard.write(config(source, tmp_path / "out"))
    before = contents(tmp_path / "out")
    assert shard.write(config(source, tmp_path / "out", resume=True)).splits == made.splits
    with pytest.raises(ValueError, match=r"^--size differs from the interrupted run's: it was 0 and is 16"):
        shard.write(config(source, tmp_path / "out", resume=True, size=16))
    assert contents(tmp_path / "out") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


def test_the_command_goes_on_with_resume(copied: Path, shards: Path, tmp_path: Path) -> None:
    words = ["--images", "images/*.png", "--masks", "masks/*.png", "--max-shard-bytes", 100_000]
    interrupt(copied, tmp_path / "out", max_shard_bytes=100_000, images="images/*.png", masks="masks/*.png")
    code, error = command(copied, tmp_path / "out", *words)
    assert code == 2
    assert "--resume" in error
    assert command(copied, tmp_path / "out", *words, "--resume") == (0, "")
    assert contents(tmp_path / "out") == contents(shards)


def test_output_within_the_source_is_no_part_of_it(copied: Path, tmp_path: Path) -> None:
    shard.write(config(copied, tmp_path / "apart"))
    out = copied / "out"
    interrupt(copied, out)
    shard.write(config(copied, out, resume=True))
    assert contents(out) == contents(tmp_path / "apart")
    shard.write(config(copied, out, overwrite=True))
    assert contents(out) == contents(tmp_path / "apart")


def test_unreadable_journal_is_one_line_with_the_remedy(copied: Path, tmp_path: Path) -> None:
    interrupt(copied, tmp_path / "out")
    (part(tmp_path / "out") / journal.NAME).write_bytes(b"no database" * 1000)
    with pytest.raises(OSError, match=r"out.part/journal.sqlite: .*; start again with --overwrite"):
        shard.write(config(copied, tmp_path / "out", resume=True))
    shard.write(config(copied, tmp_path / "out", overwrite=True))
    assert verify(tmp_path / "out", trusting=False) == []
