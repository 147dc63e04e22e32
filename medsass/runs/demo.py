"""`medsass demo`: the whole line on generated nuclei, in one to three minutes on two cores."""

import shutil
from pathlib import Path
from time import monotonic
from typing import Any

from medsass.config import DemoConfig, EvaluateConfig, InfoConfig, PredictConfig, ShardConfig, TrainConfig
from medsass.data import synthetic
from medsass.data.sharding import shard
from medsass.runs import console, info, run_directory
from medsass.runs.prediction.predict import predict
from medsass.runs.scoring.evaluate import evaluate, show
from medsass.runs.training.train import train

IMAGES = 320
_FOLDERS = ("images", "shards", "run", "predictions")
_SHEETS = ("preview.png", "panel.png")


def demo(config: DemoConfig) -> dict[str, Any]:
    """Generate nuclei, shard them, train MedSASS without a label, score it against the masks it never saw, draw pictures.

    Returns the scores. Raises `FileExistsError` where `config.out` holds anything, unless --overwrite, which deletes
    what a demo writes and no more.
    """
    start, out, say = monotonic(), config.out, console.out.print
    _clear(config)
    source, shards, run = out / "images", out / "shards", out / "run"
    say(f"1  {IMAGES} images of nuclei, with masks, in {source}")
    synthetic.generate(source, IMAGES, config.seed)
    say(f"2  medsass shard {source} {shards} --images 'images/*.png' --masks 'masks/*.png'")
    with console.progress("shard") as bar:
        shard.write(ShardConfig(source, shards, images="images/*.png", masks="masks/*.png"), bar.reach)
    info.info(InfoConfig(shards, out / "preview.png"))
    options = "--model unet-resnet18 --size 96 --epochs 8 --polarity bright"
    say(f"3  medsass train {shards} {run} {options}  (no mask is read)")
    train(
        TrainConfig(
            shards,
            run,
            model="unet-resnet18",
            size=96,
            epochs=8,
            polarity="bright",
            seed=config.seed,
            device=config.device,
        )
    )
    say(f"4  medsass evaluate {run} {shards} --split test --panel {out / 'panel.png'}")
    result = evaluate(
        EvaluateConfig(run, shards, json=run / run_directory.SCORES, panel=out / "panel.png", device=config.device)
    )
    show(result)
    images = tuple(sorted((source / "images").glob("*.png"))[:4])
    say(f"5  medsass predict {run} {source / 'images'}/... --out {out / 'predictions'} --overlay")
    predict(PredictConfig(run, images, out / "predictions", overlay=True, device=config.device))
    pictures = [*(out / name for name in _SHEETS), run / "progress.png", run / "samples.png", out / "predictions"]
    say(f"Done in {monotonic() - start:.0f} s. Pictures: " + ", ".join(str(path) for path in pictures))
    return result


def _clear(config: DemoConfig) -> None:
    out = config.out
    existing: list[Path] = sorted(out.iterdir()) if out.is_dir() else []
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out} is a file; OUT must be a folder")
    if existing and not config.overwrite:
        raise FileExistsError(f"{out} is not empty; choose another folder, or replace an earlier demo with --overwrite")
    other = [path.name for path in existing if path.name not in (*_FOLDERS, *_SHEETS)]
    if other:
        raise FileExistsError(f"{out} holds files that are not a demo's, such as {other[0]}; choose another folder")
    for path in existing:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    out.mkdir(parents=True, exist_ok=True)
