"""The configurations: one frozen dataclass per command.

A field's type holds its choices and limits, and its help text stands beside it; `cli.py` makes the command-line options
from them and the README shows the same names. Values are checked when the object is made, before a run starts.
"""

from medsass.config.options import LABELS, METHODS, MODELS, POLARITIES, PROTOCOLS, RANGES, numbers, plain
from medsass.config.runs import DemoConfig, EvaluateConfig, ExperimentConfig, ExportConfig, PredictConfig, ProbeConfig
from medsass.config.shards import InfoConfig, ShardConfig, VerifyConfig
from medsass.config.train import LabelConfig, TrainConfig, TuneConfig

__all__ = [
    "LABELS",
    "METHODS",
    "MODELS",
    "POLARITIES",
    "PROTOCOLS",
    "RANGES",
    "DemoConfig",
    "EvaluateConfig",
    "ExperimentConfig",
    "ExportConfig",
    "InfoConfig",
    "LabelConfig",
    "PredictConfig",
    "ProbeConfig",
    "ShardConfig",
    "TrainConfig",
    "TuneConfig",
    "VerifyConfig",
    "numbers",
    "plain",
]
