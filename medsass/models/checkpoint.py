"""Checkpoints: written whole or not at all, read without running code from the file."""

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import nn

from medsass import files
from medsass.config import MODELS
from medsass.models import network

WEIGHTS = "model.safetensors"  # in a run directory

_ENCODER = "encoder."  # begins the names of an encoder's weights, in a network's file as in an encoder's own


def save(path: Path, content: dict[str, Any]) -> None:
    """Write `content` (tensors, numbers, text, lists and dicts of these) so that `path` is always a whole checkpoint."""
    data = io.BytesIO()  # torch.save would hide why a disk cannot be written to
    torch.save(content, data)
    files.write(path, data.getbuffer())


def load(path: Path) -> dict[str, Any]:
    """The content of a checkpoint on the CPU, read with weights_only=True.

    Raises `FileNotFoundError` or `ValueError` where it is missing, damaged or something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: no epoch of this run was finished; start it with medsass train")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError, LookupError) as error:
        raise ValueError(
            f"{path} is not a medsass checkpoint, or is damaged ({_first_line(error)}); train again"
        ) from error
    if not isinstance(content, dict) or "model" not in content:
        raise ValueError(
            f"{path} is not a medsass checkpoint: it holds no 'model'; give the run directory of medsass train"
        )
    return content


def save_weights(path: Path, state: Mapping[str, torch.Tensor]) -> None:
    """Write a network's state dict, or its `encoder.*` part alone, as safetensors: for evaluate, predict and other tools."""
    files.write(path, to_bytes({name: tensor.contiguous() for name, tensor in state.items()}))


def load_model(path: Path, name: str) -> nn.Module:
    """The network `name` with the weights of a safetensors file, in evaluation mode on the CPU.

    This and the next three leave torch's random state as it was, and raise `FileNotFoundError` or `ValueError` where the
    file is missing, damaged or of another network; this one also where it holds an encoder alone.
    """
    state = _read(path, name)
    if _is_encoder(state):
        raise ValueError(
            f"{path} holds an encoder alone (a run of --scope encoder, or of byol, dino, ...); score it with "
            "medsass evaluate --protocol linear, or make a network of it: medsass train SHARDS RUN "
            f"--method supervised --model {name} --init {path.parent}"
        )
    model = _built(name)
    _fill(model, state, path, name)
    return model.eval()


def load_encoder(path: Path, name: str) -> nn.Module:
    """The encoder of the network `name`, with the weights of a whole network's file or of an encoder's own, in evaluation
    mode on the CPU. Errors: as `load_model`.
    """
    return cast(nn.Module, load_fresh(path, name, 0).encoder)


def load_fresh(path: Path, name: str, seed: int) -> nn.Module:
    """The network `name` with the encoder of a file, as `load_encoder` takes it, and all else untrained, as `seed` draws
    it; in evaluation mode on the CPU. Errors: as `load_model`.
    """
    model = _built(name, seed)
    _fill(model, _encoder_of(_read(path, name)), path, name)
    return model.eval()


def load_into(path: Path, model: nn.Module, name: str) -> None:
    """Give `model`, a network `name` or one that has its encoder only, the weights of a file: the encoder's, and the
    rest where both have more. Errors: as `load_model`.
    """
    state = _read(path, name)
    if _is_encoder(model.state_dict()):
        state = _encoder_of(state)
    _fill(model, state, path, name)


def _read(path: Path, name: str) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: no epoch of this run was finished; start it with medsass train")
    try:
        return load_file(path)
    except Exception as error:  # SafetensorError derives from Exception alone
        raise ValueError(f"{path} does not hold the weights of {name} ({_first_line(error)}); train again") from error


def _built(name: str, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reset the GPUs' generators too
        return network.build(name)


def _fill(model: nn.Module, state: dict[str, torch.Tensor], path: Path, name: str) -> None:
    """Load `state` into `model`, or into its encoder where it is an encoder's: every weight of it and no other."""
    wanted = model.state_dict()
    problem = _difference(_encoder_of(wanted) if _is_encoder(state) else wanted, state)
    if problem:
        owner = _owner(state)
        if owner and owner != name:
            raise ValueError(
                f"{path} does not hold the weights of {name} but of {owner}; give a run of {name}, or --model {owner}"
            )
        raise ValueError(f"{path} does not hold the weights of {name} ({problem}); train again")
    model.load_state_dict(state, strict=False)


def _difference(wanted: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> str:
    """The first thing in which the names or shapes of `state` are not those `wanted`; empty where all fit."""
    for key, tensor in wanted.items():
        if key not in state:
            return f"{key} is missing"
        if state[key].shape != tensor.shape:
            return f"{key} has the shape {tuple(state[key].shape)} in place of {tuple(tensor.shape)}"
    return next((f"it has no {key}" for key in state if key not in wanted), "")


def _owner(state: Mapping[str, torch.Tensor]) -> str:
    """The network whose encoder `state` holds; empty where it is none's."""
    found = _encoder_of(state)
    return next((name for name in MODELS if not _difference(_encoder_of(_built(name).state_dict()), found)), "")


def _encoder_of(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: tensor for key, tensor in state.items() if key.startswith(_ENCODER)}


def _is_encoder(state: Mapping[str, torch.Tensor]) -> bool:
    return bool(state) and all(key.startswith(_ENCODER) for key in state)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(":. ")
