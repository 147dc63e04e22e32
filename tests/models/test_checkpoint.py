"""Checkpoints: whole or not there, and never code."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from medsass.models import checkpoint, unet


class Touch:
    """Unpickling this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_round_trip(tmp_path: Path) -> None:
    content = {"model": {"w": torch.arange(6.0).reshape(2, 3)}, "history": [{"epoch": 1, "loss": 0.25}], "name": "x"}
    checkpoint.save(tmp_path / "a.pt", content)
    loaded = checkpoint.load(tmp_path / "a.pt")
    assert torch.equal(loaded["model"]["w"], content["model"]["w"])  # type: ignore[index]
    assert (loaded["history"], loaded["name"]) == (content["history"], "x")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


@pytest.mark.parametrize("data", [b"", b"garbage", b"PK\x03\x04 not a zip", b"\x80\x02}q\x00.", bytes(5000)])
def test_a_file_that_is_no_checkpoint_is_refused_by_name(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="not a medsass checkpoint") as error:
        checkpoint.load(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused_by_name(tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.pt"
    checkpoint.save(path, {"model": {"w": torch.arange(5000.0)}})
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(ValueError, match="damaged") as error:
        checkpoint.load(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_code_in_a_checkpoint_never_runs(tmp_path: Path, how: str) -> None:
    path, proof = tmp_path / "a.pt", tmp_path / "proof"
    content = {"model": Touch(proof)}
    if how == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match="not a medsass checkpoint"):
        checkpoint.load(path)
    assert not proof.exists()


@pytest.mark.parametrize("content", [{"weights": 1}, [1, 2], torch.zeros(2)])
def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="holds no 'model'"):
        checkpoint.load(tmp_path / "a.pt")


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"last\.pt is missing"):
        checkpoint.load(tmp_path / "last.pt")


def test_a_write_that_fails_half_way_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pt"
    checkpoint.save(path, {"model": {"w": torch.ones(3)}})
    before = path.read_bytes()

    def half(_content: object, file: Any) -> None:
        file.write(b"half of it")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="disk full"):
        checkpoint.save(path, {"model": {}})
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["a.pt"]


def test_saved_weights_come_back_bit_for_bit(tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = unet.build("unet-resnet18")
    checkpoint.save_weights(tmp_path / "m.safetensors", model)
    loaded = checkpoint.load_model(tmp_path / "m.safetensors", "unet-resnet18")
    assert not loaded.training
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), model.state_dict().values(), strict=True)
    )


def test_saved_weights_can_be_read_by_safetensors_alone(tmp_path: Path) -> None:
    model = unet.build("unet-resnet18")
    checkpoint.save_weights(tmp_path / "m.safetensors", model)
    stored = load_file(tmp_path / "m.safetensors")
    assert all(torch.equal(stored[name], value) for name, value in model.state_dict().items())


def test_weights_of_another_network_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    checkpoint.save_weights(path, unet.build("unet-resnet18"))
    with pytest.raises(ValueError, match="does not hold the weights of unet-resnet50") as error:
        checkpoint.load_model(path, "unet-resnet50")
    assert str(path) in str(error.value)


@pytest.mark.parametrize("data", [b"", b"garbage", b"\x10\0\0\0\0\0\0\0{broken"])
def test_weights_that_are_damaged_are_refused_by_name(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="does not hold the weights") as error:
        checkpoint.load_model(path, "unet-resnet18")
    assert str(path) in str(error.value)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors is missing"):
        checkpoint.load_model(tmp_path / "model.safetensors", "unet-resnet18")
