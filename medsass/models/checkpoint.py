"""Checkpoints: written whole or not at all, read without running code from the file."""

import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes

from medsass import files
from medsass.models import unet


def save(path: Path, content: dict[str, Any]) -> None:
    """Write `content` (tensors, numbers, text, lists and dicts of these) so that `path` is always a whole checkpoint."""
    with files.atomic(path) as file:
        torch.save(content, file)


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


def save_weights(path: Path, model: torch.nn.Module) -> None:
    """Write the model's weights as safetensors, for use outside of medsass and by evaluate and predict."""
    files.write(path, to_bytes({name: tensor.contiguous() for name, tensor in model.state_dict().items()}))


def load_model(path: Path, name: str) -> torch.nn.Module:
    """The U-Net `name` with the weights of a safetensors file, in evaluation mode on the CPU.

    Raises `FileNotFoundError` or `ValueError` where the file is missing, damaged or of another network.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: no epoch of this run was finished; start it with medsass train")
    model = unet.build(name)
    try:
        model.load_state_dict(load_file(path))
    except Exception as error:  # SafetensorError derives from Exception alone
        raise ValueError(f"{path} does not hold the weights of {name} ({_first_line(error)}); train again") from error
    return model.eval()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(":. ")
