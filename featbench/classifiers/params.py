"""Hyper-parameters: which are tried, whether a grid is right, and which a row records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from sklearn.model_selection import ParameterGrid
from sklearn.pipeline import Pipeline

from featbench.classifiers.spec import GAMMA_SCALE, MANAGED, ClassifierSpec
from featbench.classifiers.transforms import check_steps
from featbench.config import EvaluateConfig
from featbench.errors import UsageError, unknown

_WITHOUT_EFFECT_ON_THE_ANSWER = ("n_jobs", "verbose", "cache_size", "oob_score", "warm_start", "device", "copy_X")


def candidates(spec: ClassifierSpec, config: EvaluateConfig) -> list[dict[str, Any]]:
    """List the hyper-parameters to try, in scikit-learn's order of a grid.

    A grid of the experiment replaces the built-in one; what neither names keeps scikit-learn's default.
    """
    grid = config.grids.get(spec.name, spec.grid)
    return list(ParameterGrid({key: list(values) for key, values in grid.items()}))


def check_grids(specs: Iterable[ClassifierSpec], config: EvaluateConfig) -> None:
    """Check the names of steps and everything in `evaluate.grids`, before any work is done.

    Raises:
        UsageError: A parameter does not exist, is featbench's own to set, or has a value that scikit-learn refuses; or
            a step is wrong.
    """
    for steps in config.steps:
        check_steps(steps)
    for spec in specs:
        valid = spec.tunable()
        for candidate in candidates(spec, config):
            _check_candidate(spec, candidate, valid)


def used_params(spec: ClassifierSpec, params: Mapping[str, Any], model: Pipeline) -> dict[str, Any]:
    """Return every parameter that bears on the answer of a model made from `params`, for the row's `params`."""
    used = {
        key: _plain(value)
        for key, value in model[-1].get_params().items()
        if key.rpartition("__")[2] not in _WITHOUT_EFFECT_ON_THE_ANSWER
        and not (isinstance(value, str) and value == "deprecated")  # how scikit-learn marks parameters it will remove
        and not (spec.source and key in ("steps", "transform_input"))  # a pipeline's; its parts follow by name
    }
    return {**used, **params, "scaler": "StandardScaler" if spec.scaled else None}


def _plain(value: Any) -> Any:
    """Turn a parameter's value into what JSON can hold; objects become their `repr`."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    plain = value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and np.isfinite(value))
    return value if plain else repr(value)


def _check_candidate(spec: ClassifierSpec, candidate: Mapping[str, Any], valid: list[str]) -> None:
    for key in candidate:
        if key in spec.fixed or key in MANAGED:
            raise UsageError(
                f"grids.{spec.name}.{key} is not for a grid: featbench sets it; remove it. Valid: {', '.join(valid)}."
            )
        if key not in valid:
            raise unknown(f"parameter of grids.{spec.name}", key, valid)
    if GAMMA_SCALE in candidate:
        factor = candidate[GAMMA_SCALE]
        if "gamma" in candidate:
            raise UsageError(f"grids.{spec.name} holds both gamma and gamma_scale; remove one")
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not factor > 0:
            raise UsageError(f"grids.{spec.name}.gamma_scale = {factor!r}: give numbers above 0, as in [0.1, 0.3, 1.0]")
    try:
        estimator = spec.make(candidate, seed=0, n_features=1)[-1]
        if hasattr(estimator, "_parameter_constraints"):  # all but those of users' own classes
            # The check that fit() starts with; a fit on made-up rows would be the public but slower way to it.
            estimator._validate_params()
    except ValueError as error:
        raise UsageError(f"grids.{spec.name}: {error}") from error
