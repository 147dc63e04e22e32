"""The staging folder of a dataset: locked, kept once a tar file is finished, swapped in at the end."""

import fcntl
import os
from pathlib import Path

import pytest

from medsass.data.sharding import journal, staging
from medsass.data.shards import manifest
from medsass.data.shards.tar import Shard

SHARD = Shard("train-000000.tar", 1, 10240, "ab")


def fill(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text(name)
    return folder


def interrupt(out: Path) -> Path:
    """An interrupted run with one finished tar file."""
    with (  # noqa: PT012 - the error is raised in the block that is tested
        pytest.raises(ValueError, match=r"stop; 1 finished tar files are kept in .*: go on with --resume"),
        staging.opened(out, resume=False, overwrite=False) as stage,
    ):
        assert stage
        fill(stage.folder, SHARD.file)
        stage.finish("train", SHARD, (1, 0))
        raise ValueError("stop")
    return out.with_name(out.name + ".part")


def test_finished_folder_takes_the_place_of_out(tmp_path: Path) -> None:
    out = fill(tmp_path / "out", "train-000000.tar", manifest.NAME)
    with staging.opened(out, resume=False, overwrite=True) as stage:
        assert stage
        assert stage.folder.parent == tmp_path
        fill(stage.folder, "val-000000.tar", manifest.NAME)
        assert (out / "train-000000.tar").is_file()
        stage.publish()
    assert {path.name for path in out.iterdir()} == {"val-000000.tar", manifest.NAME}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_nothing_stays_of_a_run_that_finished_nothing(tmp_path: Path) -> None:
    with (  # noqa: PT012
        pytest.raises(ValueError, match=r"^stop$"),
        staging.opened(tmp_path / "out", resume=False, overwrite=False) as stage,
    ):
        assert stage
        fill(stage.folder, "train-000000.tar.part")
        raise ValueError("stop")
    assert list(tmp_path.iterdir()) == []


def test_what_is_finished_stays_until_an_option_says_what_to_do(tmp_path: Path) -> None:
    folder = interrupt(tmp_path / "out")
    with (
        pytest.raises(FileExistsError, match="go on with --resume, or start again with --overwrite"),
        staging.opened(tmp_path / "out", resume=False, overwrite=False),
    ):
        pass
    assert (folder / SHARD.file).is_file()
    with staging.opened(tmp_path / "out", resume=True, overwrite=False) as stage:
        assert stage
        assert stage.journal["position"] == [1, 0]
        assert stage.journal.shards("train") == [SHARD]


def test_overwrite_starts_again(tmp_path: Path) -> None:
    folder = interrupt(tmp_path / "out")
    with staging.opened(tmp_path / "out", resume=False, overwrite=True) as stage:
        assert stage
        assert stage.journal.shards() == []
        assert not (folder / SHARD.file).exists()


def test_disk_error_names_the_folder(tmp_path: Path) -> None:
    with (
        pytest.raises(OSError, match=r"out.part: No space left on device"),
        staging.opened(tmp_path / "out", resume=False, overwrite=False),
    ):
        raise OSError(28, os.strerror(28))


def test_second_writer_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with staging.opened(out, resume=False, overwrite=False) as stage:
        assert stage
        for flags in ({"resume": False, "overwrite": True}, {"resume": True, "overwrite": False}):
            with (
                pytest.raises(FileExistsError, match="is being written by another medsass shard"),
                staging.opened(out, **flags),
            ):
                pass
        fill(stage.folder, manifest.NAME)
        stage.publish()
    assert (out / manifest.NAME).is_file()


def test_lock_of_a_dead_writer_is_free(tmp_path: Path) -> None:
    folder = interrupt(tmp_path / "out")
    child = os.fork()
    if not child:
        fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_EX)
        os._exit(0)
    os.waitpid(child, 0)
    with staging.opened(tmp_path / "out", resume=True, overwrite=False) as stage:
        assert stage


def test_resume_of_a_finished_dataset_has_nothing_to_do(tmp_path: Path) -> None:
    out = fill(tmp_path / "out", manifest.NAME)
    with staging.opened(out, resume=True, overwrite=False) as stage:
        assert stage is None


@pytest.mark.parametrize("old", [True, False], ids=["out moved away", "nothing moved yet"])
def test_kill_between_the_last_steps_is_mended(old: bool, tmp_path: Path) -> None:
    fill(tmp_path / "out.part", "val-000000.tar", manifest.NAME)
    fill(tmp_path / ("out.old" if old else "out"), "train-000000.tar", manifest.NAME)
    with staging.opened(tmp_path / "out", resume=True, overwrite=False) as stage:
        assert stage is None
    assert {path.name for path in tmp_path.rglob("*")} == {"out", "val-000000.tar", manifest.NAME}


def test_foreign_files_are_never_removed(tmp_path: Path) -> None:
    folder = fill(tmp_path / "shards", "train-000000.tar", "notes.txt", journal.NAME)
    with pytest.raises(OSError, match="not empty"):
        staging.remove(folder)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
