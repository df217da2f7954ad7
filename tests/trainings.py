"""Trainings of a small network on made-up images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from featbench.backbones.load import Backbone, load_backbone
from featbench.baselines.learner import ACTIVATION_BYTES, Images
from featbench.baselines.processes import ALONE, Processes
from featbench.baselines.strategies import Recipe, make_recipe
from featbench.baselines.train import TrainedNetwork, train_network
from featbench.config import BackboneConfig, BaselineConfig
from tests.tiny import Recorder

CPU = torch.device("cpu")


N_CLASSES = 3


SGD: dict[str, Any] = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant"}


def coloured(count: int, seed: int, brighter: int = 80) -> Images:
    """Noise in which the channel of the class is brighter; every class as often as the others."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % N_CLASSES
    pixels = rng.integers(0, 256 - brighter, (count, 3, 32, 32))
    pixels[np.arange(count), labels] += brighter
    return Images(torch.from_numpy(pixels.astype(np.uint8)), torch.from_numpy(labels))


TRAIN, VAL, TEST = coloured(24, 0), coloured(12, 1), coloured(12, 2)


def backbone(**settings: Any) -> Backbone:
    return load_backbone(BackboneConfig(name="resnet20", weights="random", **settings), seed=0)


def recipe(strategy: str = "finetune", **settings: Any) -> Recipe:
    extra = {"freeze_until": "layer2"} if strategy == "partial" else {}
    few = {"epochs": 2, "batch_size": 8, "augment": "none", "refit": False}
    return make_recipe(BaselineConfig(strategy=strategy, **(few | extra | settings)), 24)


def train(
    chosen: Recipe,
    network: Backbone | None = None,
    *,
    train: Images = TRAIN,
    val: Images = VAL,
    test: Images = TEST,
    seed: int = 0,
    progress: Recorder | None = None,
    precision: Any = "float32",
    checkpoint: Path | None = None,
    tune: int = 0,
    processes: Processes = ALONE,
    spill_dir: Path | None = None,
    activation_bytes: int = ACTIVATION_BYTES,
) -> TrainedNetwork:
    return train_network(
        network or backbone(),
        chosen,
        train,
        val,
        test,
        n_classes=N_CLASSES,
        seed=seed,
        device=CPU,
        precision=precision,
        progress=progress or Recorder(),
        checkpoint=checkpoint,
        tune=tune,
        processes=processes,
        spill_dir=spill_dir,
        activation_bytes=activation_bytes,
    )


class Killed(BaseException):
    pass


def killed_after(epochs: int) -> Recorder:
    """Stand for a process that ends after some epochs."""
    left = iter(range(epochs - 1, -1, -1))

    def advance() -> None:
        if next(left) == 0:
            raise Killed

    return Recorder(advance)
