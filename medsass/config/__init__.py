"""What a user can set: one frozen dataclass per command.

A field's help text and choices stand beside it; `cli.py` makes the command-line options from them and the README
shows the same names. Values are checked when the object is made, so that a run never starts with a wrong one.
"""

from medsass.config.labels import LabelConfig, TuneConfig
from medsass.config.options import (
    CACHES,
    DEVICES,
    ENCODINGS,
    LABELS,
    LOSSES,
    METHODS,
    MODELS,
    POLARITIES,
    PRECISIONS,
    PROTOCOLS,
    RANGES,
    check,
    is_argument,
    numbers,
    option,
    plain,
)
from medsass.config.runs import DemoConfig, EvaluateConfig, ExperimentConfig, ExportConfig, PredictConfig, ProbeConfig
from medsass.config.shards import InfoConfig, ShardConfig, VerifyConfig
from medsass.config.train import TrainConfig

__all__ = [
    "CACHES",
    "DEVICES",
    "ENCODINGS",
    "LABELS",
    "LOSSES",
    "METHODS",
    "MODELS",
    "POLARITIES",
    "PRECISIONS",
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
    "check",
    "is_argument",
    "numbers",
    "option",
    "plain",
]
