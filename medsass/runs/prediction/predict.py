"""`medsass predict`: masks for images, slides or folders of them, at each image's own size."""

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from medsass import foreign, temporary
from medsass.config import PredictConfig
from medsass.data.formats.image import MOST_PIXELS
from medsass.models import checkpoint
from medsass.models.flips import averaged
from medsass.models.network import normalise
from medsass.runs import console, device, preflight, run_directory
from medsass.runs.image_files import Outputs
from medsass.runs.prediction import output_files, tiling
from medsass.runs.prediction.image import InputImage, open_input
from medsass.runs.preflight import Trained

_SLICES = 16  # of a stack that the network gets at once


def predict(config: PredictConfig, found: Trained | None = None) -> list[tuple[Path, str]]:
    """Write a mask (0 and 255) for each image and return those that could not be read, with the reason.

    Masks are `<stem>.png`. Slides and images of more than MOST_PIXELS pixels get `<stem>.tif`, at the level that is read,
    predicted in overlapping tiles and never whole in memory; with --tile other images are predicted in tiles too. A tile
    has the side of --tile, else of the tiles that the run was trained on, else the trained size: pixel for pixel.
    A volume (NIfTI, NRRD, MetaImage) gets a volume of the same geometry, 0 and 1, and a stack a TIFF of as many pages.
    Images of more than 8 bits are converted by the rule of the run's shards, once for the whole image; a network that was
    trained on 16 bits sees gray images in 16 bits, each tile scaled by its own range as in training.

    Raises `ValueError` or `OSError` before anything is written where an argument is not an image or a folder with
    images, two images would write one file, or a file is already there. `found` is what `preflight.predict` returned, if the
    caller has called it.
    """
    found = found or preflight.predict(config)
    trained, facts, inputs = found.config, found.facts, found.inputs
    where = device.resolve(config.device)
    device.check_memory(trained.size, 1, device.NETWORK, where)
    model = checkpoint.load_model(config.run / run_directory.WEIGHTS, trained.model).to(where)
    network = partial(probabilities, averaged(model) if config.flips else model, size=trained.size, where=where)
    tile = config.tile or facts.tile or trained.size
    if not config.tile and tile * tile > MOST_PIXELS:
        raise ValueError(f"{config.run}: its tiles of {tile} x {tile} pixels are too large to predict; give a --tile")
    window = config.bounds() or facts.bounds()
    failed = []
    config.out.mkdir(parents=True, exist_ok=True)
    with console.progress("predict", len(inputs)) as bar, temporary.scratch(config.out):
        for outputs in inputs:
            try:
                opened = open_input(outputs.source, outputs.view, facts.range, facts.depth, window)
                with foreign.reading(outputs.image.name), opened as images:
                    outputs.mask.parent.mkdir(parents=True, exist_ok=True)
                    if outputs.form == "stack":
                        _write_stack(outputs, images, network, tile, config, bar)
                    else:
                        _write(outputs, images[0], network, tile, config, bar)
            except ValueError as error:
                failed.append((outputs.image, str(error)))
            bar.advance(1)
    console.out.print(f"{len(inputs) - len(failed)} of {len(inputs)} masks written to {config.out}")
    return failed


def probabilities(
    model: Callable[[torch.Tensor], torch.Tensor], images: NDArray[Any], size: int, where: str
) -> NDArray[np.float32]:
    """Predict the foreground probability, (N, H, W) float32 in [0, 1].

    The network sees each image at size x size, resized with antialiasing and rounded to whole values, as in training;
    its probabilities are resized back bilinearly.

    Args:
        model: (N, 3, S, S) normalised images to (N, 1, S, S) logits.
        images: (N, H, W, 3) uint8 RGB or (N, H, W) uint16 gray.
        size: S, the side that the network sees.
        where: the device.
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


def _write(
    outputs: Outputs, image: InputImage, network: tiling.Network, tile: int, config: PredictConfig, bar: console.Bar
) -> None:
    height, width = image.shape
    large = outputs.form == "large"
    if height * width > MOST_PIXELS and not large:
        raise ValueError(
            f"{width}x{height} pixels are too many for a PNG mask; name the image .tif, .npy or as a slide"
        )
    if not config.tile and not large:
        output_files.write_png(outputs, image, [network(np.stack([image.seen()]))[0]], config)
        return

    def counted(bands: Iterator[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        done = 0
        for band in bands:
            done += len(band)
            bar.advance(0, f"{done} of {height} rows of {outputs.image.name}")
            yield band

    write = output_files.write_tiff if large else output_files.write_png
    with closing(tiling.bands(image.seen, network, image.shape, tile, config.overlap)) as bands:
        write(outputs, image, counted(bands), config)


def _write_stack(
    outputs: Outputs,
    images: list[InputImage],
    network: tiling.Network,
    tile: int,
    config: PredictConfig,
    bar: console.Bar,
) -> None:
    """Predict all slices of a volume or stack, several at once unless in tiles, and write its files."""
    chances: list[NDArray[np.uint16]] = []
    step = 1 if config.tile else _SLICES
    for start in range(0, len(images), step):
        some = images[start : start + step]
        if config.tile:
            image = some[0]
            with closing(tiling.bands(image.seen, network, image.shape, tile, config.overlap)) as bands:
                chances.append(output_files.levels(np.concatenate(list(bands))))
        else:
            chances += map(output_files.levels, network(np.stack([image.seen() for image in some])))
        bar.advance(0, f"{start + len(some)} of {len(images)} slices of {outputs.image.name}")
    output_files.write_stack(outputs, images, np.stack(chances), config)
