"""Which solvers fit a classifier: featbench's own where they serve, else the plain loop over scikit-learn.

Both give the same answer to within the tolerance of the solvers; `evaluate.engine = "sklearn"` always takes the loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from sklearn.pipeline import Pipeline, make_pipeline

from featbench.classifiers.neighbours import NearestNeighbours, neighbours_grid
from featbench.classifiers.rbf_grid import fits_memory, rbf_grid
from featbench.classifiers.ridge_grid import ridge_grid
from featbench.classifiers.table import get_classifier
from featbench.config import EvaluateConfig

Engine = Literal["featbench", "scikit-learn"]
Rows = npt.NDArray[np.intp]
Tried = tuple[float, bool | None]

_LINEAR = ("C", "tol", "fit_intercept", "intercept_scaling", "class_weight", "max_iter")
_KNN = ("n_neighbors", "metric", "weights")
_LARGEST_C = 10.0  # far beyond, on separable classes, the batched solver can stop short of the optimum
_SAME = {"loss": "squared_hinge", "penalty": "l2", "multi_class": "ovr"}  # the others are other problems


def fit_engine(name: str, grid: Sequence[Mapping[str, Any]], config: EvaluateConfig) -> Engine:
    """Return what fits a model with parameters from this grid."""
    if name == "knn":
        known = all(key in _KNN for params in grid for key in params)
        known = known and all(params.get("metric", "euclidean") in ("cosine", "euclidean") for params in grid)
        return "featbench" if config.engine == "auto" and known else "scikit-learn"
    serves = name == "linear_svc" and all(
        key in _LINEAR or _SAME.get(key) == value for params in grid for key, value in params.items()
    )
    serves = serves and all(params.get("C", 1.0) <= _LARGEST_C for params in grid)
    return "featbench" if config.engine == "auto" and serves else "scikit-learn"


def search_engine(
    name: str, grid: Sequence[Mapping[str, Any]], splits: Sequence[tuple[Rows, Rows]], config: EvaluateConfig
) -> Engine:
    """Return what tries the candidates of a grid."""
    if name == "svm_rbf" and config.engine == "auto" and fits_memory(splits):
        return "featbench"
    if name == "ridge" and config.engine == "auto" and all(set(params) == {"alpha"} for params in grid):
        return "featbench"
    return fit_engine(name, grid, config)


def try_grid(
    name: str,
    grid: Sequence[Mapping[str, Any]],
    X: npt.NDArray[Any],
    y: npt.NDArray[np.int64],
    splits: Sequence[tuple[Rows, Rows]],
) -> list[Tried]:
    """Return (mean accuracy over splits, whether all splits converged) of each candidate.

    Raises:
        ValueError: A candidate is refused.
    """
    if name == "svm_rbf":
        machines = [get_classifier(name).make(params, 0, X.shape[1])[-1] for params in grid]
        return [_over_splits(folds) for folds in rbf_grid(X, y, splits, machines)]
    if name == "knn":
        machines = [_neighbours(get_classifier(name).make(params, 0, X.shape[1])[-1]) for params in grid]
        return [_over_splits(folds) for folds in neighbours_grid(X, y, splits, machines)]
    if name == "ridge":
        return [_over_splits(folds) for folds in ridge_grid(X, y, splits, [params["alpha"] for params in grid])]
    return _try_linear(grid, X, y, splits)


def _try_linear(
    grid: Sequence[Mapping[str, Any]],
    X: npt.NDArray[Any],
    y: npt.NDArray[np.int64],
    splits: Sequence[tuple[Rows, Rows]],
) -> list[Tried]:
    from featbench.classifiers.linear_grid import LinearSettings, linear_grid

    machines = [get_classifier("linear_svc").make(params, 0, X.shape[1])[-1] for params in grid]
    others = [{key: getattr(machine, key) for key in _LINEAR if key != "C"} for machine in machines]
    tried: dict[int, Tried] = {}
    for number, settings in enumerate(others):
        if number not in tried:
            alike = [other for other in range(number, len(grid)) if others[other] == settings]
            Cs = [machines[other].C for other in alike]
            found = linear_grid(X, y, splits, Cs, LinearSettings(**settings))
            tried |= {other: _over_splits(folds) for other, folds in zip(alike, found, strict=True)}
    return [tried[number] for number in range(len(grid))]


def _over_splits(folds: Sequence[tuple[float, bool | None]]) -> Tried:
    together = [converged for _, converged in folds]
    return float(np.mean([accuracy for accuracy, _ in folds])), None if None in together else all(together)


def fit_fast(name: str, model: Pipeline, X: npt.NDArray[Any], y: npt.NDArray[np.int64]) -> Pipeline:
    """Fit an unfitted pipeline of `ClassifierSpec.make` with featbench's own solver where there is one.

    Raises:
        ValueError: The parameters or the rows are refused.
    """
    if name == "linear_svc":
        return fit_linear(model, X, y)
    if name == "knn":
        model = make_pipeline(_neighbours(model[-1]))
    fitted: Pipeline = model.fit(X, y)
    return fitted


def _neighbours(machine: Any) -> NearestNeighbours:
    """Turn scikit-learn's into ours; its default metric is the euclidean by another name."""
    settings = {key: getattr(machine, key) for key in _KNN}
    return NearestNeighbours(**settings | ({"metric": "euclidean"} if settings["metric"] == "minkowski" else {}))


def fit_linear(model: Pipeline, X: npt.NDArray[Any], y: npt.NDArray[np.int64]) -> Pipeline:
    """Fit a pipeline of StandardScaler and LinearSVC; what returns is scikit-learn's own, fitted.

    Raises:
        ValueError: The parameters or the rows are refused.
    """
    from featbench.classifiers.linear import PrimalLinearSVC

    scaler, machine = model  # as ClassifierSpec.make gives it
    primal = PrimalLinearSVC(**{key: getattr(machine, key) for key in _LINEAR})
    return make_pipeline(scaler, primal.fit(scaler.fit_transform(X), y).to_sklearn())
