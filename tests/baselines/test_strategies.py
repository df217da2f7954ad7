from __future__ import annotations

from typing import Any, get_args

import pytest

from featbench.baselines.strategies import STRATEGIES, make_recipe
from featbench.config import BaselineConfig
from featbench.errors import UsageError

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


@pytest.mark.parametrize(
    ("n_train", "settings", "refit"),
    [
        (4_999, {}, True),
        (5_000, {}, False),
        (5_000, {"refit": True}, True),
        (99, {"refit": False}, False),
        (99, {"strategy": "linear_head"}, False),
        (99, {"early_stopping": 3}, False),
        (99, {"schedule": "plateau"}, False),
    ],
)
def test_few_images_are_worth_a_second_training_on_all(n_train: int, settings: dict[str, Any], refit: bool) -> None:
    config = BaselineConfig(**{"strategy": "finetune"} | settings)
    assert make_recipe(config, n_train).refit is refit
    assert make_recipe(config, n_train, learning_curve=True).refit is bool(config.refit)


@pytest.mark.parametrize(
    ("strategy", "settings", "clip_norm"),
    [
        ("scratch", {}, 1.0),
        ("scratch", {"clip_norm": 5.0}, 5.0),
        ("scratch", {"optimizer": "sgd"}, None),
        ("finetune", {}, None),
    ],
)
def test_gradients_are_clipped_from_random_weights(strategy: Any, settings: Any, clip_norm: float | None) -> None:
    assert make_recipe(BaselineConfig(strategy=strategy, **settings), 99).clip_norm == clip_norm


def test_only_scratch_starts_from_random_weights() -> None:
    assert [name for name, spec in STRATEGIES.items() if not spec.pretrained] == ["scratch"]


def test_images_change_only_where_all_of_the_network_learns() -> None:
    presets = {
        name: make_recipe(BaselineConfig(strategy=name, **EXTRA.get(name, {})), 99).augment for name in STRATEGIES
    }
    assert presets == {"linear_head": "none", "partial": "none", "finetune": "flip_crop", "scratch": "flip_crop"}


@pytest.mark.parametrize(("dataset", "preset"), [("folder", "flip_crop"), ("cifar10", "flip_crop"), ("mnist", "crop")])
def test_digits_are_not_mirrored(dataset: str, preset: str) -> None:
    assert make_recipe(BaselineConfig(strategy="scratch"), 99, dataset).augment == preset


def test_a_warm_up_as_long_as_the_training_is_refused() -> None:
    config = BaselineConfig(strategy="finetune", schedule="cosine", warmup_epochs=500)
    with pytest.raises(UsageError, match="warmup_epochs = 500 leaves none of the"):
        make_recipe(config, 99)
