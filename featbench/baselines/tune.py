"""A small search over the learning rate and the number of epochs, judged by validation."""

from __future__ import annotations

from dataclasses import replace

from featbench.baselines.strategies import Recipe

# of the recipe's lr and epochs, in the order in which they are tried
FACTORS = ((1, 1), (3, 1), (1 / 3, 1), (1, 2), (3, 2), (1 / 3, 2), (10, 1), (0.1, 1), (10, 2), (0.1, 2))


def candidates(recipe: Recipe, trainings: int) -> list[Recipe]:
    """Return the recipes to try, the recipe itself first.

    Args:
        recipe: As it would be trained without a search.
        trainings: How many in all; 0 is no search.
    """
    found = [
        replace(recipe, lr=float(f"{recipe.lr * rate:.6g}"), epochs=recipe.epochs * epochs) for rate, epochs in FACTORS
    ]
    return found[: max(1, trainings)]
