"""Inputs and outputs of `medsass predict`: images, slides, runs with untrained weights, and the files that it wrote."""

from pathlib import Path

import numpy as np
import tifffile
import torch
from PIL import Image

from medsass import files
from medsass.config import PredictConfig, TrainConfig
from medsass.models import checkpoint, network
from medsass.runs import run_directory
from medsass.runs.prediction.predict import predict
from tests.conftest import facts

SIZE = 32  # of the images that these runs were trained on


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    """Return (height, width) floats in [0, 1] that cover the range within 400 pixels."""
    y, x = np.mgrid[:height, :width]
    return np.asarray(0.5 + 0.5 * np.sin(y / 37) * np.cos(x / 53))


def save_image(path: Path, height: int = 40, width: int = 56) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(height, width)).save(path)
    return path


def save_slide(path: Path, array: np.ndarray, **options: object) -> Path:
    """Write a tiled TIFF, which counts as a slide if it is named .svs, .ndpi or .scn."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, array, tile=(64, 64), compression="zlib", metadata=None, **options)
    return path


def save_run(path: Path, **changes: object) -> Path:
    """Write a run directory with initial weights."""
    run_directory.create(TrainConfig(Path("shards"), path, model="unet-resnet18", size=SIZE), facts(**changes))
    torch.manual_seed(0)
    files.write(path / run_directory.WEIGHTS, checkpoint.to_bytes(network.build("unet-resnet18").state_dict()))
    return path


def run_predict(trained: Path, out: Path, *images: Path, **options: object) -> list[tuple[Path, str]]:
    return predict(PredictConfig(trained, images, out, device="cpu", **options))  # type: ignore[arg-type]


def files_in(out: Path) -> set[str]:
    return {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}


def read(path: Path) -> np.ndarray:
    if path.suffix == ".tif":
        return np.asarray(tifffile.imread(path))
    with Image.open(path) as image:
        return np.asarray(image)
