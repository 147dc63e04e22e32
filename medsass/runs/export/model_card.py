"""Model card of a run's exported files: contents, training, limits and unknowns, as JSON and as Markdown."""

import json
import re
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from medsass import __version__, files
from medsass.config import TrainConfig, schema
from medsass.data.shards import manifest
from medsass.models import checkpoint, network
from medsass.models.parity import RunModel
from medsass.runs import run_directory
from medsass.runs.run_directory import Facts
from medsass.runs.scoring import metrics
from medsass.text import markdown as escaped

JSON, MARKDOWN = "card.json", "README.md"

_UNKNOWN = "unknown"
_LIBRARIES = ("torch", "timm", "segmentation-models-pytorch", "onnx", "onnxruntime")
_SIDES = {
    "bright": "what is brighter than the threshold",
    "dark": "what is not brighter than the threshold",
    "auto": "of the two sides of the threshold the one with less of the image's border",
}


def collect(run: Path, trained: TrainConfig, facts: Facts, kept: RunModel) -> dict[str, Any]:
    """Collect the card's content except for the exported `files`. Reads the run directory, and the shards where they still
    are.

    Args:
        run: the run directory.
        trained: its options.
        facts: the rest of its config.json.
        kept: the weights that are exported.

    Raises:
        ValueError: the run's scores.json was not written by `medsass evaluate --json`.
    """
    versions = {"medsass": __version__}
    for name in _LIBRARIES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    card: dict[str, Any] = {
        "model": {"name": kept.name, "keeps": kept.kind, "parameters": network.parameters(kept.module)},
        "data": _data(trained, facts),
        "training": _training(run, trained, facts),
        "input": _input(trained, facts),
        "scores": _scores(run),
        "versions": {"trained with medsass": facts.medsass, "exported with": versions},
    }
    return {**card, "limits": _limits(card), "files": {}}


def markdown(card: dict[str, Any]) -> str:
    """Return the card as text, with the header that Hugging Face reads."""
    training, data, given, keeps = card["training"], card["data"], card["input"], card["model"]["keeps"]
    article = "an" if keeps[0] in "aeiou" else "a"
    title = f"# {card['model']['name']}: {article} {keeps} trained by {training['method']} on {escaped(data['title'])}"
    parts = [
        f"---\n{_header(card)}---",
        title,
        "## Limits\n\n" + "\n".join(f"- {escaped(sentence)}" for sentence in card["limits"]),
        "## Input\n\n" + _table(given) + "\n\nFrom a file to `images`:\n\n" + _preprocessing(given),
        *(_section(form, item) for form, item in card["files"].items()),
        "## Scores\n\n" + _score_table(card["scores"]),
        "## Training data\n\n" + _table(data),
        "## Training\n\n" + _table(training),
        "## Versions\n\n" + _table({**card["versions"], **card["model"], "weights sha256": card.get("weights_sha256")}),
    ]
    return "\n\n".join(parts) + "\n"


def _data(trained: TrainConfig, facts: Facts) -> dict[str, Any]:
    """The data, from the shards' own recipe; only the last name of a path or address, because cards are published."""
    known = {"shards": trained.shards.name, "manifest sha256": facts.shards_sha256}
    state = ""
    try:
        dataset = manifest.load(trained.shards)  # an address stays unopened: the run may be somebody else's
        if dataset.sha256 != facts.shards_sha256:
            state = "the shards there now are not those of the training"
    except (OSError, ValueError, ImportError):
        state = "not reachable when exported"
    if state:
        return {"title": trained.shards.name, "state": state, "licence": _UNKNOWN, **known}
    recipe = {name: dataset.recipe.get(name) or _UNKNOWN for name in ("name", "homepage", "licence", "citation")}
    images = {name: split.samples for name, split in dataset.splits.items()}
    title = dataset.recipe.get("title") or recipe["name"]
    return {"title": title, "recipe": recipe.pop("name"), **recipe, "images": images, **known}


def _training(run: Path, trained: TrainConfig, facts: Facts) -> dict[str, Any]:
    lines = run / run_directory.METRICS
    done = files.read(lines).count(b"\n") if lines.is_file() else 0
    try:
        best: int | str = int(checkpoint.load(run / run_directory.BEST)["epoch"])
    except (OSError, ValueError, KeyError, TypeError):
        best = _UNKNOWN  # the weights are there all the same
    init = facts.init
    labels = f"{trained.labels} pseudo-labels" + (f" refined by {trained.refine}" if trained.refine else "")
    if trained.method == "supervised":
        labels = "the shards' masks"
    if not facts.segments:
        labels = "none"
    return {
        "method": trained.method,
        "labels": labels,
        "share of the labels": trained.label_fraction if trained.method == "supervised" else None,
        "loss": trained.loss if facts.segments else "the method's own",
        "started from": f"the {init.takes} of a run of {init.method}" if init else "random weights",
        "labels had a part": facts.labels_read,
        "seed": trained.seed,
        "epochs": trained.epochs,
        "epochs done": done or _UNKNOWN,
        "best epoch": best,
        "batch size": trained.batch_size,
        "device": facts.device,
        "regime": facts.regime,
    }


def _input(trained: TrainConfig, facts: Facts) -> dict[str, Any]:
    """Mean and standard deviation of the network's normalisation, for values scaled to [0, 1]."""
    extremes = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 1, 3)
    low, high = network.normalise(extremes)[:, :, 0, 0]
    std = 1 / (high - low)
    return {
        "size": trained.size,
        "channels": 3,
        "depth": facts.depth,
        "mean": [round(value, 6) for value in (-low * std).tolist()],
        "std": [round(value, 6) for value in std.tolist()],
        "polarity": facts.polarity,
        "foreground": _SIDES.get(facts.polarity, _UNKNOWN)
        if facts.segments and trained.method != "supervised"
        else None,
    }


def _scores(run: Path) -> dict[str, Any] | None:
    path = run / run_directory.SCORES
    if not path.is_file():
        return None
    try:
        scores: dict[str, Any] = schema.parse_json(files.read(path))
        for column in _columns(scores).values():
            if not all(isinstance(column[name], (int, float)) for name in metrics.SCORES):
                raise TypeError("a score is no number")
        return {**scores, "images": int(scores["images"]), "split": str(scores["split"])}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{path} holds no scores of medsass evaluate ({type(error).__name__}: {error}); write it anew with "
            f"medsass evaluate {run} SHARDS --json {path}, or remove it"
        ) from error


def _columns(scores: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The run's scores, and beside them those of the trivial answers."""
    others = {"bare labels": scores.get("labels"), "foreground everywhere": scores.get("everything")}
    return {str(scores.get("protocol", "network")): scores, **{name: item for name, item in others.items() if item}}


def _limits(card: dict[str, Any]) -> list[str]:
    """The sentences that a user of the weights must read first."""
    training, data, scores = card["training"], card["data"], card["scores"]
    free = "without labels" if not training["labels had a part"] else "from weights in which labels had a part"
    origin = f"Trained {free}: its targets were {training['labels']} of the images themselves. What such a threshold gets wrong, the network may have learned."
    if training["method"] == "supervised":
        origin = "Trained on masks that people or other programs drew: their errors may have been learned."
    if training["labels"] == "none":
        origin = f"An encoder, trained {free}; by itself it segments nothing."
    measured = "Not measured: the run holds no scores."
    if scores:
        measured = f"Measured only on {scores['images']} images of the split '{scores['split']}', by the protocol '{next(iter(_columns(scores)))}'. Other scanners, stains, sites and patients were not measured."
    licence = f"The training data's licence, as its recipe states it: {data['licence']}. Whether it covers these weights is for you to judge."
    if data["licence"] == _UNKNOWN:
        licence = "The training data's licence is unknown. Find out before you pass these weights on."
    return [origin, "Not a medical device: for research, not for diagnosis or treatment.", measured, licence]


def _header(card: dict[str, Any]) -> str:
    """The YAML header; every value is JSON, a subset of YAML."""
    data, training = card["data"], card["training"]
    licence = {"license": _UNKNOWN}
    if data["licence"] != _UNKNOWN:
        name = re.sub(r"[^a-z0-9.]+", "-", data["licence"].lower()).strip("-")
        licence = {"license": "other", "license_name": f"training-data-{name}", "license_link": data["homepage"]}
    supervision = [] if training["method"] == "supervised" else ["self-supervised"]
    tags = ["medsass", training["method"], card["model"]["name"], *supervision, "medical-imaging"]
    fields: dict[str, Any] = {
        "library_name": next((item["library"] for item in card["files"].values()), "medsass"),
        "tags": list(dict.fromkeys(tags)),
        **licence,
        "datasets": [data.get("recipe", data["shards"])],
    }
    if card["model"]["keeps"] == "network":
        fields["pipeline_tag"] = "image-segmentation"
    if card["scores"]:
        fields["metrics"] = list(metrics.SCORES)
    return "".join(f"{name}: {json.dumps(value, ensure_ascii=False)}\n" for name, value in fields.items())


def _preprocessing(given: dict[str, Any]) -> str:
    """The code of what predict computes: resized with antialiasing, rounded, normalised; 16-bit images by their own extremes."""
    side = given["size"]
    resize = f'images = F.interpolate(images, ({side}, {side}), mode="bilinear", antialias=True).round()'
    read = {
        8: ['image = Image.open("image.png").convert("RGB")',
            "images = torch.from_numpy(np.array(image, np.float32)).permute(2, 0, 1)[None]", resize, "images = images / 255"],
        16: ['image = Image.open("image.png")  # one channel of 16 bits',
             "images = torch.from_numpy(np.array(image, np.float32))[None, None]", resize,
             "low, high = images.amin(), images.amax()",
             "images = ((images - low) / (high - low).clamp_min(1)).repeat(1, 3, 1, 1)"],
    }  # fmt: skip
    return "\n".join([
        "```python", "import numpy as np", "import torch", "from PIL import Image", "from torch.nn import functional as F", "",
        *read[given["depth"]],
        f"mean, std = torch.tensor({given['mean']}), torch.tensor({given['std']})",
        "images = (images - mean.view(3, 1, 1)) / std.view(3, 1, 1)", "```",
    ])  # fmt: skip


def _section(form: str, item: dict[str, Any]) -> str:
    check = (
        f"Compared when exported: at most {item['difference']:.2g} from the run's own answer, whose values reach "
        f"{item['scale']:.2g}."
    )
    output = "`features` are the encoder's deepest map, an eighth of the image's side."
    if any("logits" in line for line in item["lines"]):
        output = "`logits` above 0 are foreground."
    code = "\n".join(["```python", *item["lines"], "```"])
    return f"## {escaped(item['file'])} ({form})\n\n{code}\n\n{output} {_coded(item['note'])} {check}"


def _score_table(scores: dict[str, Any] | None) -> str:
    if not scores:
        return "None: the run holds no scores.json, which `medsass evaluate RUN SHARDS --json RUN/scores.json` writes."
    columns = _columns(scores)
    head = f"| | {' | '.join(map(escaped, columns))} |\n|---|{'---|' * len(columns)}\n"
    rows = (f"| {name} | {' | '.join(f'{item[name]:.4f}' for item in columns.values())} |" for name in metrics.SCORES)
    return f"{scores['images']} images of the split '{escaped(scores['split'])}'.\n\n{head}" + "\n".join(rows)


def _table(values: dict[str, Any]) -> str:
    rows = ["| | |", "|---|---|"]
    for name, value in values.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {item}" for key, item in value.items() if item is not None)
        if value is not None:
            rows.append(f"| {escaped(name)} | {escaped(value)} |")
    return "\n".join(rows)


def _coded(text: str) -> str:
    """Escape text but for its `code`."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"\S.*\S|\S", lambda found: escaped(found[0]), part) for part in parts[::2]]
    return "`".join(parts)
