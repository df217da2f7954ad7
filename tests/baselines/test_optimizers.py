from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau, StepLR

from featbench.baselines.optimizers import Plateau, rate_factor
from featbench.baselines.strategies import Recipe, make_recipe
from featbench.config import BaselineConfig

STEPS = 40  # of 10 epochs


def recipe(**settings: Any) -> Recipe:
    return make_recipe(BaselineConfig(strategy="scratch", epochs=10, **settings), 100)


def optimizer() -> SGD:
    return SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


@pytest.mark.parametrize(
    ("settings", "scheduler"),
    [
        ({"schedule": "cosine"}, lambda it: CosineAnnealingLR(it, STEPS)),
        ({"schedule": "step"}, lambda it: StepLR(it, STEPS // 3, gamma=0.1)),
        ({"schedule": "step", "step_size": 3, "gamma": 0.5}, lambda it: StepLR(it, 12, gamma=0.5)),
    ],
)
def test_schedules_are_those_of_torch(settings: dict[str, Any], scheduler: Any) -> None:
    other = optimizer()
    theirs = scheduler(other)
    for step in range(STEPS):
        assert rate_factor(recipe(**settings), step, STEPS) == pytest.approx(other.param_groups[0]["lr"], abs=1e-9)
        other.step()
        theirs.step()


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step", "plateau"])
def test_warm_up_rises_evenly_and_the_schedule_has_what_is_left(schedule: Any) -> None:
    warm, plain = recipe(schedule=schedule, warmup_epochs=2), recipe(schedule=schedule)
    factors = [rate_factor(warm, step, STEPS) for step in range(STEPS)]
    assert factors[:8] == pytest.approx([(step + 1) / 9 for step in range(8)])
    assert factors[8:] == pytest.approx([rate_factor(plain, step, STEPS - 8) for step in range(STEPS - 8)])


def test_plateau_follows_the_rules_of_torch() -> None:
    ours, theirs = optimizer(), optimizer()
    plateau, reference = Plateau(0.5, patience=2), ReduceLROnPlateau(theirs, factor=0.5, patience=2)
    losses = [3, 2, 2, 2, 2, 1.99999, 1.9, 1.95, 1.96, 1.97, 1.98, 1.99, 2, 1.0, math.nan, 2, 2, 2, 2]
    for loss in losses:
        plateau.step(loss, ours)
        reference.step(loss)
        assert ours.param_groups[0]["lr"] == theirs.param_groups[0]["lr"] == plateau.factor
    assert plateau.factor < 0.5
    again = Plateau(0.5, patience=2)
    again.restore(plateau.state())
    assert vars(again) == vars(plateau)
