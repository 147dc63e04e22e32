"""`medsass evaluate`: score a run's masks against the ground truth, beside two trivial answers on the same images."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from medsass import files
from medsass.config import EvaluateConfig
from medsass.data.loading.loader import Batch, Loader, LoaderConfig
from medsass.labels import Labeler
from medsass.methods.losses import focal_tversky
from medsass.methods.medsass import labeler
from medsass.methods.method import Regime
from medsass.models import checkpoint, encoder, network
from medsass.models.flips import averaged
from medsass.runs import console, device, figures, preflight, run_directory
from medsass.runs.preflight import Trained
from medsass.runs.scoring import linear_head, metrics

_PANEL_ROWS = 3  # each of best, median and worst images

# The linear protocol's, the same for every run: features are standardised, so one learning rate fits all encoders. Of
# 0.03, 0.05 and 0.1 the last had the lowest validation loss on three datasets, but only without early stopping, which ends
# it before its learning rate has fallen: all epochs are run, and the best is kept.
_REGIME, _EPOCHS = Regime(lr=0.1, patience=0), 30

Segment = Callable[[torch.Tensor], torch.Tensor]  # (N, 3, H, W) normalised images -> (N, 1, H, W) logits

# A title -> batches with (N, H, W) uint8 masks in {0, 1}, "truth", "label" and "prediction"; a progress bar has the title.
Examine = Callable[[str], Iterable[tuple[Batch, dict[str, torch.Tensor]]]]


def evaluate(config: EvaluateConfig, found: Trained | None = None) -> dict[str, Any]:
    """Score masks on the split's images that have one, at the size that the run was trained at.

    `config.protocol` selects the masks:

    - network: the run's own network, at the epoch that is kept.
    - paper: the run's encoder in a network whose decoder is untrained, drawn from the run's seed, as the paper scores
      encoders (section 4.1: nothing is fine-tuned). Such a mask is a random function of the features, however good
      these are: the seed decides whether it covers next to nothing or nearly all of the image, and it hardly ever beats
      foreground everywhere. The paper's IoU of ResNet-50 encoders on ISIC-2017 is 0.2395 to 0.2445, and foreground
      everywhere scores about 0.2392 there: the mean share of foreground, since by its appendix B.1 predicting nothing
      is right on 0.7608 of the pixels. Hence `everything` below.
    - linear: the run's encoder, frozen, and a 1 x 1 convolution to one logit, resized bilinearly to the image: the part of
      the mask that can be read off the features without a decoder. It learns from the masks of the shards' training
      split; those of `val` choose its epoch, so they are not unseen where `val` is scored. Its loss is the paper's
      focal-Tversky for all runs alike, whatever theirs was: it rates an overlap, as IoU does, and needs no threshold
      or class weight to be tuned; with cross-entropy nearly nothing would be predicted where foreground is rare.
    - auto: network where the run keeps one, else linear.

    Returns the keys of `metrics.SCORES` and `images`; the same under `labels` for the run's labeler alone and under
    `everything` for foreground everywhere, whose mean IoU is the mean share of foreground; `split`, `protocol`, `flips`.
    Raises `ValueError` or `OSError` with the rule and the remedy. `found` is what `preflight.evaluate` returned, if the caller
    has called it.
    """
    found = found or preflight.evaluate(config)
    protocol = preflight.protocol(config, found.facts)
    examine = _prepare(config, found, protocol)
    parts: dict[str, list[torch.Tensor]] = {"prediction": [], "labels": [], "everything": []}
    keys: list[str] = []
    for batch, masks in examine("evaluate"):
        guesses = (masks["prediction"], masks["label"], torch.ones_like(masks["truth"]))
        for part, guess in zip(parts.values(), guesses, strict=True):
            part.append(metrics.count(guess, masks["truth"]))
        keys += batch.keys
    counts = {name: torch.cat(part, 1).cpu() for name, part in parts.items()}
    scores = {name: {**metrics.scores(item), "images": len(keys)} for name, item in counts.items()}
    result: dict[str, Any] = {**scores.pop("prediction"), "split": config.split, "protocol": protocol,
                              "flips": config.flips, **scores}  # fmt: skip
    if config.json:
        files.write(config.json, json.dumps(result, indent=1) + "\n")
    if config.panel:
        _draw_panel(config.panel, examine, keys, metrics.iou(counts["prediction"]).tolist())
    return result


def show(result: dict[str, Any]) -> None:
    """Print the scores as a table: the protocol's beside those of the bare labels and of foreground everywhere."""
    columns = (result, result["labels"], result["everything"])
    rows = [[name.replace("_", " "), *(f"{column[name]:.4f}" for column in columns)] for name in metrics.SCORES]
    console.out.print(
        f"{result['images']} images of split '{result['split']}', mean over images (iou dataset: all pixels together)"
    )
    protocol = f"{result['protocol']}, flips" if result["flips"] else result["protocol"]
    console.out.print(console.table(["", protocol, "bare labels", "everything foreground"], rows))


def _prepare(config: EvaluateConfig, found: Trained, protocol: str) -> Examine:
    """Return what examines the split by a protocol, never "auto"."""
    trained, dataset, where = found.config, found.dataset, device.resolve(config.device)
    images = min(config.batch_size, dataset.split(config.split).samples)
    device.check_memory(trained.size, images, device.ENCODER if protocol == "linear" else device.NETWORK, where)
    plain = LoaderConfig(config.shards, config.split, trained.size, config.batch_size, where, threads=config.threads)
    plain = replace(plain, masks=True)
    loader, weights = Loader(plain, dataset), config.run / run_directory.WEIGHTS
    segment: Segment
    if protocol == "network":
        segment = checkpoint.load_model(weights, trained.model).to(where)
    elif protocol == "paper":
        segment = checkpoint.load_fresh(weights, trained.model, trained.seed).to(where)
    else:
        device.seed(trained.seed, where)
        frozen = checkpoint.load_encoder(weights, trained.model).to(where).eval().requires_grad_(False)
        train, val = (Loader(replace(plain, split=split), dataset) for split in ("train", "val"))
        segment = _linear(frozen, train, val, where)
    segment = averaged(segment) if config.flips else segment
    return partial(_examined, loader, segment, labeler(trained, found.facts.polarity), where)


def _examined(
    loader: Loader, segment: Segment, label: Labeler, where: str, title: str
) -> Iterator[tuple[Batch, dict[str, torch.Tensor]]]:
    with console.progress(title, loader.samples) as bar:
        for batch in loader:
            assert batch.masks is not None
            with torch.no_grad(), torch.autocast(where, torch.bfloat16, enabled=where == "cuda"):
                prediction = (segment(network.normalise(batch.images))[:, 0] > 0).byte()
            yield batch, {"truth": batch.masks, "label": label(batch.images).mask, "prediction": prediction}
            bar.advance(len(batch.images))


def _linear(frozen: nn.Module, train: Loader, val: Loader, where: str) -> Segment:
    """Train the head of the linear protocol upon a frozen encoder."""

    def see(batch: Batch) -> linear_head.Pair:
        assert batch.masks is not None
        with torch.autocast(where, torch.bfloat16, enabled=where == "cuda"):
            return encoder.feature_map(frozen, network.normalise(batch.images)), batch.masks

    seen, judged = (linear_head.cached(linear_head.Features(loader, see)) for loader in (train, val))
    layers = nn.Sequential(linear_head.Standardise(seen), nn.Conv2d(encoder.width(frozen), 1, 1)).to(where)
    training = linear_head.Training(
        seen,
        judged,
        lambda logits, target: focal_tversky(F.interpolate(logits, target.shape[1:], mode="bilinear"), target),
        _REGIME,
        _EPOCHS,
    )
    with console.progress("linear head", _EPOCHS, "epochs") as bar:
        linear_head.fit(layers, training, lambda _: bar.advance(1))

    def segment(images: torch.Tensor) -> torch.Tensor:
        features = encoder.feature_map(frozen, images).float()
        with torch.autocast(where, enabled=False):  # as the head was trained
            return F.interpolate(layers(features), images.shape[2:], mode="bilinear")

    return segment


def _draw_panel(path: Path, examine: Examine, keys: list[str], ious: list[float]) -> None:
    """Draw input, truth, label and prediction of the best, median and worst images, by the prediction's IoU.

    A second pass over the split, so that the first need not keep every image in memory.
    """
    order = np.argsort(ious, kind="stable")[::-1]
    middle = max(0, (len(order) - _PANEL_ROWS) // 2)
    starts = {"best": 0, "median": middle, "worst": max(0, len(order) - _PANEL_ROWS)}
    chosen = {name: order[start : start + _PANEL_ROWS] for name, start in starts.items()}
    wanted = {keys[index]: (name, ious[index]) for name, indices in chosen.items() for index in indices}
    rows: dict[str, list[figures.Tile]] = {}
    for batch, masks in examine("panel"):
        for i, key in enumerate(batch.keys):
            if key in wanted:
                name, value = wanted[key]
                images = [tensor[i].cpu().numpy() for tensor in (batch.images, *masks.values())]
                captions = [key, "", "", f"{name}: IoU {value:.3f}"]
                rows[key] = list(zip(images, captions, strict=True))
    figures.sheet([rows[key] for key in wanted], path, ["input", "truth", "label", "prediction"])
