from __future__ import annotations

from typing import Any, get_args

import pytest

from featbench.baselines.strategies import STRATEGIES, make_recipe
from featbench.config import BaselineConfig

EXTRA: dict[str, dict[str, Any]] = {"partial": {"freeze_until": "layer1"}}


def test_the_table_has_every_strategy_of_an_experiment_file() -> None:
    assert set(STRATEGIES) == set(get_args(BaselineConfig.model_fields["strategy"].annotation))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_is_left_open_comes_from_the_strategy(strategy: str) -> None:
    recipe = make_recipe(BaselineConfig(strategy=strategy, **EXTRA.get(strategy, {})), 2_000)
    spec = STRATEGIES[strategy]
    assert (recipe.epochs, recipe.lr, recipe.weight_decay) == (spec.epochs, spec.lr, spec.weight_decay)
    assert recipe.optimizer == "adamw"
    assert recipe.strategy == strategy


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_an_experiment_says_wins(strategy: str) -> None:
    given: dict[str, Any] = {
        "epochs": 7,
        "batch_size": 5,
        "optimizer": "sgd",
        "lr": 0.25,
        "momentum": 0.5,
        "weight_decay": 0.0,
        "l1": 0.125,
        "dropout": 0.5,
        "schedule": "cosine",
        "early_stopping": 3,
    }
    recipe = make_recipe(BaselineConfig(strategy=strategy, **EXTRA.get(strategy, {}), **given), 2_000)
    assert {name: getattr(recipe, name) for name in given} == given


@pytest.mark.parametrize(("n_train", "batch_size"), [(20, 20), (999, 32), (1_000, 64), (9_999, 64), (10_000, 128)])
def test_the_batch_grows_with_the_training_set(n_train: int, batch_size: int) -> None:
    assert make_recipe(BaselineConfig(strategy="scratch"), n_train).batch_size == batch_size


def test_only_scratch_starts_from_random_weights() -> None:
    assert [name for name, spec in STRATEGIES.items() if not spec.pretrained] == ["scratch"]
