"""Which solvers fit a classifier: featbench's own where they serve, else the plain loop over scikit-learn.

Where the kernels of svm_rbf are too large to be shared, scikit-learn-intelex does the search, if it is installed. All
give the same answer to within the tolerance of the solvers; `evaluate.engine = "sklearn"` always takes the loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from featbench.classifiers.registry import get_classifier
from featbench.classifiers.transforms import learns
from featbench.config import EvaluateConfig
from featbench.solvers.intelex import installed, intelex_grid
from featbench.solvers.neighbours import NearestNeighbours, neighbours_grid
from featbench.solvers.rbf_fit import fit_rbf
from featbench.solvers.rbf_grid import fits_memory, rbf_grid
from featbench.solvers.ridge_grid import ridge_grid
from featbench.solvers.streamed import FeatureRows, StreamedRows

Engine = Literal["featbench", "scikit-learn", "scikit-learn-intelex"]
Rows = npt.NDArray[np.intp]
Tried = tuple[float, bool | None]

_LINEAR = ("C", "tol", "fit_intercept", "intercept_scaling", "class_weight", "max_iter")
_KNN = ("n_neighbors", "metric", "weights")
_KNOWN = {"linear_svc": _LINEAR, "logistic_regression": ("C", "max_iter"), "knn": _KNN}
# Far beyond, on separable classes, the batched solver of linear_svc can stop short of the optimum; that of
# logistic_regression was not tried.
_LARGEST_C = {"linear_svc": 10.0, "logistic_regression": 100.0}
_SAME = {"loss": "squared_hinge", "penalty": "l2", "multi_class": "ovr"}  # the others are other problems


def fit_engine(name: str, grid: Sequence[Mapping[str, Any]], config: EvaluateConfig) -> Engine:
    """Return what fits a model with parameters from this grid."""
    serves = name in _KNOWN and all(_serves(name, params) for params in grid)
    return "featbench" if config.engine == "auto" and serves else "scikit-learn"


def _serves(name: str, params: Mapping[str, Any]) -> bool:
    same = _SAME.items() if name == "linear_svc" else ()
    if not all(key in _KNOWN[name] or (key, value) in same for key, value in params.items()):
        return False
    if name == "knn":
        return params.get("metric", "euclidean") in ("cosine", "euclidean")
    return bool(params.get("C", 1.0) <= _LARGEST_C[name])


def search_engine(
    name: str,
    grid: Sequence[Mapping[str, Any]],
    y: npt.NDArray[np.int64],
    splits: Sequence[tuple[Rows, Rows]],
    config: EvaluateConfig,
) -> Engine:
    """Return what tries the candidates of a grid."""
    if name == "svm_rbf" and config.engine == "auto":
        if fits_memory(y, splits):
            return "featbench"
        known = all("max_iter" not in params for params in grid)  # it counts other iterations
        return "scikit-learn-intelex" if known and installed() else "scikit-learn"
    if name == "ridge" and config.engine == "auto" and all(set(params) == {"alpha"} for params in grid):
        return "featbench"
    return fit_engine(name, grid, config)


def streams(name: str, grid: Sequence[Mapping[str, Any]], steps: Sequence[str], config: EvaluateConfig) -> bool:
    """Say whether a classifier with parameters from this grid can be fitted on rows that stay on disk."""
    return name == "linear_svc" and fit_engine(name, grid, config) == "featbench" and not learns(steps)


def try_grid(
    name: str,
    grid: Sequence[Mapping[str, Any]],
    X: FeatureRows,
    y: npt.NDArray[np.int64],
    splits: Sequence[tuple[Rows, Rows]],
    device: str = "cpu",
) -> list[Tried]:
    """Return (mean accuracy over splits, whether all splits converged) of each candidate.

    `device` is where linear_svc is fitted; the others are on the CPU.

    Raises:
        ValueError: A candidate is refused.
    """
    if name in ("linear_svc", "logistic_regression"):
        return _try_linear(name, grid, X, y, splits, device)
    assert isinstance(X, np.ndarray)  # `streams`
    if name == "svm_rbf":
        machines = [get_classifier(name).make(params, 0, X.shape[1])[-1] for params in grid]
        if fits_memory(y, splits):
            return [_over_splits(folds) for folds in rbf_grid(X, y, splits, machines)]
        return [_over_splits(folds) for folds in intelex_grid(X, y, splits, machines)]
    if name == "knn":
        machines = [_neighbours(get_classifier(name).make(params, 0, X.shape[1])[-1]) for params in grid]
        return [_over_splits(folds) for folds in neighbours_grid(X, y, splits, machines)]
    return [_over_splits(folds) for folds in ridge_grid(X, y, splits, [params["alpha"] for params in grid])]


def _try_linear(
    name: str,
    grid: Sequence[Mapping[str, Any]],
    X: FeatureRows,
    y: npt.NDArray[np.int64],
    splits: Sequence[tuple[Rows, Rows]],
    device: str,
) -> list[Tried]:
    from featbench.solvers.linear_folds import LinearSettings
    from featbench.solvers.linear_grid import linear_grid
    from featbench.solvers.logistic_grid import logistic_grid

    machines = [get_classifier(name).make(params, 0, X.shape[1])[-1] for params in grid]
    others = [{key: getattr(machine, key) for key in _KNOWN[name] if key != "C"} for machine in machines]
    tried: dict[int, Tried] = {}
    for number, settings in enumerate(others):
        if number not in tried:
            alike = [other for other in range(number, len(grid)) if others[other] == settings]
            Cs = [machines[other].C for other in alike]
            if name == "linear_svc":
                found = linear_grid(X, y, splits, Cs, LinearSettings(**settings), device)
            else:
                assert isinstance(X, np.ndarray)  # `streams`
                found = logistic_grid(X, y, splits, Cs, **settings)
            tried |= {other: _over_splits(folds) for other, folds in zip(alike, found, strict=True)}
    return [tried[number] for number in range(len(grid))]


def _over_splits(folds: Sequence[tuple[float, bool | None]]) -> Tried:
    together = [converged for _, converged in folds]
    return float(np.mean([accuracy for accuracy, _ in folds])), None if None in together else all(together)


def fit_fast(name: str, model: Pipeline, X: FeatureRows, y: npt.NDArray[np.int64], device: str = "cpu") -> Pipeline:
    """Fit an unfitted pipeline of `ClassifierSpec.make` with featbench's own solver where there is one.

    `device` is where linear_svc is fitted; the others are on the CPU.

    Raises:
        ValueError: The parameters or the rows are refused.
    """
    if name == "linear_svc":
        return fit_linear(model, X, y, device)
    if name == "logistic_regression":
        from featbench.solvers.logistic_grid import fit_logistic

        assert isinstance(X, np.ndarray)  # `streams`
        scaler, machine = model  # as ClassifierSpec.make gives it
        fit_logistic(scaler, machine, X, y)
        return model
    if name == "svm_rbf":
        scaler, machine = model  # as ClassifierSpec.make gives it
        fit_rbf(machine, scaler.fit_transform(X), y)
        return model
    if name == "knn":
        model = make_pipeline(_neighbours(model[-1]))
    fitted: Pipeline = model.fit(X, y)
    return fitted


def _neighbours(machine: Any) -> NearestNeighbours:
    """Turn scikit-learn's into ours; its default metric is the euclidean by another name."""
    settings = {key: getattr(machine, key) for key in _KNN}
    return NearestNeighbours(**settings | ({"metric": "euclidean"} if settings["metric"] == "minkowski" else {}))


def fit_linear(model: Pipeline, X: FeatureRows, y: npt.NDArray[np.int64], device: str = "cpu") -> Pipeline:
    """Fit a pipeline of StandardScaler and LinearSVC; what returns is scikit-learn's own, fitted.

    Raises:
        ValueError: The parameters or the rows are refused.
    """
    from featbench.solvers.linear import PrimalLinearSVC

    scaler, machine = model  # as ClassifierSpec.make gives it
    if isinstance(X, StreamedRows):
        return make_pipeline(scaler, _fit_streamed(scaler, machine, X, y))
    primal = PrimalLinearSVC(**{key: getattr(machine, key) for key in _LINEAR}, device=device)
    return make_pipeline(scaler, primal.fit(scaler.fit_transform(X), y).to_sklearn())


def _fit_streamed(scaler: StandardScaler, machine: LinearSVC, X: StreamedRows, y: npt.NDArray[np.int64]) -> LinearSVC:
    """Fit both on rows that stay on disk."""
    from featbench.solvers.linear_folds import LinearSettings
    from featbench.solvers.linear_grid import fit_streamed

    settings = LinearSettings(**{key: getattr(machine, key) for key in _LINEAR if key != "C"})
    fitted = fit_streamed(X, y, machine.C, settings, scaler)
    machine.classes_, machine.n_features_in_ = np.unique(y), X.shape[1]
    machine.coef_ = np.ascontiguousarray(fitted.W[:-1].T)
    machine.intercept_ = fitted.W[-1] * machine.intercept_scaling if machine.fit_intercept else 0.0
    machine.n_iter_ = int(fitted.n_iter.max()) if fitted.converged.all() else machine.max_iter
    return machine
