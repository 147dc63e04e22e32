"""`medsass tune`: choose threshold, polarity and refinement for the labels of shards, without their truth."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from medsass import files
from medsass.config import TuneConfig
from medsass.data.loading.loader import LoaderConfig
from medsass.data.shards.manifest import Manifest
from medsass.labels import criteria
from medsass.runs import console, device, figures, preflight
from medsass.runs.tuning import score, warnings
from medsass.runs.tuning.candidates import Candidate, candidates
from medsass.runs.tuning.learnability import learnability

_BATCH = 16
_SHOWN = 10
_WIDE = 150  # columns of a terminal in which all criteria have room
_SHEET_IMAGES, _SHEET_CANDIDATES = 6, 4


@dataclass(frozen=True)
class Ranking:
    """Candidates from the best to the worst, with `values` (C,) by criterion, NaN where it was not computed, and the mean
    IoU with the truth, `iou` (C,), None without --score.
    """

    candidates: list[Candidate]
    scores: NDArray[np.float64]
    values: dict[str, NDArray[np.float64]]
    iou: NDArray[np.float64] | None


def tune(config: TuneConfig, dataset: Manifest | None = None) -> Ranking:
    """Rank all candidates on images of the training split, print the ranking, draw the best and write the choice.

    The truth has no part in the ranking, and is read only with `score`. Returns the ranking. Raises `ValueError` or
    `OSError` with the rule and the remedy. `dataset` is what `preflight.tune` returned, if the caller has called it.
    """
    dataset = dataset or preflight.tune(config)
    where = device.resolve(config.device)
    plain = LoaderConfig(config.shards, "train", config.size, _BATCH, where, seed=config.seed, threads=config.threads)
    images, _ = score.glimpse(plain, config.images, dataset)
    known, truth = score.glimpse(replace(plain, masks=True), config.images, dataset) if config.score else (images, None)
    polarity = dataset.recipe["polarity"] if config.polarity == "recipe" else config.polarity
    if polarity == "auto":
        polarity = score.side(images)
        light = "stain and pigment are dark on a light ground"
        frame = "that side of the threshold holds less of the images' frames"
        console.err.print(f"foreground {polarity}: {light if score.light(images) else frame}")
    found = candidates(polarity, dataset.options.depth, score.coloured(images))
    with console.progress("tune", len(found), "candidates") as bar:
        judged = score.judge(images, found, config.seed, lambda: bar.advance(1))
    scores, learnt = judged.scores, np.full(len(found), np.nan)
    with console.progress("tune, learnability", config.learn, "networks") as bar:
        order = np.argsort(-scores, kind="stable")
        first = order[: config.learn]  # to be ordered by the product of score and learnability
        for i in first:
            learnt[i] = learnability(images, judged.masks[i], config.seed)
            bar.advance(1)
        order[: config.learn] = first[np.argsort(-scores[first] * learnt[first], kind="stable")]
    iou = None
    if truth is not None:  # of the images `known`, the judged ones if all have a mask
        same, short = known.shape == images.shape and torch.equal(known, images), min(known.shape[1:3])
        masks = judged.masks if same else (score.masks(item.labeler(short), known) for item in judged.candidates)
        iou = np.array([float(criteria.overlap(mask, truth).mean()) for mask in masks])[order]
    values = {**judged.values, "learnability": learnt}
    ranking = Ranking([found[i] for i in order], scores[order], {k: v[order] for k, v in values.items()}, iou)
    show(ranking)
    if warning := warnings.of_choice(judged.values, int(order[0])):
        console.err.print(f"warning: {warning}")
    write(config, ranking, len(images), dataset)
    if config.sheet:
        _draw_sheet(config.sheet, ranking.candidates[:_SHEET_CANDIDATES], known, truth)
        console.out.print(f"contact sheet: {config.sheet}")
    console.out.print(f"written: {config.out}   Next: medsass train {config.shards} RUN --config {config.out}")
    return ranking


def show(ranking: Ranking) -> None:
    """Print the top of the ranking, and how well it follows the truth where that is known."""
    known = [name for name, values in ranking.values.items() if np.isfinite(values).any()]
    voting = [name for name in (*score.VOTES, "learnability") if name in known]
    others = [name for name in known if name not in voting]
    wide = console.out.width >= _WIDE
    names = [*voting, *(others if wide else [])]
    rows = []
    for i, item in enumerate(ranking.candidates[:_SHOWN]):
        values = [f"{ranking.values[name][i]:.3f}" if np.isfinite(ranking.values[name][i]) else "" for name in names]
        truth = [f"{ranking.iou[i]:.4f}"] if ranking.iou is not None else []
        rows.append([f"{i + 1}", item.name, f"{ranking.scores[i]:.3f}", *values, *truth])
    heads = ["", "labels", "score", *names, *(["IoU"] if ranking.iou is not None else [])]
    console.out.print(console.table(heads, rows, long=1))
    if not wide:
        console.out.print(f"in {_WIDE} columns also, without a vote: {', '.join(others)}")
    if ranking.iou is not None:
        best = int(np.argmax(ranking.iou))
        console.out.print(
            f"with the truth: rank correlation {correlation(ranking):.2f} (Spearman); chosen {ranking.iou[0]:.4f}, best "
            f"{ranking.iou[best]:.4f} by {ranking.candidates[best].name}, at place {best + 1} of {len(ranking.iou)}"
        )


def correlation(ranking: Ranking) -> float:
    """Return Spearman's rank correlation of scores and IoU."""
    assert ranking.iou is not None
    return float(stats.spearmanr(ranking.scores, ranking.iou).statistic)


def _draw_sheet(path: Path, best: list[Candidate], images: torch.Tensor, truth: torch.Tensor | None) -> None:
    """Draw some images with their truth, where it is known, and the outlines of the best candidates' masks."""
    shown = np.linspace(0, len(images) - 1, min(_SHEET_IMAGES, len(images))).round().astype(int)
    images = images[shown]
    columns = [score.masks(item.labeler(min(images.shape[1:3])), images).cpu().numpy() for item in best]
    rows: list[list[figures.Tile]] = []
    for n, image in enumerate(images.cpu().numpy()):
        row: list[figures.Tile] = [(image, "")]
        row += [(truth[shown[n]].cpu().numpy(), "")] if truth is not None else []
        row += [(figures.outlined(image, masks[n]), "") for masks in columns]
        rows.append(row)
    heads = ["image", *(["truth"] if truth is not None else []), *(item.name for item in best)]
    figures.sheet(rows, path, heads)


def write(config: TuneConfig, ranking: Ranking, images: int, dataset: Manifest) -> None:
    """Write the best candidate, chosen on that many images of the dataset, as options of `train`."""
    best = ranking.candidates[0]
    chosen_on = (
        f"{images} images of {config.shards}, sha256 {dataset.sha256}, at {config.size} x "
        f"{config.size}, seed {config.seed}"
    )
    block = f"block-size = {best.labeler(config.size).block_size}\n" if best.labels.startswith("adaptive") else ""
    files.write(
        config.out,
        "# chosen by medsass tune, without the truth\n"
        f'size = {config.size}\nlabels = "{best.labels}"\npolarity = "{best.polarity}"\nrefine = "{best.refine}"\n'
        f"{block}{preflight.CHOSEN_ON} = {json.dumps(chosen_on, ensure_ascii=False)}\n",
    )
