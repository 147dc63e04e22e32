"""Hostile folders, shards and runs: nothing is written outside of the output, and nothing is read outside of the source."""

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from medsass import temporary
from medsass.config import ExperimentConfig, ExportConfig, LabelConfig, ShardConfig
from medsass.data.sharding import shard
from medsass.data.sharding.staging import opened
from medsass.data.shards import manifest, remote
from medsass.data.shards.verify import verify
from medsass.runs import image_files, preflight, run_directory
from medsass.runs.distributed import ALONE
from medsass.runs.experiment.experiment import run_cell
from medsass.runs.experiment.prepare import Task, prepare
from medsass.runs.label import label
from medsass.runs.training import profile
from tests.conftest import facts, tiny
from tests.support import built

KEYS = ["/x/abs", "../out", "a/b", ".hidden", "a\nb", "a\x1b[31mb"]


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return built.build(tmp_path / "shards", splits={"train": 3, "val": 2})


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder that must not change."""
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/file").write_text("old")
    return tmp_path / "victim"


def untouched(victim: Path) -> bool:
    return {path.name: path.read_text() for path in victim.iterdir()} == {"file": "old"}


def change(shards: Path, edit: Callable[[dict[str, dict[str, object]]], None]) -> None:
    """Edit the splits of a manifest."""
    table = json.loads((shards / manifest.NAME).read_text())
    edit(table["splits"])
    (shards / manifest.NAME).write_text(json.dumps(table))


@pytest.mark.parametrize("name", ["../../x", "/x", "a/b", "", "a\n", "..", "Train", "train.", "a" * 300 + "/"])
def test_a_split_of_another_name_than_a_split_has_is_refused_by_every_reader(name: str, shards: Path) -> None:
    change(shards, lambda splits: splits.update({name: splits.pop("train")}))
    for read in (remote.load, manifest.read):
        with pytest.raises(ValueError, match=r"manifest\.json: not a medsass manifest \(.*; run medsass shard again"):
            read(shards)
    assert verify(shards)


@pytest.mark.parametrize("key", KEYS)
def test_a_key_that_would_be_a_file_elsewhere_is_refused_before_anything_is_written(
    key: str, shards: Path, tmp_path: Path
) -> None:
    index = shards / "train-000000.idx"
    index.write_text(index.read_text().replace("train_001", key))
    with pytest.raises(ValueError, match="its index is damaged; run: medsass verify"):
        label(LabelConfig(shards, tmp_path / "out", device="cpu"))
    assert not (tmp_path / "out").exists()


def pack(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> None:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as opened_tar:
        for info, data in members:
            info.size = len(data)
            opened_tar.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize("kind", [*KEYS, "link", "hard link", "sparse"])
def test_a_tar_file_that_says_otherwise_than_its_index_writes_nothing_elsewhere(
    kind: str, shards: Path, tmp_path: Path
) -> None:
    data = cv2.imencode(".png", np.zeros((8, 8), np.uint8))[1].tobytes()
    info = tarfile.TarInfo(f"{kind if kind in KEYS else 'a'}.png")
    if kind in ("link", "hard link"):
        info.type, info.linkname = tarfile.SYMTYPE if kind == "link" else tarfile.LNKTYPE, "/etc/passwd"
    if kind == "sparse":
        info.pax_headers = {"GNU.sparse.map": "0,8", "GNU.sparse.size": str(1 << 40), "GNU.sparse.name": "a.png"}
    path = shards / "train-000000.tar"
    pack(path, (info, data if kind in KEYS or kind == "sparse" else b""))
    change(shards, lambda splits: splits["train"]["shards"][0].update(bytes=path.stat().st_size))  # type: ignore[index]
    with pytest.raises(
        ValueError, match=r"train-000000\.tar: damaged \(.* is no file of a sample\); run: medsass verify"
    ):
        label(LabelConfig(shards, tmp_path / "out", device="cpu"))
    assert sorted(
        path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if "shards" not in str(path)
    ) == ["out"]


def test_a_sample_that_the_index_does_not_name_replaces_no_file(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "out/train").mkdir(parents=True)
    (tmp_path / "out/train/other.png").write_text("mine")
    path = shards / "train-000000.tar"
    data = cv2.imencode(".png", np.zeros((8, 8), np.uint8))[1].tobytes()
    pack(path, (tarfile.TarInfo("other.png"), data))
    change(shards, lambda splits: splits["train"]["shards"][0].update(bytes=path.stat().st_size))  # type: ignore[index]
    with pytest.raises(FileExistsError, match=r"other\.png exists"):
        label(LabelConfig(shards, tmp_path / "out", device="cpu"))
    assert (tmp_path / "out/train/other.png").read_text() == "mine"


def test_links_in_an_output_folder_lead_nothing_out_of_it(shards: Path, victim: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/train").symlink_to(victim)
    with pytest.raises(FileExistsError, match=r"out/train leads out of .*/out by a symbolic link; remove that"):
        label(LabelConfig(shards, tmp_path / "out", device="cpu"))
    assert untouched(victim)
    (tmp_path / "by another name").symlink_to(tmp_path / "real")
    (tmp_path / "real").mkdir()
    assert label(LabelConfig(shards, tmp_path / "by another name", device="cpu")) == []


@pytest.mark.parametrize("name", ["out.part", "out.old", "out.part/journal.sqlite", "out.part/fetched"])
def test_links_where_shards_grow_are_refused(name: str, victim: Path, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).symlink_to(victim if "journal" not in name else victim / "file")
    with (
        pytest.raises(FileExistsError, match=f"{name} is a symbolic link"),
        opened(tmp_path / "out", resume=False, overwrite=True),
    ):
        pass
    assert untouched(victim)


@pytest.mark.parametrize("name", ["last.pt", "export", "tensorboard", "config.json", "wandb"])
def test_links_in_a_run_directory_are_refused(name: str, victim: Path, tmp_path: Path) -> None:
    config = tiny(Path("shards"), tmp_path / "run")
    run_directory.create(config, facts())
    (config.run / name).unlink(missing_ok=True)
    (config.run / name).symlink_to(victim)
    with pytest.raises(FileExistsError, match=f"run/{name} is a symbolic link"), run_directory.locked(config.run):
        pass
    with pytest.raises(FileExistsError, match=f"run/{name} is a symbolic link"):
        run_directory.check_new(tiny(Path("shards"), config.run, overwrite=True))
    assert untouched(victim)


def test_a_run_directory_belongs_to_one_training(tmp_path: Path) -> None:
    run = tmp_path / "deep/run"
    with run_directory.locked(run):
        message = f"{run} is being written by another medsass train; wait for it, or choose another folder"
        with pytest.raises(FileExistsError, match=message), run_directory.locked(run):
            pass
    assert not run.exists()


def test_links_out_of_a_source_are_named_and_left_out(victim: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(3):
        cv2.imwrite(str(source / f"{number}.png"), np.full((8, 8), number, np.uint8))
    cv2.imwrite(str(victim / "secret.png"), np.full((8, 8), 77, np.uint8))
    (source / "linked").symlink_to(victim)
    (source / "secret.png").symlink_to(victim / "secret.png")
    made = shard.write(ShardConfig(source, tmp_path / "out"))
    assert sum(split.samples for split in made.splits.values()) == 3
    listed = [json.loads(line) for line in (tmp_path / "out" / manifest.REJECTED).read_text().splitlines()]
    assert {item["file"]: item["reason"].partition(";")[0] for item in listed} == dict.fromkeys(
        ("linked", "secret.png"), "a symbolic link that leads out of the folder"
    )
    made = shard.write(ShardConfig(source, tmp_path / "all", follow_links=True))
    assert sum(split.samples for split in made.splits.values()) == 4  # two are one file
    with pytest.warns(
        UserWarning, match=r"2 passed over, such as linked: a symbolic link that leads out .*--follow-links"
    ):
        assert len(image_files.in_folder(source)) == 3
    assert len(image_files.in_folder(source, follow=True)) == 5


def test_where_masks_are_a_link_out_of_the_source_the_line_names_it(victim: Path, tmp_path: Path) -> None:
    (tmp_path / "source/images").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "source/images/a.png"), np.zeros((8, 8), np.uint8))
    (tmp_path / "source/masks").symlink_to(victim)
    config = ShardConfig(tmp_path / "source", tmp_path / "out", images="images/*.png", masks="masks/*.png")
    with pytest.raises(ValueError, match=r"no image has a mask: .*; masks: a symbolic link .* --follow-links"):
        shard.write(config)


def test_links_out_of_a_shard_folder_are_refused(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (shards / "train-000000.tar").rename(tmp_path / "elsewhere.tar")
    (shards / "train-000000.tar").symlink_to(tmp_path / "elsewhere.tar")
    with pytest.raises(
        ValueError, match=r"train-000000\.tar: a symbolic link out of the folder; put a copy in its place"
    ):
        remote.load(shards)
    assert any("is a symbolic link out of the folder" in str(problem) for problem in verify(shards))
    monkeypatch.setenv("MEDSASS_FOLLOW_LINKS", "1")
    remote.load(shards)


def test_links_where_an_experiment_writes_are_refused(victim: Path, tmp_path: Path) -> None:
    (tmp_path / "grid.toml").write_text(
        'methods = ["medsass"]\nmodels = ["unet-resnet18"]\n[datasets.some]\nshards = "shards"\n'
    )
    for name in ("logs", "shards"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "out").mkdir()
        (tmp_path / name / "out" / name).symlink_to(victim)
        with pytest.raises(FileExistsError, match=f"out/{name} is a symbolic link"):
            prepare(ExperimentConfig(tmp_path / "grid.toml", tmp_path / name / "out"))
    (tmp_path / "a.log").symlink_to(victim / "file")
    task = Task(None, tiny(tmp_path, tmp_path / "run"), "", (), tmp_path / "s.json", tmp_path / "a.log", 0, "")  # type: ignore[arg-type]
    with pytest.raises(FileExistsError, match=r"a\.log is a symbolic link"):
        run_cell(task)
    assert untouched(victim)


def test_links_where_a_profile_or_an_export_is_written_are_refused(
    victim: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile" / profile.TRACE).symlink_to(victim / "file")
    with (
        pytest.raises(FileExistsError, match="is a symbolic link"),
        profile.traced(tmp_path / "profile", "cpu", 9, ALONE),
    ):
        pass
    (tmp_path / "run").mkdir()
    (tmp_path / "run/export").symlink_to(victim)
    monkeypatch.setattr(run_directory, "check_weights", lambda _: (tiny(tmp_path, tmp_path), facts()))
    with pytest.raises(FileExistsError, match="run/export is a symbolic link"):
        preflight.export(ExportConfig(tmp_path / "run"))
    assert untouched(victim)


def test_folders_too_deep_to_be_removed_are_one_line(tmp_path: Path) -> None:
    deep = tmp_path / "deep"
    deep.mkdir()
    below = os.open(deep, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("a", dir_fd=below)
        above, below = below, os.open("a", os.O_RDONLY, dir_fd=below)
        os.close(above)
    os.close(below)
    with pytest.raises(OSError, match="folders too deep within one another; remove it by other means"):
        temporary.remove(deep)
    subprocess.run(["rm", "-r", deep], check=True)
