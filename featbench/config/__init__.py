"""The experiment: what an experiment file may say, checked once at the edge.

The models are frozen; code behind the edge trusts them. A key that is unknown, and a setting that would have no
effect, is refused with the key's name, never dropped.
"""

from featbench.config.baseline import BaselineConfig
from featbench.config.experiment import (
    BackboneConfig,
    DatasetConfig,
    EvaluateConfig,
    Experiment,
    is_weights_file,
    split_part,
)
from featbench.config.files import backbone_config, builtin_experiments, is_folder, load_experiment

__all__ = [
    "BackboneConfig",
    "BaselineConfig",
    "DatasetConfig",
    "EvaluateConfig",
    "Experiment",
    "backbone_config",
    "builtin_experiments",
    "is_folder",
    "is_weights_file",
    "load_experiment",
    "split_part",
]
