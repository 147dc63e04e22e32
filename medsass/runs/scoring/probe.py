"""`medsass probe`: score a run's frozen encoder by a linear classifier of the shards' classes (appendix D)."""

import json
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from medsass import files
from medsass.config import ProbeConfig
from medsass.data.loading.augment import Augment
from medsass.data.loading.loader import Batch, Loader, LoaderConfig
from medsass.data.shards.manifest import Manifest
from medsass.methods.method import Regime
from medsass.models import checkpoint, encoder, network
from medsass.runs import console, device, preflight, run_directory
from medsass.runs.preflight import Trained
from medsass.runs.scoring import linear_head, metrics

_AUGMENT = Augment(crop=1.0, warp=True)  # appendix D's list


def probe(config: ProbeConfig, found: Trained | None = None) -> dict[str, Any]:
    """Train a linear layer from the encoder's pooled features to the classes of the shards' training split, on appendix
    D's augmentations with the focal loss, and score it on `config.split`. Training stops by the loss on `val`, which is
    therefore not unseen where `val` is scored. Images without a class label are skipped.

    Returns recall (the mean of the classes' recalls, also called balanced accuracy), accuracy, `classes` (for each: recall,
    images that were scored, images that were trained on), confusion (rows true, columns predicted classes, in the order of
    `classes`), `majority` (recall and accuracy of always naming training's commonest class), images, unlabelled, epochs,
    best_epoch, val_loss and split. A class without an image in the split has recall None and is not in the mean.

    The paper calls its score balanced (appendix G), yet its 0.64 to 0.66 on ISIC-2017 is about the accuracy of always
    naming the commonest class, 393 of 600 test images; by the balanced score that answer has 1/3. Hence both, beside
    `majority`.
    Raises `ValueError` or `OSError` with the rule and the remedy. `found` is what `preflight.probe` returned, if the caller
    has called it.
    """
    found = found or preflight.probe(config)
    trained, dataset, where = found.config, found.dataset, device.resolve(config.device)
    classes = sorted(dataset.split("train").classes)
    device.check_memory(
        trained.size, min(config.batch_size, dataset.split(config.split).samples), device.ENCODER, where
    )
    device.seed(config.seed, where)
    frozen = checkpoint.load_encoder(config.run / run_directory.WEIGHTS, trained.model).to(where)
    frozen.eval().requires_grad_(False)  # for good: no gradient, no batch statistics

    def see(batch: Batch) -> linear_head.Pair:
        labelled = [i for i, info in enumerate(batch.info) if info.get("class") is not None]
        named = [str(batch.info[i]["class"]) for i in labelled]
        if unknown := next((name for name in named if name not in classes), None):
            raise ValueError(
                f"{config.shards}: a sample has the class {unknown!r:.80}, which the manifest does not name; run: medsass "
                f"verify {config.shards}"
            )
        target = torch.tensor([classes.index(name) for name in named], dtype=torch.long)
        with torch.autocast(where, torch.bfloat16, enabled=where == "cuda"):
            return encoder.pooled(frozen, network.normalise(batch.images))[labelled], target.to(where)

    def features(split: str, augment: Augment | None = None) -> linear_head.Features:
        plain = LoaderConfig(config.shards, split, trained.size, config.batch_size, where, augment, info=True)
        return linear_head.Features(Loader(replace(plain, seed=config.seed, threads=config.threads), dataset), see)

    layers = nn.Sequential(linear_head.Standardise(features("train")), nn.Linear(encoder.width(frozen), len(classes)))
    train, val = features("train", _AUGMENT), linear_head.cached(features("val"))
    training = linear_head.Training(train, val, focal, Regime(lr=config.lr, patience=config.patience), config.epochs)
    history = linear_head.fit(
        layers.to(where),
        training,
        lambda line: console.err.print(
            f"epoch {line['epoch']}/{config.epochs}  loss {line['train_loss']:.4f}  validation {line['val_loss']:.4f}"
        ),
    )
    confusion = torch.zeros(len(classes), len(classes), dtype=torch.int64)
    with torch.no_grad():
        for seen, target in features(config.split):
            confusion += metrics.confusion(layers(seen).argmax(1), target, len(classes)).cpu()
    result = _result(config.split, dataset, confusion, history)
    if config.json:
        files.write(config.json, json.dumps(result, indent=1) + "\n")
    return result


def focal(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean over images of -(1 - p)^2 ln p, where p is the probability that (N, K) logits give to the true class,
    (N,) int64 (Lin et al. 2017, without class weights, as the paper names none).
    """
    log = -F.cross_entropy(logits, target, reduction="none")
    return ((1 - log.exp()) ** 2 * -log).mean()


def show(result: dict[str, Any]) -> None:
    """Print the recall of each class, and the means beside those of always naming the commonest class."""
    rows = [
        [name, "-" if of["recall"] is None else f"{of['recall']:.4f}", str(of["images"]), str(of["trained_on"])]
        for name, of in result["classes"].items()
    ]
    console.out.print(
        f"{result['images']} images of split '{result['split']}' ({result['unlabelled']} more without a class label), "
        f"epoch {result['best_epoch']} of {result['epochs']}"
    )
    console.out.print(console.table(["class", "recall", "images", "trained on"], rows))
    means = [[name, f"{result[name]:.4f}", f"{result['majority'][name]:.4f}"] for name in ("recall", "accuracy")]
    console.out.print(console.table(["", "probe", "commonest class"], means))


def _result(split: str, dataset: Manifest, confusion: torch.Tensor, history: list[dict[str, Any]]) -> dict[str, Any]:
    trained_on = dict(sorted(dataset.split("train").classes.items()))
    scores, images = metrics.class_scores(confusion), confusion.sum(1)
    best = linear_head.best_epoch(history)
    commonest = max(range(len(images)), key=list(trained_on.values()).__getitem__)
    always = torch.zeros_like(confusion)
    always[:, commonest] = images
    trivial = metrics.class_scores(always)
    return {
        "recall": scores["recall"],
        "accuracy": scores["accuracy"],
        "classes": {
            name: {"recall": recall, "images": int(count), "trained_on": trained_on[name]}
            for name, recall, count in zip(trained_on, scores["recalls"], images, strict=True)
        },
        "confusion": confusion.tolist(),
        "majority": {name: trivial[name] for name in ("recall", "accuracy")},
        "images": int(images.sum()),
        "unlabelled": dataset.split(split).samples - int(images.sum()),
        "epochs": len(history),
        "best_epoch": best,
        "val_loss": history[best - 1]["val_loss"],
        "split": split,
    }
