"""Checkpoints: complete or absent, and never code."""

import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from medsass import files
from medsass.models import checkpoint, network


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


def test_a_machine_without_memory_is_not_called_a_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path / "a.pt", {"model": {}})

    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(MemoryError):
        checkpoint.load(tmp_path / "a.pt")


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


NAMES = ("unet-resnet18", "unet-vit-tiny")


def _stored(path: Path, name: str, alone: bool = False) -> dict[str, torch.Tensor]:
    """Write the weights of a new network or only its encoder, with running statistics as after training."""
    torch.manual_seed(3)
    model = network.build(name)
    model(torch.randn(2, 3, 32, 32))
    state = {key: value for key, value in model.state_dict().items() if not alone or key.startswith("encoder.")}
    files.write(path, checkpoint.to_bytes(state))
    return state


def _same(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def _part(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key.removeprefix("encoder."): value for key, value in state.items() if key.startswith("encoder.")}


@pytest.mark.parametrize("name", NAMES)
def test_saved_weights_come_back_bit_for_bit_also_by_safetensors_alone(tmp_path: Path, name: str) -> None:
    state = _stored(tmp_path / "m.safetensors", name)
    loaded = checkpoint.load_model(tmp_path / "m.safetensors", name)
    assert not loaded.training
    assert _same(loaded.state_dict(), state)
    assert _same(load_file(tmp_path / "m.safetensors"), state)


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_an_encoder_comes_back_bit_for_bit_from_a_networks_file_and_from_its_own(
    tmp_path: Path, name: str, alone: bool
) -> None:
    state = _stored(tmp_path / "m.safetensors", name, alone)
    loaded = checkpoint.load_encoder(tmp_path / "m.safetensors", name)
    assert not loaded.training
    assert _same(loaded.state_dict(), _part(state))


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_fresh_decoder_is_that_of_a_new_network_of_its_seed(tmp_path: Path, name: str, alone: bool) -> None:
    path = tmp_path / "m.safetensors"
    state = _stored(path, name, alone)
    loaded = checkpoint.load_fresh(path, name, 7)
    torch.manual_seed(7)
    expected = network.build(name).state_dict() | {
        key: item for key, item in state.items() if key.startswith("encoder.")
    }
    assert not loaded.training
    assert _same(loaded.state_dict(), expected)
    other = checkpoint.load_fresh(path, name, 8).state_dict()
    assert _same(_part(other), _part(state))
    weights = [key for key in expected if not key.startswith("encoder.") and expected[key].ndim == 4]
    assert weights
    assert not any(torch.equal(other[key], expected[key]) for key in weights)


@pytest.mark.parametrize("load", [checkpoint.load_model, checkpoint.load_encoder, checkpoint.load_fresh])
def test_loading_leaves_the_random_state_as_it_was(tmp_path: Path, load: Callable[..., object]) -> None:
    _stored(tmp_path / "m.safetensors", "unet-resnet18")
    before = torch.get_rng_state()
    load(*(tmp_path / "m.safetensors", "unet-resnet18", 5)[: 3 if load is checkpoint.load_fresh else 2])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", NAMES)
def test_a_network_starts_from_all_of_a_networks_file(tmp_path: Path, name: str) -> None:
    state, model = _stored(tmp_path / "m.safetensors", name), network.build(name)
    checkpoint.load_into(tmp_path / "m.safetensors", model, name)
    assert model.training
    assert _same(model.state_dict(), state)


@pytest.mark.parametrize("name", NAMES)
def test_a_network_starts_from_an_encoders_file_with_its_own_decoder(tmp_path: Path, name: str) -> None:
    state, model = _stored(tmp_path / "m.safetensors", name, alone=True), network.build(name)
    before = {key: item.clone() for key, item in model.state_dict().items()}
    checkpoint.load_into(tmp_path / "m.safetensors", model, name)
    assert _same(model.state_dict(), before | state)


def test_an_encoder_alone_is_no_network_and_the_message_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    _stored(path, "unet-resnet18", alone=True)
    with pytest.raises(ValueError, match="holds an encoder alone") as error:
        checkpoint.load_model(path, "unet-resnet18")
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    assert "--protocol linear" in message
    assert f"--method supervised --model unet-resnet18 --init {tmp_path}" in message


def _into(path: Path, name: str) -> object:
    return checkpoint.load_into(path, network.build(name), name)


LOADS = (checkpoint.load_model, checkpoint.load_encoder, lambda path, name: checkpoint.load_fresh(path, name, 0), _into)


@pytest.mark.parametrize("load", LOADS, ids=["model", "encoder", "fresh", "into"])
def test_weights_of_another_network_are_refused_and_both_are_named(
    tmp_path: Path, load: Callable[[Path, str], object]
) -> None:
    path = tmp_path / "m.safetensors"
    _stored(path, "unet-resnet18")
    with pytest.raises(ValueError, match="does not hold the weights of unet-vit-tiny but of unet-resnet18") as error:
        load(path, "unet-vit-tiny")
    assert str(path) in str(error.value)


def test_weights_that_lack_one_or_have_one_too_many_are_refused_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "MODELS", NAMES)  # each message takes building all of them
    path = tmp_path / "m.safetensors"
    state = _stored(path, "unet-resnet18")
    bias = "segmentation_head.0.bias"
    cases = {
        f"{bias} is missing": {key: item for key, item in state.items() if key != bias},
        "it has no surplus": {**state, "surplus": torch.zeros(1)},
        rf"{bias} has the shape \(2,\) in place of \(1,\)": {**state, bias: torch.zeros(2)},
        r"encoder\.conv1\.weight is missing": {"conv1.weight": state["encoder.conv1.weight"]},
    }
    for message, content in cases.items():
        files.write(path, checkpoint.to_bytes(content))
        with pytest.raises(ValueError, match=rf"does not hold the weights of unet-resnet18 \({message}\)"):
            checkpoint.load_model(path, "unet-resnet18")


@pytest.mark.parametrize("data", [b"", b"garbage", b"\x10\0\0\0\0\0\0\0{broken"])
@pytest.mark.parametrize("load", LOADS, ids=["model", "encoder", "fresh", "into"])
def test_weights_that_are_damaged_are_refused_by_name(
    tmp_path: Path, data: bytes, load: Callable[[Path, str], object]
) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="does not hold the weights") as error:
        load(path, "unet-resnet18")
    assert str(path) in str(error.value)


@pytest.mark.parametrize("load", LOADS, ids=["model", "encoder", "fresh", "into"])
def test_missing_files_are_named(tmp_path: Path, load: Callable[[Path, str], object]) -> None:
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors is missing"):
        load(tmp_path / "model.safetensors", "unet-resnet18")
    with pytest.raises(FileNotFoundError, match=r"last\.pt is missing"):
        checkpoint.load(tmp_path / "last.pt")
