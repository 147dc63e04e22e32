"""`medsass predict`: masks for images, slides or folders of them, at each image's own size."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from medsass import files
from medsass.config import PredictConfig
from medsass.data.formats import opening
from medsass.data.formats.image import MOST_PIXELS, Selection
from medsass.models import checkpoint
from medsass.models.flips import averaged
from medsass.models.network import normalise
from medsass.runs import console, device, image_files, run_directory
from medsass.runs.prediction import image as subject
from medsass.runs.prediction import output_files, tiling
from medsass.runs.prediction.image import Subject
from medsass.runs.prediction.output_files import Job

_PYRAMIDS = frozenset({".tif", ".tiff"})
_STREAMED = _PYRAMIDS | {".npy"}  # beside slides, files that may hold an image of more than MOST_PIXELS


def predict(config: PredictConfig) -> list[tuple[Path, str]]:
    """Write a mask (0 and 255) for each image and return those that could not be read, with the reason.

    Masks are `<stem>.png`; those of slides and of images of more than MOST_PIXELS pixels `<stem>.tif`, at the level
    that is read, predicted in overlapping tiles and never held whole; with --tile other images are predicted in tiles
    too. A tile has the side of --tile, else of the tiles that the run was trained on, else the trained size: pixel for
    pixel.
    Images of more than 8 bits are converted by the rule of the run's shards, once for the whole image; a network that was
    trained on 16 bits sees gray images in 16 bits, each tile scaled by its own range as in training.

    Raises `ValueError` or `OSError` before anything is written where an argument is not an image or a folder with
    images, two images would write one file, or a file is already there.
    """
    trained, facts = run_directory.stored(config.run)
    config = replace(config, level=facts["level"] if config.level is None else config.level)
    where = device.resolve(config.device)
    jobs = list(_jobs(config))
    _check(jobs, config)
    model = checkpoint.load_model(config.run / run_directory.WEIGHTS, trained.model).to(where)
    network = partial(probabilities, averaged(model) if config.flips else model, size=trained.size, where=where)
    tile = config.tile or facts["tile"] or trained.size
    rule, depth = facts["range"], facts["depth"]
    failed = []
    with console.progress("predict", len(jobs)) as bar:
        for job in jobs:
            try:
                with subject.opened(job.image, _level(job.image, config), rule, depth) as image:
                    _write(job, image, network, tile, config, bar)
            except ValueError as error:
                failed.append((job.image, str(error)))
            bar.advance(1)
    return failed


def probabilities(
    model: Callable[[torch.Tensor], torch.Tensor], images: NDArray[Any], size: int, where: str
) -> NDArray[np.float32]:
    """(N, H, W) float32 in [0, 1]: foreground probability of (N, H, W, 3) uint8 RGB or (N, H, W) uint16 gray images.

    The network sees each image at size x size, resized with antialiasing and rounded to whole values, as in training;
    its probabilities are resized back bilinearly.
    """
    batch = torch.from_numpy(np.ascontiguousarray(images)).to(where).float()
    batch = batch.permute(0, 3, 1, 2) if images.ndim == 4 else batch[:, None]
    batch = F.interpolate(batch, (size, size), mode="bilinear", antialias=True).round()
    if images.ndim == 4:
        small = batch.clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    else:
        small = batch.clamp(0, 65535).to(torch.uint16)[:, 0]
    with torch.no_grad(), torch.autocast(where, torch.bfloat16, enabled=where == "cuda"):
        logits = model(normalise(small)).float()
    return F.interpolate(logits.sigmoid(), images.shape[1:3], mode="bilinear")[:, 0].cpu().numpy()


def _level(path: Path, config: PredictConfig) -> int:
    """The pyramid level to read; photographs in the same folder as slides have none."""
    return config.level or 0 if path.suffix.lower() in opening.SLIDES | _PYRAMIDS else 0


def _write(
    job: Job, image: Subject, network: tiling.Network, tile: int, config: PredictConfig, bar: console.Bar
) -> None:
    height, width = image.shape
    if height * width > MOST_PIXELS and not job.large:
        raise ValueError(
            f"{width}x{height} pixels are too many for a PNG mask; name the image .tif, .npy or as a slide"
        )
    job.mask.parent.mkdir(parents=True, exist_ok=True)
    write = output_files.write_tiff if job.large else output_files.write_png
    if not config.tile and not job.large:
        write(job, image, [network(np.stack([image.seen()]))[0]], config)
        return
    with closing(tiling.bands(image.seen, network, image.shape, tile, config.overlap)) as bands:
        write(job, image, _told(bands, f"of {height} rows of {job.image.name}", bar), config)


def _told(bands: Iterator[NDArray[np.float32]], text: str, bar: console.Bar) -> Iterator[NDArray[np.float32]]:
    """The same bands; the progress bar shows how many rows are done, and `text`."""
    done = 0
    for band in bands:
        done += len(band)
        bar.advance(0, f"{done} {text}")
        yield band


def _jobs(config: PredictConfig) -> Iterator[Job]:
    if not config.images:
        raise ValueError("no image given: medsass predict RUN IMAGE|FOLDER...")
    for path in config.images:
        if path.is_dir():
            for item in image_files.in_folder(path):
                yield _job(item, config.out / item.relative_to(path).parent, config)
        elif path.is_file():
            yield _job(path, config.out, config)
        else:
            raise FileNotFoundError(f"{path}: no such image or folder")


def _job(image: Path, folder: Path, config: PredictConfig) -> Job:
    return Job(image, folder / f"{image.stem}{'.tif' if _is_large(image, config) else '.png'}")


def _is_large(image: Path, config: PredictConfig) -> bool:
    """True for slides, and for images whose header tells of more than MOST_PIXELS pixels."""
    suffix = image.suffix.lower()
    if suffix in opening.SLIDES or suffix not in _STREAMED:
        return suffix in opening.SLIDES
    try:
        with opening.open_image(image, Selection(level=_level(image, config))) as picture:
            return picture.height * picture.width > MOST_PIXELS
    except (ValueError, OSError, ImportError):
        return False  # what is wrong with it is told when it is its turn


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
            files.check_new(path, "--out", config.overwrite)
