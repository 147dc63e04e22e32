"""`medsass tune`: which threshold, polarity and refinement make the likeliest labels of these shards, without their truth."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from medsass import files
from medsass.config import TuneConfig
from medsass.data.shards import manifest, remote
from medsass.data.shards.manifest import Manifest
from medsass.labels import criteria
from medsass.runs import console, device, figures, run_directory
from medsass.runs.tuning import candidates as choices
from medsass.runs.tuning import score, warnings
from medsass.runs.tuning.candidates import Candidate
from medsass.runs.tuning.glimpse import glimpse
from medsass.runs.tuning.learnability import learnability
from medsass.runs.tuning.score import Judged

_CHOSEN_ON = "chosen-on"  # the option by which a choice of `tune` is known
_SHOWN = 10
_WIDE = 150  # columns of a terminal in which all criteria have room
_SHEET_IMAGES, _SHEET_CANDIDATES = 6, 4


@dataclass(frozen=True)
class Ranking:
    """Candidates from the best to the worst. values: by criterion (C,), NaN where it was not computed. iou: (C,) the mean
    IoU with the truth, None where it was not asked for.
    """

    candidates: list[Candidate]
    scores: NDArray[np.float64]
    values: dict[str, NDArray[np.float64]]
    iou: NDArray[np.float64] | None


def tune(config: TuneConfig) -> Ranking:
    """Rank all candidates on images of the training split, print the ranking, draw the best and write the choice.

    The truth has no part in the ranking, and is read with `score` alone. Returns the ranking. Raises `ValueError` or
    `OSError` that say what is wrong and what to do.
    """
    dataset = remote.load(config.shards)
    _check(config, dataset)
    where = device.resolve(config.device)
    images = _glimpse(config, where)[0]
    polarity = dataset.polarity if config.polarity == "recipe" else config.polarity
    if polarity == "auto":
        polarity = score.side(images)
        light = "what is stained or pigmented is dark on a light ground"
        frame = "that side of the threshold holds less of the images' frames"
        console.err.print(f"foreground {polarity}: {light if score.light(images) else frame}")
    found = choices.candidates(polarity, dataset.depth, score.coloured(images))
    with console.progress("tune", len(found) + config.learn) as bar:
        judged = score.judge(images, found, config.seed, lambda: bar.advance(1))
        order, scores, learnt = _order(judged, images, config, lambda: bar.advance(1))
    iou = _score(config, where, judged, images)[order] if config.score else None
    values = {**judged.values, "learnability": learnt}
    ranking = Ranking([found[i] for i in order], scores[order], {k: v[order] for k, v in values.items()}, iou)
    show(ranking)
    warnings.say(warnings.of_choice(judged.values, int(order[0])))
    write(config, ranking, len(images))
    if config.sheet:
        sheet(config, where, judged, images, order)
        console.out.print(f"contact sheet: {config.sheet}")
    console.out.print(f"written: {config.out}   Next: medsass train {config.shards} RUN --config {config.out}")
    return ranking


def _check(config: TuneConfig, dataset: Manifest) -> None:
    """Raise what the user can mend before the images are looked at."""
    for name, path in (("--out", config.out), ("--sheet", config.sheet)):
        if path:
            run_directory.check_file(path, name)
    if config.out.exists() and _CHOSEN_ON not in config.out.read_text("utf-8", errors="replace"):
        raise FileExistsError(
            f"{config.out} was not written by medsass tune, which would replace it; give another --out"
        )
    split = dataset.split("train")
    if config.score and not split.masks:
        raise ValueError(f"{config.shards}: no image of split 'train' has a mask for --score to compare with; drop it")
    if config.learn and split.samples < 2:
        raise ValueError(f"{config.shards}: --learn takes two training images or more, and there is one; drop it")


def _glimpse(config: TuneConfig, where: str, masks: bool = False) -> tuple[torch.Tensor, torch.Tensor | None]:
    return glimpse(config.shards, config.images, config.size, where, config.seed, config.threads, masks)


def _score(config: TuneConfig, where: str, judged: Judged, images: torch.Tensor) -> NDArray[np.float64]:
    """(C,) mean IoU of each candidate with the truth, on images that have one: those that were judged, if all have."""
    known, truth = _glimpse(config, where, masks=True)
    assert truth is not None
    same = known.shape == images.shape and torch.equal(known, images)
    short = min(known.shape[1:3])
    found = judged.masks if same else (score.masks(item.labeler(short), known) for item in judged.candidates)
    return np.array([float(criteria.overlap(mask, truth).mean()) for mask in found])


def _order(
    judged: Judged, images: torch.Tensor, config: TuneConfig, each: Callable[[], None]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Candidates from the best to the worst, their scores, and the learnability of the first few, which then are in the
    order of its product with the score. each: called after each of these.
    """
    scores = judged.scores
    order = np.argsort(-scores, kind="stable")
    learnt = np.full(len(scores), np.nan)
    first = order[: config.learn]
    for i in first:
        learnt[i] = learnability(images, judged.masks[i], config.seed)
        each()
    order[: config.learn] = first[np.argsort(-scores[first] * learnt[first], kind="stable")]
    return order, scores, learnt


def show(ranking: Ranking) -> None:
    """Print the first of the ranking, and how well it follows the truth where that is known."""
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
    """Spearman's rank correlation of scores and IoU."""
    assert ranking.iou is not None
    return float(stats.spearmanr(ranking.scores, ranking.iou).statistic)


def sheet(config: TuneConfig, where: str, judged: Judged, images: torch.Tensor, order: Any) -> None:
    """Draw some images with the masks of the best candidates as outlines; with `score`, of those that have a truth."""
    assert config.sheet is not None
    truth = None
    best = [judged.candidates[i] for i in order[:_SHEET_CANDIDATES]]
    if config.score:
        images, truth = _glimpse(config, where, masks=True)
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
    figures.sheet(rows, config.sheet, heads)


def write(config: TuneConfig, ranking: Ranking, images: int) -> None:
    """Write the best candidate as options of `train`, chosen on that many images."""
    best = ranking.candidates[0]
    chosen_on = (
        f"{images} images of {config.shards}, sha256 {manifest.digest(config.shards)}, at {config.size} x "
        f"{config.size}, seed {config.seed}"
    )
    block = best.labeler(config.size).block_size
    text = "\n".join(
        [
            "# chosen by medsass tune, without the truth",
            f"size = {config.size}",
            f'labels = "{best.labels}"',
            f'polarity = "{best.polarity}"',
            f'refine = "{best.refine}"',
            *([f"block-size = {block}"] if best.labels.startswith("adaptive") else []),
            f"{_CHOSEN_ON} = {json.dumps(chosen_on, ensure_ascii=False)}",
            "",
        ]
    )
    files.write(config.out, text)
