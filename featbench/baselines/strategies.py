"""The table of strategies: what each trains, and the settings it uses where an experiment names none."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from featbench.config import BaselineConfig
from featbench.config.baseline import Augmentations, Optimizers, Schedules
from featbench.errors import UsageError


@dataclass(frozen=True)
class Strategy:
    """What a reference network trains, and its default settings.

    Attributes:
        summary: One line for `featbench list`.
        pretrained: Whether it starts from the backbone's weights, or from random ones.
        augmented: Whether images are changed at random; where not, frozen parts are computed once.
        epochs: Passes over the training images.
        lr: Learning rate of the head (AdamW), the peak where the schedule has one.
        weight_decay: Decoupled weight decay (AdamW).
        clip_norm: The gradient's norm is clipped to it, with AdamW: from random weights, networks without batch norm
            may otherwise end with the same logits for all images.
    """

    summary: str
    pretrained: bool
    augmented: bool
    epochs: int
    lr: float
    weight_decay: float
    clip_norm: float | None = None


STRATEGIES: dict[str, Strategy] = {
    "linear_head": Strategy(
        "a new linear head on the frozen backbone", True, False, epochs=50, lr=1e-2, weight_decay=1e-2
    ),
    "partial": Strategy(
        "a new head and all layers after `freeze_until`", True, False, epochs=15, lr=2e-3, weight_decay=1e-2
    ),
    "finetune": Strategy(
        "a new head and all layers, these at a smaller rate", True, True, epochs=15, lr=2e-3, weight_decay=1e-2
    ),
    "scratch": Strategy(
        "the whole network from random weights", False, True, epochs=30, lr=2e-3, weight_decay=5e-2, clip_norm=1.0
    ),
}

REFIT_BELOW = 5_000  # training images
_ORIENTED = frozenset(  # a mirror image would be of another class, or of none
    ["digits", "mnist", "qmnist", "emnist", "kmnist", "usps", "semeion", "omniglot", "svhn", "gtsrb", "rendered_sst2"]
)
# factors of a recipe's lr and epochs, in the order in which they are tried
_TRIED = ((1, 1), (3, 1), (1 / 3, 1), (1, 2), (3, 2), (1 / 3, 2), (10, 1), (0.1, 1), (10, 2), (0.1, 2))


@dataclass(frozen=True)
class Recipe:
    """All settings of one training; a row's `params` are these. See `BaselineConfig` for each."""

    strategy: str
    epochs: int
    batch_size: int
    optimizer: Optimizers
    lr: float
    backbone_lr_factor: float
    layer_decay: float
    momentum: float
    weight_decay: float
    l1: float
    dropout: float
    clip_norm: float | None
    label_smoothing: float
    mixup: float
    ema: float
    schedule: Schedules
    warmup_epochs: int
    step_size: int | None
    gamma: float
    plateau_patience: int
    augment: Augmentations
    freeze_until: str | None
    early_stopping: int | None
    refit: bool


def make_recipe(
    config: BaselineConfig, n_train: int, dataset: str = "folder", *, learning_curve: bool = False
) -> Recipe:
    """Fill in the settings that an experiment does not give, by strategy, number of training images and data set.

    In a learning curve networks are not trained again with the validation rows, which would outnumber a small subset.

    Raises:
        UsageError: The warm-up is as long as the training.
    """
    strategy = STRATEGIES[config.strategy]
    optimizer = config.optimizer or "adamw"
    batch_size = config.batch_size or (32 if n_train < 1_000 else 64 if n_train < 10_000 else 128)
    epochs = config.epochs or strategy.epochs
    if config.warmup_epochs >= epochs:
        raise UsageError(f"warmup_epochs = {config.warmup_epochs} leaves none of the {epochs} epochs to train")
    given = {f.name: getattr(config, f.name) for f in fields(Recipe) if hasattr(config, f.name)}
    chosen: dict[str, Any] = {
        "epochs": epochs,
        "batch_size": min(batch_size, n_train),
        "optimizer": optimizer,
        "lr": strategy.lr if config.lr in (None, "auto") else config.lr,
        "weight_decay": strategy.weight_decay if config.weight_decay is None else config.weight_decay,
        "clip_norm": strategy.clip_norm if config.clip_norm is None and optimizer == "adamw" else config.clip_norm,
        "augment": config.augment or _augmentation(strategy, dataset),
        "refit": _refits(config, n_train) and not learning_curve if config.refit is None else config.refit,
    }
    return Recipe(**given | chosen)


def _refits(config: BaselineConfig, n_train: int) -> bool:
    """Say whether to train again on all rows: not where they are many, or where validation controls the training.

    It controls that of a linear head too, which over-fits unless its best epoch is kept.
    """
    controlled = config.strategy == "linear_head" or config.early_stopping is not None or config.schedule == "plateau"
    return n_train < REFIT_BELOW and not controlled


def _augmentation(strategy: Strategy, dataset: str) -> Augmentations:
    if not strategy.augmented:
        return "none"
    return "crop" if dataset in _ORIENTED else "flip_crop"


def candidates(recipe: Recipe, trainings: int) -> list[Recipe]:
    """Return so many recipes to compare by validation, the one given first; 0 is no search."""
    found = [
        replace(recipe, lr=float(f"{recipe.lr * rate:.6g}"), epochs=recipe.epochs * epochs) for rate, epochs in _TRIED
    ]
    return found[: max(1, trainings)]
