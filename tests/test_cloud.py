"""Shards at addresses, in S3 and on the web, beside the same shards in a folder: reading, training, labelling."""

import itertools
import json
import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from medsass import files
from medsass.config import EvaluateConfig, LabelConfig
from medsass.data.loading.loader import Augment, Batch, Loader, LoaderConfig
from medsass.data.shards import manifest, remote
from medsass.runs import run_directory
from medsass.runs.label import label
from medsass.runs.scoring.evaluate import evaluate
from medsass.runs.training.train import train
from tests.conftest import tiny
from tests.support import built, commands, servers
from tests.support.servers import S3

pytest.importorskip("moto")
pytest.importorskip("s3fs")


pytestmark = pytest.mark.usefixtures("light_file")


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with servers.running_s3() as running:
        yield running


@pytest.fixture(scope="module", params=[8, 16])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Local shards, 8 and 16 bit."""
    return built.build(tmp_path_factory.mktemp("built") / f"of{request.param}", request.param)


@pytest.fixture(scope="module")
def address(folder: Path, s3: S3) -> Path:
    """The same shards in S3."""
    return s3.upload(folder, folder.name)


@pytest.fixture(scope="module")
def runs(folder: Path, address: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The runs of one epoch on the folder and on the address."""
    place = tmp_path_factory.mktemp("runs")
    for shards, name in ((folder, "local"), (address, "s3")):
        train(tiny(shards, place / name, epochs=1))
    return place / "local", place / "s3"


def _epoch(shards: Path, fraction: float = 1.0) -> list[Batch]:
    config = LoaderConfig(shards, "train", 32, 8, augment=Augment(), masks=True, info=True, threads=1)
    loader = Loader(replace(config, fraction=fraction))
    return list(loader)


def _assert_same_batches(one: Path, other: Path, fraction: float = 1.0, batches: int = 3) -> None:
    pairs = list(zip(_epoch(one, fraction), _epoch(other, fraction), strict=True))
    assert len(pairs) == batches
    for a, b in pairs:
        assert (a.images.int() == b.images.int()).all()
        assert torch.equal(a.masks, b.masks)  # type: ignore[arg-type]
        assert (a.info, a.keys) == (b.info, b.keys)


def test_the_manifest_in_s3_is_the_folders(folder: Path, address: Path) -> None:
    assert not files.is_local(address)
    assert remote.load(address) == manifest.load(folder)
    assert manifest.load(address).sha256 == manifest.load(folder).sha256


def test_batches_from_s3_are_the_folders(folder: Path, address: Path) -> None:
    _assert_same_batches(folder, address)


def test_a_share_of_the_samples_in_s3_is_the_folders(folder: Path, address: Path) -> None:
    _assert_same_batches(folder, address, fraction=0.4, batches=1)


def test_a_run_on_s3_ends_with_the_folders_weights(runs: tuple[Path, Path]) -> None:
    local, other = (load_file(run / "model.safetensors") for run in runs)
    torch.testing.assert_close(other, local, rtol=0, atol=0)


def test_a_run_directory_keeps_the_address(runs: tuple[Path, Path], address: Path) -> None:
    content = json.loads((runs[1] / "config.json").read_text())
    assert content["train"]["shards"] == str(address)
    assert str(address).startswith("s3://bucket/of")
    assert run_directory.stored(runs[1])[0].shards.name == address.name  # which is not opened again


def test_a_run_on_s3_resumes(runs: tuple[Path, Path], address: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(runs[1], tmp_path / "run"))
    best = train(tiny(address, run, epochs=1, resume=True))
    assert best == json.loads((run / "metrics.jsonl").read_text())


def test_scores_on_s3_are_the_folders(runs: tuple[Path, Path], folder: Path, address: Path) -> None:
    scores = [evaluate(EvaluateConfig(runs[0], shards, device="cpu", threads=1)) for shards in (folder, address)]
    assert scores[0] == scores[1]


def test_labels_of_s3_are_the_folders(folder: Path, address: Path, tmp_path: Path) -> None:
    for shards, name in ((folder, "local"), (address, "s3")):
        assert label(LabelConfig(shards, tmp_path / name, device="cpu")) == []
    local, other = (
        {p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*.*")}
        for name in ("local", "s3")
    )
    assert local == other
    assert len(local) == sum(built.SPLITS.values()) + 1


def test_results_are_refused_at_an_address(s3: S3, address: Path, folder: Path, runs: tuple[Path, Path]) -> None:
    place = s3.bucket / "run"
    with pytest.raises(ValueError, match="s3://bucket/run: RUN must be on this machine"):
        train(tiny(address, place))
    with pytest.raises(ValueError, match="s3://bucket/run: OUT must be on this machine"):
        label(LabelConfig(folder, place, device="cpu"))
    with pytest.raises(ValueError, match="s3://bucket/run: --json must be on this machine"):
        evaluate(EvaluateConfig(runs[0], folder, json=place, device="cpu"))
    with pytest.raises(ValueError, match="s3://bucket/run: RUN must be on this machine"):
        evaluate(EvaluateConfig(place, folder, device="cpu"))


def test_a_tar_that_s3_has_lost_is_named(s3: S3, folder: Path) -> None:
    address = s3.upload(folder, f"lost{folder.name}")
    (address / "val-000000.tar").unlink()
    with pytest.raises(FileNotFoundError, match=r"s3://bucket/lost.*/val-000000\.tar is missing"):
        remote.load(address)


def test_a_tar_that_is_lost_while_it_is_read_is_one_line(s3: S3, folder: Path) -> None:
    address = s3.upload(folder, f"later{folder.name}")
    loader = Loader(LoaderConfig(address, "train", 32, 4, threads=1))
    (address / "train-000001.tar").unlink()
    with pytest.raises(OSError, match=r"^s3://bucket/later.* cannot be read \(.*\); check the address") as error:
        list(itertools.chain(loader, loader, loader))
    assert "\n" not in str(error.value)


def test_a_bucket_that_does_not_exist_is_named(s3: S3) -> None:  # noqa: ARG001 - the environment
    with pytest.raises(
        FileNotFoundError, match=r"s3://none/x/manifest\.json was not found \(.*bucket does not exist\)"
    ):
        remote.load(files.location("s3://none/x"))


def test_a_key_that_does_not_exist_names_the_command(s3: S3) -> None:
    with pytest.raises(FileNotFoundError, match=r"manifest\.json was not found .*medsass shard SOURCE s3://bucket/no$"):
        remote.load(s3.bucket / "no")


READ = {
    "train s3://bucket/x run --device cpu": "s3://bucket/x/manifest.json",
    "shard s3://bucket/x out": "s3://bucket/x",
    "shard . s3://bucket/x": "s3://bucket/x/manifest.json",
    "verify s3://bucket/x": "s3://bucket/x/manifest.json",
}  # and what each looks for first
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def _environment(variables: dict[str, str], *drop: str) -> dict[str, str]:
    """Return the environment of a process whose access to S3 is decided by these variables alone, without some of them."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    nowhere = {"AWS_SHARED_CREDENTIALS_FILE": os.devnull, "AWS_CONFIG_FILE": os.devnull, "AWS_MAX_ATTEMPTS": "1"}
    return {**inherited, **nowhere, **{name: value for name, value in variables.items() if name not in drop}}


def _assert_refused(folder: Path, environment: dict[str, str], reason: str, remedy: str) -> None:
    """Assert that all commands that read from S3 say the same in one line, and leave nothing behind."""
    answers, heavy = commands.answers([line.split() for line in READ], folder, environment)
    for (code, said), place in zip(answers, READ.values(), strict=True):
        assert said.startswith(f"medsass: {place} cannot be read ({reason}"), said
        assert f"); {remedy}" in said
        assert (code, said.count("\n")) == (2, 1)
    assert list(folder.iterdir()) == []
    assert heavy in ([], ["nvidia.dali"])


def test_missing_credentials_are_one_line(s3: S3, tmp_path: Path) -> None:
    remedy = (
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; a public bucket needs neither: set FSSPEC_S3_"
    )
    _assert_refused(tmp_path, _environment(s3.environment, *KEYS), "Unable to locate credentials", remedy)


def test_an_unreachable_server_is_one_line(s3: S3, tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"  # bound, so nobody else's, and not listening
        environment = _environment({**s3.environment, "AWS_ENDPOINT_URL": url})
        remedy = "check the address and the network and, where the bucket is not Amazon's, AWS_ENDPOINT_URL"
        _assert_refused(tmp_path, environment, "Could not connect to the endpoint URL", remedy)


@pytest.fixture(scope="module")
def web(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The address of a copy of the shards on the web, with an empty cache."""
    pytest.importorskip("aiohttp")
    root = tmp_path_factory.mktemp("web")
    shutil.copytree(folder, root / "shards")
    server = servers.server("http.server", "PORT", "--bind", "127.0.0.1", "--directory", str(root))
    with server as port, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield files.location(f"http://127.0.0.1:{port}/shards")


def test_batches_from_the_web_are_the_folders(folder: Path, web: Path) -> None:
    _assert_same_batches(folder, web)


def test_labels_from_the_web_are_the_folders(folder: Path, web: Path, tmp_path: Path) -> None:
    for shards, name in ((folder, "local"), (web, "web")):
        assert label(LabelConfig(shards, tmp_path / name, device="cpu")) == []
    assert (tmp_path / "web" / "labels.csv").read_bytes() == (tmp_path / "local" / "labels.csv").read_bytes()


def test_a_web_server_without_the_shards_is_named(web: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none/manifest\.json was not found .*medsass shard SOURCE http://"):
        remote.load(web.parent / "none")
