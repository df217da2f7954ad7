"""The solvers of `featbench.solvers` as rows of the registry name them; torch is imported when one is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from featbench.classifiers.spec import Labels, Solver, Splits, Tried
from featbench.solvers.memory import COLUMN_BYTES, KERNEL_BYTES, kernels_fit
from featbench.solvers.neighbours import NearestNeighbours, neighbours_grid
from featbench.solvers.rbf import fit_rbf, rbf_grid
from featbench.solvers.ridge_grid import ridge_grid
from featbench.solvers.streamed import FeatureRows

if TYPE_CHECKING:
    from featbench.solvers.linear_folds import LinearSettings

_LOGISTIC = ("C", "max_iter")
_KNN = ("n_neighbors", "metric", "weights")
_SQUARED_HINGE = {"loss": "squared_hinge", "penalty": "l2", "multi_class": "ovr"}  # other values: other problems
# With far larger C and separable classes the batched solver of linear_svc can stop short of the optimum; that of
# logistic_regression was not tried.
_MAX_C_LINEAR_SVC = 10.0
_MAX_C_LOGISTIC = 100.0


def _serves_linear_svc(params: Mapping[str, Any]) -> bool:
    known = all(value == _SQUARED_HINGE.get(name, value) for name, value in params.items())
    return known and bool(params.get("C", 1.0) <= _MAX_C_LINEAR_SVC)


def _serves_logistic(params: Mapping[str, Any]) -> bool:
    return set(params) <= set(_LOGISTIC) and bool(params.get("C", 1.0) <= _MAX_C_LOGISTIC)


def _linear_settings(machine: LinearSVC | LogisticRegression) -> LinearSettings:
    from featbench.solvers.linear_folds import LinearSettings

    return LinearSettings.of(machine, loss="squared_hinge" if isinstance(machine, LinearSVC) else "softmax")


def _search_linear(X: Any, y: Labels, splits: Splits, machines: list[Any], device: str) -> list[Sequence[Tried]]:
    """Search machines that differ in nothing but C in one call each."""
    from featbench.solvers.linear_grid import linear_grid

    settings = [_linear_settings(machine) for machine in machines]
    results: dict[int, Sequence[Tried]] = {}
    for number, shared in enumerate(settings):
        if number not in results:
            group = [other for other in range(number, len(machines)) if settings[other] == shared]
            Cs = [machines[other].C for other in group]
            results |= zip(group, linear_grid(X, y, splits, Cs, shared, device), strict=True)
    return [results[number] for number in range(len(machines))]


def _fit_linear(model: Pipeline, X: FeatureRows, y: Labels, device: str) -> Pipeline:
    """Fit a pipeline of StandardScaler and scikit-learn's estimator; `n_iter_` counts Newton steps."""
    from featbench.solvers.linear_folds import Scaling, fit_scaler
    from featbench.solvers.linear_grid import fit_linear

    scaler, machine = model
    settings = _linear_settings(machine)
    scaling = Scaling.of(fit_scaler(X, np.arange(len(X)), scaler))
    fitted = fit_linear(X, y, machine.C, settings, scaling, device)
    steps = np.where(fitted.converged, fitted.n_iter, machine.max_iter).astype(np.int32)
    machine.classes_, machine.n_features_in_ = np.unique(y), X.shape[1]
    machine.coef_ = np.ascontiguousarray(fitted.W[:-1].T)
    machine.intercept_ = fitted.W[-1] * settings.bias if settings.fit_intercept else 0.0
    machine.n_iter_ = int(steps.max()) if isinstance(machine, LinearSVC) else steps
    return model


LINEAR_SVC = Solver(
    search=_search_linear,
    fit=_fit_linear,
    serves=_serves_linear_svc,
    serves_text=f"C up to {_MAX_C_LINEAR_SVC:g}",
    uses_gpu=True,
    disk_bytes=COLUMN_BYTES,
)
LOGISTIC = Solver(
    search=_search_linear,
    fit=_fit_linear,
    serves=_serves_logistic,
    serves_text=f"C up to {_MAX_C_LOGISTIC:g}",
)


def rbf_solver(memory_bytes: float = KERNEL_BYTES) -> Solver:
    """Return the solver of SVMs with a Gaussian kernel, whose kernels take this much memory.

    Where they do not fit, scikit-learn-intelex searches, if it is installed.
    """

    def fit(model: Pipeline, X: FeatureRows, y: Labels, device: str) -> Pipeline:
        scaler, machine = model
        fit_rbf(machine, scaler.fit_transform(X), y, memory_bytes)
        return model

    return Solver(
        search=lambda X, y, splits, machines, device: rbf_grid(X, y, splits, machines, memory_bytes),
        fit=fit,
        fits_memory=lambda y, splits: kernels_fit(y, splits, memory_bytes),
        fallback=INTELEX,
    )


def _search_intelex(X: Any, y: Labels, splits: Splits, machines: list[Any], device: str) -> list[list[Tried]]:
    """Do as `rbf_grid` on all cores, in memory that does not grow with the square of the rows."""
    from sklearnex import svm

    results: list[list[Tried]] = [[] for _ in machines]
    for kept, held_out in splits:
        scaler = StandardScaler().fit(X[kept])
        train, test = (scaler.transform(X[rows]).astype(np.float64) for rows in (kept, held_out))
        for result, machine in zip(results, machines, strict=True):
            fitted = svm.SVC(**machine.get_params()).fit(train, y[kept])
            result.append((float(fitted.score(test, y[held_out])), None))  # it does not report convergence
    return results


# Without `fit`: it does not report convergence, and its models have no file format that is safe to load.
INTELEX = Solver(
    search=_search_intelex,
    serves=lambda params: find_spec("sklearnex") is not None and "max_iter" not in params,  # counts other iterations
    engine="scikit-learn-intelex",
)


def _neighbours(machine: Any) -> NearestNeighbours:
    """Turn scikit-learn's estimator into ours; its default metric is the Euclidean by another name."""
    settings = {name: getattr(machine, name) for name in _KNN}
    return NearestNeighbours(**settings | ({"metric": "euclidean"} if settings["metric"] == "minkowski" else {}))


def _fit_knn(model: Pipeline, X: FeatureRows, y: Labels, device: str) -> Pipeline:
    fitted: Pipeline = make_pipeline(_neighbours(model[-1])).fit(X, y)
    return fitted


KNN = Solver(
    search=lambda X, y, splits, machines, device: neighbours_grid(X, y, splits, [*map(_neighbours, machines)]),
    fit=_fit_knn,
    serves=lambda params: set(params) <= set(_KNN) and params.get("metric", "euclidean") in ("cosine", "euclidean"),
)
RIDGE = Solver(
    search=lambda X, y, splits, machines, device: ridge_grid(X, y, splits, [each.alpha for each in machines]),
    serves=lambda params: set(params) == {"alpha"},
)
