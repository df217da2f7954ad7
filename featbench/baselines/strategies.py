"""The table of strategies: what each trains, and the settings it uses where an experiment names none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from featbench.config import BaselineConfig


@dataclass(frozen=True)
class Strategy:
    """What a reference network trains, and its default settings.

    Attributes:
        summary: One line for `featbench list`.
        pretrained: Whether it starts from the backbone's weights, or from random ones.
        epochs: Passes over the training images.
        lr: Learning rate of the head (AdamW), the peak where the schedule has one.
        weight_decay: Decoupled weight decay (AdamW).
    """

    summary: str
    pretrained: bool
    epochs: int
    lr: float
    weight_decay: float


STRATEGIES: dict[str, Strategy] = {
    "linear_head": Strategy("a new linear head on the frozen backbone", True, epochs=50, lr=1e-2, weight_decay=1e-2),
    "partial": Strategy("a new head and all layers after `freeze_until`", True, epochs=15, lr=2e-3, weight_decay=1e-2),
    "finetune": Strategy(
        "a new head and all layers, these at a smaller rate", True, epochs=15, lr=2e-3, weight_decay=1e-2
    ),
    "scratch": Strategy("the whole network from random weights", False, epochs=30, lr=2e-3, weight_decay=5e-2),
}


@dataclass(frozen=True)
class Recipe:
    """The settings of one training, none left open; a row's `params` are these."""

    strategy: str
    epochs: int
    batch_size: int
    optimizer: Literal["sgd", "adamw"]
    lr: float
    backbone_lr_factor: float
    momentum: float
    weight_decay: float
    l1: float
    dropout: float
    schedule: Literal["constant", "step", "cosine", "one_cycle"]
    augment: Literal["none", "flip", "crop", "flip_crop", "flip_crop_erase"]
    freeze_until: str | None
    early_stopping: int | None


def make_recipe(config: BaselineConfig, n_train: int) -> Recipe:
    """Fill in what an experiment leaves open, by strategy and by the number of training images."""
    strategy = STRATEGIES[config.strategy]
    batch_size = config.batch_size or (32 if n_train < 1_000 else 64 if n_train < 10_000 else 128)
    return Recipe(
        strategy=config.strategy,
        epochs=config.epochs or strategy.epochs,
        batch_size=min(batch_size, n_train),
        optimizer=config.optimizer or "adamw",
        lr=config.lr or strategy.lr,
        backbone_lr_factor=config.backbone_lr_factor,
        momentum=config.momentum,
        weight_decay=strategy.weight_decay if config.weight_decay is None else config.weight_decay,
        l1=config.l1,
        dropout=config.dropout,
        schedule=config.schedule,
        augment=config.augment,
        freeze_until=config.freeze_until,
        early_stopping=config.early_stopping,
    )
