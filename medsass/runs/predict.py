"""`medsass predict`: masks for images or folders of images, at each image's own size."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

from medsass.config import PredictConfig
from medsass.data import sources
from medsass.models import checkpoint, unet
from medsass.runs import console, device, directory, panels


@dataclass(frozen=True)
class Job:
    """One image and the file that its mask goes to; overlay and probability stand beside it."""

    image: Path
    mask: Path

    def beside(self, kind: str) -> Path:
        """The path of the overlay or the probability."""
        return self.mask.with_name(f"{self.mask.stem}_{kind}.png")

    def outputs(self, config: PredictConfig) -> list[Path]:
        """All files that `config` asks for."""
        beside = [kind for kind, wanted in (("overlay", config.overlay), ("probability", config.probability)) if wanted]
        return [self.mask, *map(self.beside, beside)]


def predict(config: PredictConfig) -> list[tuple[Path, str]]:
    """Write a mask (PNG, 0 and 255) for each image and return those that could not be read, with the reason.

    Raises `ValueError` or `OSError` before anything is written where an argument is not an image or a folder with
    images, two images would write one file, or a file is already there.
    """
    trained, _ = directory.stored(config.run)
    where = device.resolve(config.device)
    jobs = list(_jobs(config))
    _check(jobs, config)
    model = checkpoint.load_model(config.run / directory.WEIGHTS, trained.model).to(where)
    failed = []
    with console.progress("predict", len(jobs)) as bar:
        for job in jobs:
            try:
                image = sources.read_image(job.image).array
            except (ValueError, OSError) as error:
                failed.append((job.image, str(error)))
                continue
            rgb = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
            _save(job, rgb, probability(model, rgb, trained.size, where), config)
            bar.advance(1)
    return failed


def probability(model: torch.nn.Module, image: NDArray[np.uint8], size: int, where: str) -> NDArray[np.float32]:
    """(H, W) float32 in [0, 1]: foreground probability of an (H, W, 3) uint8 RGB image.

    The network sees the image at size x size, resized with antialiasing and rounded to 8 bits, as in training; its
    probabilities are resized back bilinearly.
    """
    batch = torch.from_numpy(np.ascontiguousarray(image)).to(where).permute(2, 0, 1)[None].float()
    batch = F.interpolate(batch, (size, size), mode="bilinear", antialias=True)
    small = batch.round().clamp(0, 255).byte().permute(0, 2, 3, 1)
    with torch.no_grad(), torch.autocast(where, torch.bfloat16, enabled=where == "cuda"):
        logits = model(unet.normalise(small)).float()
    return F.interpolate(logits.sigmoid(), image.shape[:2], mode="bilinear")[0, 0].cpu().numpy()


def _save(job: Job, image: NDArray[np.uint8], chance: NDArray[np.float32], config: PredictConfig) -> None:
    mask = (chance > 0.5).astype(np.uint8)
    job.mask.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask * np.uint8(255)).save(job.mask)
    if config.overlay:
        Image.fromarray(panels.outlined(image, mask)).save(job.beside("overlay"))
    if config.probability:
        Image.fromarray(np.rint(chance * 65535).astype(np.uint16)).save(job.beside("probability"))


def _jobs(config: PredictConfig) -> Iterator[Job]:
    if not config.images:
        raise ValueError("no image given: medsass predict RUN IMAGE|FOLDER...")
    for path in config.images:
        if path.is_dir():
            images = sorted(
                item for item in path.rglob("*") if item.suffix.lower() in sources.SUFFIXES and item.is_file()
            )
            if not images:
                raise FileNotFoundError(
                    f"{path}: no image in this folder; known: {', '.join(sorted(sources.SUFFIXES))}"
                )
            yield from (Job(item, (config.out / item.relative_to(path)).with_suffix(".png")) for item in images)
        elif path.is_file():
            yield Job(path, config.out / f"{path.stem}.png")
        else:
            raise FileNotFoundError(f"{path}: no such image or folder")


def _check(jobs: list[Job], config: PredictConfig) -> None:
    inputs = {job.image.resolve() for job in jobs}
    writers: dict[Path, Path] = {}
    for job in jobs:
        for path in job.outputs(config):
            other = writers.setdefault(path, job.image)
            if other != job.image:
                raise ValueError(
                    f"{other} and {job.image} would both write {path}; predict them into different folders"
                )
            if path.resolve() in inputs:
                raise ValueError(f"{path} is an input image and would be replaced; choose another --out")
            if path.exists() and not config.overwrite:
                raise FileExistsError(f"{path} exists; choose another --out, or replace it with --overwrite")
