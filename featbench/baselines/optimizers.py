"""From a recipe to an optimizer and its learning rates: a rate a group of parameters, times a factor a step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from featbench.baselines.network import Trainable
from featbench.baselines.strategies import Recipe


def make_optimizer(trainable: Trainable, recipe: Recipe) -> Optimizer:
    """Give the head the recipe's rate and everything below it a share of that, each block its own.

    The rate falls by `layer_decay` from block to block (Clark et al. 2020, "ELECTRA"; Bao et al. 2022, "BEiT"): what
    is between the last block and the head has `lr * backbone_lr_factor`, the last block that times the decay.
    """
    below = recipe.lr * (1.0 if recipe.strategy == "scratch" else recipe.backbone_lr_factor)
    groups: list[dict[str, Any]] = [{"params": trainable.head_parameters(), "lr": recipe.lr}]
    for depth, parameters in body_by_depth(trainable).items():
        groups.append({"params": parameters, "lr": below * recipe.layer_decay**depth})
    decay, momentum = recipe.weight_decay, recipe.momentum
    if recipe.optimizer == "sgd":
        return SGD(groups, lr=recipe.lr, momentum=momentum, weight_decay=decay, nesterov=momentum > 0)
    kind = AdamW if recipe.optimizer == "adamw" else Adam
    return kind(groups, lr=recipe.lr, weight_decay=decay)


def body_by_depth(trainable: Trainable) -> dict[int, list[nn.Parameter]]:
    """Return the parameters below the head that learn, by how many blocks they are below it."""
    found: dict[int, list[nn.Parameter]] = {}
    names = {id(parameter): name for name, parameter in trainable.network.named_parameters()}
    for parameter in trainable.body_parameters():
        found.setdefault(trainable.depths.get(names[id(parameter)], 0), []).append(parameter)
    return dict(sorted(found.items()))


def make_schedule(optimizer: Optimizer, recipe: Recipe, steps: int, plateau: Plateau) -> LRScheduler | None:
    """Return the scheduler that changes the rates after each step; None where they are constant.

    Args:
        optimizer: Its present rates are multiplied by the factors.
        recipe: Names the schedule.
        steps: Of the whole training.
        plateau: Holds the present factor of the schedule "plateau".
    """
    if recipe.schedule == "one_cycle":
        rates = [group["lr"] for group in optimizer.param_groups]
        return OneCycleLR(optimizer, rates, total_steps=steps, cycle_momentum=recipe.optimizer == "sgd")
    if recipe.schedule == "constant" and not recipe.warmup_epochs:
        return None
    return LambdaLR(optimizer, lambda step: rate_factor(recipe, step, steps) * plateau.factor)


def rate_factor(recipe: Recipe, step: int, steps: int) -> float:
    """Return the factor of a step's rate, in (0, 1]: linear warm-up, then the schedule over the remaining steps.

    Args:
        recipe: Names the schedule; "one_cycle" is not one of these.
        step: From 0.
        steps: Of the whole training.
    """
    warm = round(steps * recipe.warmup_epochs / recipe.epochs)
    if step < warm:
        return (step + 1) / (warm + 1)
    step, steps = step - warm, max(1, steps - warm)
    if recipe.schedule == "cosine":
        return (1 + math.cos(math.pi * min(1.0, step / steps))) / 2
    if recipe.schedule == "step":
        left = recipe.epochs - recipe.warmup_epochs
        size = max(1, steps // 3 if recipe.step_size is None else round(steps * recipe.step_size / left))
        return float(recipe.gamma ** (step // size))
    return 1.0


class Plateau:
    """The factor of the schedule "plateau": multiplied by `gamma` when the validation loss did not fall for long.

    The rules are those of torch's `ReduceLROnPlateau` with its defaults: a loss counts as lower if it is so by more
    than 1e-4 of the lowest, and the count of epochs starts again after each reduction.
    """

    def __init__(self, gamma: float, patience: int) -> None:
        self.gamma, self.patience = gamma, patience
        self.factor, self.lowest, self.stale = 1.0, math.inf, 0

    def step(self, val_loss: float, optimizer: Optimizer) -> None:
        """Note an epoch's validation loss, and reduce the optimizer's rates if it has not fallen for long."""
        if val_loss < self.lowest * (1 - 1e-4):
            self.lowest, self.stale = val_loss, 0
            return
        self.stale += 1
        if self.stale > self.patience:
            self.factor, self.stale = self.factor * self.gamma, 0
            for group in optimizer.param_groups:
                group["lr"] *= self.gamma

    def state(self) -> list[float]:
        """Return the state for a checkpoint."""
        return [self.factor, self.lowest, self.stale]

    def restore(self, state: Sequence[float]) -> None:
        """Restore the state from a checkpoint."""
        self.factor, self.lowest, self.stale = state[0], state[1], int(state[2])
