"""`medsass demo`: all steps on generated nuclei, in two to four minutes on two cores."""

from time import monotonic
from typing import Any

from medsass import files, temporary
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
    """Generate nuclei, shard them, train MedSASS without labels, score it against the masks it never saw, draw pictures.

    Returns the scores. With --overwrite the files of an old demo are deleted, and no others. Raises `FileExistsError`
    where `config.out` holds anything else, or a demo without --overwrite.
    """
    start, out, say = monotonic(), config.out, console.out.print
    existing = files.own_content(out, "OUT", lambda name: name in (*_FOLDERS, *_SHEETS), "a demo's")
    if existing and not config.overwrite:
        raise FileExistsError(f"{out} is not empty; choose another folder, or replace an earlier demo with --overwrite")
    for path in existing:
        temporary.remove(path)
    out.mkdir(parents=True, exist_ok=True)
    source, shards, run = out / "images", out / "shards", out / "run"
    say(f"1  {IMAGES} images of nuclei, with masks, in {source}")
    synthetic.generate(source, IMAGES, config.seed)
    say(f"2  medsass shard {source} {shards} --images 'images/*.png' --masks 'masks/*.png'")
    with console.progress("shard") as bar:
        shard.write(ShardConfig(source, shards, images="images/*.png", masks="masks/*.png"), bar.reach)
    info.info(InfoConfig(shards, out / "preview.png"))
    options = "--model unet-resnet18 --size 96 --epochs 8 --polarity bright"
    say(f"3  medsass train {shards} {run} {options}  (no mask is read)")
    small: dict[str, Any] = {"model": "unet-resnet18", "size": 96, "epochs": 8, "polarity": "bright"}
    train(TrainConfig(shards, run, **small, seed=config.seed, device=config.device))
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
