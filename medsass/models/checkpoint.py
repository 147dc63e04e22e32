"""Checkpoints: written atomically, read without running code from the file."""

import io
import math
import pickle
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import nn

from medsass import files
from medsass.config import MODELS
from medsass.models import network

_MOST = 16 << 30, 64 << 20, 1 << 16  # bytes of a checkpoint, and of its part that holds no tensors; its members
_ENCODER = "encoder."  # prefix of an encoder's weights, in a network's file and in an encoder's own


def save(path: Path, content: dict[str, Any]) -> None:
    """Write `content` (tensors, numbers, text, lists and dicts of these) so that `path` is always a complete checkpoint."""
    data = io.BytesIO()  # torch.save would hide why a disk cannot be written to
    torch.save(content, data)
    files.write(path, data.getbuffer())


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, with weights_only=True; tensors stay in the file until they are used.

    Raises `FileNotFoundError` if it is missing, `ValueError` if it is damaged or something else.
    """
    what = "is not a medsass checkpoint, or is damaged"
    _opened(path, _check_zip, what)
    content = _opened(path, partial(torch.load, map_location="cpu", weights_only=True, mmap=True), what)
    if not isinstance(content, dict) or "model" not in content:
        raise ValueError(
            f"{path} is not a medsass checkpoint: it holds no 'model'; give the run directory of medsass train"
        )
    return content


def to_bytes(state: Mapping[str, torch.Tensor]) -> bytes:
    """Return a network's state dict, or only its `encoder.*` part, as a safetensors file."""
    return serialise({name: tensor.contiguous() for name, tensor in state.items()})


def load_model(path: Path, name: str) -> nn.Module:
    """Load the network `name` from a safetensors file, in evaluation mode on the CPU.

    This and the next three functions leave torch's random state unchanged. They raise `FileNotFoundError` if the file is
    missing, and `ValueError` if it is damaged, of another network, or (here only) holds an encoder alone.
    """
    state = _read(path, name)
    if _is_encoder(state):
        raise ValueError(
            f"{path} holds an encoder alone (a run of --scope encoder, or of byol, dino, ...); score it with "
            "medsass evaluate --protocol linear, or make a network of it: medsass train SHARDS RUN "
            f"--method supervised --model {name} --init {path.parent}"
        )
    model = _build(name)
    _fill(model, state, path, name)
    return model.eval()


def load_encoder(path: Path, name: str) -> nn.Module:
    """Load the encoder of the network `name` from the file of a network or of an encoder, in evaluation mode on the CPU."""
    return cast(nn.Module, load_fresh(path, name, 0).encoder)


def load_fresh(path: Path, name: str, seed: int) -> nn.Module:
    """Load the network `name` with the encoder of a network's or an encoder's file, and everything else untrained.

    What is untrained is initialised with `seed`. The result is in evaluation mode on the CPU.
    """
    model = _build(name, seed)
    _fill(model, _encoder_of(_read(path, name)), path, name)
    return model.eval()


def load_into(path: Path, model: nn.Module, name: str) -> None:
    """Load a file into `model`, a network `name`: all of it, or its encoder from the file of an encoder."""
    _fill(model, _read(path, name), path, name)


def unlike(wanted: Any, found: Any, name: str = "it") -> str:
    """Return the first place where two states differ in names, types or shapes, or `found` holds a number that is not finite;
    "" if there is none.
    """
    if isinstance(wanted, torch.Tensor):
        return _tensor_unlike(wanted, found, name)
    if type(wanted) is not type(found) and not (isinstance(wanted, dict) and isinstance(found, dict)):
        return f"{name} is {type(found).__name__} in place of {type(wanted).__name__}"
    if isinstance(wanted, dict):
        if lacking := next((key for key in wanted if key not in found), None):
            return f"{lacking} is missing"
        if added := next((key for key in found if key not in wanted), None):
            return f"it has no {added}"
        return next(filter(None, (unlike(wanted[key], found[key], str(key)) for key in wanted)), "")
    if isinstance(wanted, (list, tuple)):
        if len(wanted) != len(found):
            return f"{name} has {len(found)} entries in place of {len(wanted)}"
        return next(filter(None, map(unlike, wanted, found, [name] * len(wanted))), "")
    return f"{name} is {found}" if isinstance(found, float) and not math.isfinite(found) else ""


def _tensor_unlike(wanted: torch.Tensor, found: Any, name: str) -> str:
    if not isinstance(found, torch.Tensor):
        return f"{name} is {type(found).__name__} in place of numbers"
    if found.shape != wanted.shape:
        return f"{name} has the shape {tuple(found.shape)} in place of {tuple(wanted.shape)}"
    if (found.dtype, found.layout) != (wanted.dtype, wanted.layout) or found.is_meta:
        return f"{name} has the type {_type(found)} in place of {_type(wanted)}"
    if not found.isfinite().all():
        return f"{name} holds NaN or infinite numbers"
    return f"{name} holds negative variances" if name.endswith("running_var") and (found < 0).any() else ""


def _type(tensor: torch.Tensor) -> str:
    return " ".join(str(each).removeprefix("torch.") for each in (tensor.layout, tensor.dtype, tensor.device.type))


def _check_zip(path: Path) -> None:
    """Raise `ValueError` where a checkpoint is compressed, as torch's never are: 10 MB could become 10 GB. torch reads files
    of other kinds too, which medsass does not write.
    """
    size, (most, most_else, most_members) = path.stat().st_size, _MOST
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if any(item.compress_type != zipfile.ZIP_STORED for item in members):
        raise ValueError("its parts are compressed")
    if sum(item.file_size for item in members) > size or size > most or len(members) > most_members:
        raise ValueError("its parts are larger than they can be")
    if any(item.file_size > most_else for item in members if item.filename.endswith("/data.pkl")):
        raise ValueError("its text is larger than it can be")


def _opened(path: Path, read: Callable[[Path], Any], what: str) -> Any:
    """Read a file by another library, whose errors become one line that says `what` it is not."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: no epoch of this run was finished; start it with medsass train")
    try:
        return read(path)
    except MemoryError:
        raise
    except Exception as error:  # torch's reader of pickles raises what a damaged one makes of it, AssertionError too
        line = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(":. ")
        if isinstance(error, pickle.UnpicklingError):
            line = "it holds more than numbers and text"  # torch advises to run its code
        raise ValueError(f"{path} {what} ({line}); train again") from error


def _read(path: Path, name: str) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = _opened(path, load_file, f"does not hold the weights of {name}")
    return state


def _build(name: str, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reset the GPUs' generators too
        return network.build(name)


def _fill(model: nn.Module, state: dict[str, torch.Tensor], path: Path, name: str) -> None:
    """Load `state` into `model`, or into its encoder if it is an encoder's: all of its weights and no others."""
    wanted = model.state_dict()
    problem = unlike(_encoder_of(wanted) if _is_encoder(state) else wanted, state)
    if problem:
        found = _encoder_of(state)
        for owner in MODELS:
            if owner != name and not unlike(_encoder_of(_build(owner).state_dict()), found):
                raise ValueError(
                    f"{path} does not hold the weights of {name} but of {owner}; give a run of {name}, or --model {owner}"
                )
        raise ValueError(f"{path} does not hold the weights of {name} ({problem}); train again")
    model.load_state_dict(state, strict=False)


def _encoder_of(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: tensor for key, tensor in state.items() if key.startswith(_ENCODER)}


def _is_encoder(state: Mapping[str, torch.Tensor]) -> bool:
    return bool(state) and all(key.startswith(_ENCODER) for key in state)
