"""`medsass evaluate`: how well a run's predictions fit the ground truth, beside the bare labels on the same images."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from medsass import files
from medsass.config import EvaluateConfig, TrainConfig
from medsass.data.loader import Batch, Loader, LoaderConfig
from medsass.methods.medsass import labeler
from medsass.models import checkpoint, unet
from medsass.runs import console, device, directory, metrics, panels

_PANEL_ROWS = 3  # of best, of median and of worst images


@dataclass(frozen=True)
class Scored:
    """A batch with three (N, H, W) uint8 masks in {0, 1}: what the network and what the bare labeler say, and the truth."""

    batch: Batch
    prediction: torch.Tensor
    labels: torch.Tensor
    truth: torch.Tensor


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Score the best epoch's network on the split's images that have a mask, at the size it was trained at.

    Returns the keys of `metrics.SCORES` and `images`; the same under `labels` for the run's labeler alone; and `split`.
    Raises `ValueError` or `OSError` that say what is wrong and what to do.
    """
    for name in ("json", "panel"):
        if path := getattr(config, name):
            directory.check_local(path, f"--{name}")
    predictions: list[metrics.Counts] = []
    labels: list[metrics.Counts] = []
    keys: list[str] = []
    for scored in _run(config, "evaluate"):
        predictions.append(metrics.count(scored.prediction, scored.truth))
        labels.append(metrics.count(scored.labels, scored.truth))
        keys += [info["key"] for info in scored.batch.info]
    counts = metrics.concatenate(predictions)
    result: dict[str, Any] = {**metrics.scores(counts), "images": len(keys), "split": config.split}
    result["labels"] = {**metrics.scores(metrics.concatenate(labels)), "images": len(keys)}
    if config.json:
        files.write(config.json, json.dumps(result, indent=1) + "\n")
    if config.panel:
        draw_panel(config, keys, metrics.iou(counts).tolist())
    return result


def show(result: dict[str, Any]) -> None:
    """Print the scores as a table, network and bare labels side by side."""
    rows = [[name.replace("_", " "), f"{result[name]:.4f}", f"{result['labels'][name]:.4f}"] for name in metrics.SCORES]
    console.out.print(
        f"{result['images']} images of split '{result['split']}', mean over images (iou dataset: all pixels together)"
    )
    console.out.print(console.table(["", "network", "bare labels"], rows))


def _run(config: EvaluateConfig, title: str) -> Iterator[Scored]:
    trained, facts = directory.stored(config.run)
    where = device.resolve(config.device)
    model = checkpoint.load_model(config.run / directory.WEIGHTS, trained.model).to(where)
    label = labeler(trained, facts["polarity"])
    loader = Loader(_loader_config(config, trained, where))
    if loader.depth != facts["depth"]:
        raise ValueError(
            f"{config.run} was trained on {facts['depth']}-bit images, and {config.shards} holds {loader.depth}-bit ones; "
            f"make shards with: medsass shard --depth {facts['depth']}"
        )
    with console.progress(title, loader.samples) as bar:
        for batch in loader:
            with torch.no_grad(), torch.autocast(where, torch.bfloat16, enabled=where == "cuda"):
                prediction = (model(unet.normalise(batch.images))[:, 0] > 0).byte()
            assert batch.masks is not None
            yield Scored(batch, prediction, label(batch.images).mask, batch.masks)
            bar.advance(len(batch.images))


def _loader_config(config: EvaluateConfig, trained: TrainConfig, where: str) -> LoaderConfig:
    plain = LoaderConfig(config.shards, config.split, trained.size, config.batch_size, where, threads=config.threads)
    return replace(plain, masks=True, info=True)


def draw_panel(config: EvaluateConfig, keys: list[str], ious: list[float]) -> None:
    """Draw input, truth, label and prediction of the best, the median and the worst images, by the network's IoU.

    A second pass over the split, so that the first need not keep every image in memory.
    """
    assert config.panel is not None
    order = np.argsort(ious, kind="stable")[::-1]
    middle = max(0, (len(order) - _PANEL_ROWS) // 2)
    chosen = {
        "best": order[:_PANEL_ROWS],
        "median": order[middle : middle + _PANEL_ROWS],
        "worst": order[-_PANEL_ROWS:],
    }
    wanted = {keys[index]: (name, ious[index]) for name, indices in chosen.items() for index in indices}
    rows: dict[str, list[panels.Tile]] = {}
    for scored in _run(config, "panel"):
        for i, info in enumerate(scored.batch.info):
            if info["key"] in wanted:
                name, value = wanted[info["key"]]
                image = scored.batch.images[i].cpu().numpy()
                masks = [mask[i].cpu().numpy() for mask in (scored.truth, scored.labels, scored.prediction)]
                captions = ["", "", f"{name}: IoU {value:.3f}"]
                rows[info["key"]] = [(image, info["key"]), *zip(masks, captions, strict=True)]
    panels.sheet([rows[key] for key in wanted], config.panel, ["input", "truth", "label", "prediction"])
