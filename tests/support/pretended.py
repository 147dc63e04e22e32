"""Stand-ins for the trainings and scores of an experiment, which take no time."""

from collections.abc import Callable
from typing import Any

from medsass.config import EvaluateConfig, ProbeConfig, TrainConfig
from medsass.data.shards import manifest
from medsass.runs import run_directory
from tests.conftest import facts


class Pretended:
    """Takes the place of train, evaluate and probe; remembers what was asked, and fails where `fails` says so."""

    def __init__(self) -> None:
        self.trained: list[TrainConfig] = []
        self.asked: list[tuple[str, str]] = []
        self.fails: Callable[[TrainConfig], BaseException | None] = lambda _: None

    def train(self, config: TrainConfig) -> dict[str, Any]:
        keeps = "encoder" if config.method == "byol" else "network"
        found = facts(keeps=keeps, shards_sha256=manifest.load(config.shards).sha256)
        run_directory.check_resume(config, found) if config.resume else run_directory.create(config, found)
        self.trained.append(config)
        (config.run / run_directory.LAST).touch()
        if error := self.fails(config):
            raise error
        print(f"trained with seed {config.seed}")
        lines = [{"epoch": i + 1, "seconds": 2.0, "images_per_second": 10.0 * (i + 1)} for i in range(config.epochs)]
        run_directory.write_metrics(config.run, [{**line, "train_feature_std": 0.7} for line in lines])
        (config.run / run_directory.WEIGHTS).touch()
        return lines[0]

    def evaluate(self, config: EvaluateConfig) -> dict[str, Any]:
        self.asked.append((config.run.name, config.protocol))
        return {"iou": 0.5, "split": config.split, "labels": {"iou": 0.3}, "everything": {"iou": 0.1}}

    def probe(self, config: ProbeConfig) -> dict[str, Any]:
        self.asked.append((config.run.name, "probe"))
        return {"recall": 0.6}
