"""Support vector machines with a Gaussian kernel: scikit-learn's SVC, with kernels from products of matrices.

libsvm computes a kernel number by number on one core; a product of matrices is several times as fast, and libsvm's
solution is the same to rounding. In a search the distances are computed once a fold, and all C share the kernel of each
gamma. Where a kernel of all rows does not fit the memory, `rbf_pairs` takes two classes at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from joblib import Parallel, delayed
from sklearn import clone, config_context
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.model_selection import check_cv
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils._param_validation import Interval
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from featbench.solvers.memory import KERNEL_BYTES, pair_kernel_bytes, split_kernel_bytes
from featbench.solvers.rbf_pairs import (
    Floats,
    Rows,
    by_gamma,
    decision_values,
    fit_pairs,
    gamma_of,
    kernel_blocks,
    kernel_of,
    pair_coefficients,
    precomputed,
    predict_pairs,
)


class RBFSVCCV(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """SVC with a Gaussian kernel, whose C and gamma are chosen by cross-validation; as GridSearchCV, but faster.

    The mean accuracy over folds decides; of equals the first wins, C by C and within a C gamma by gamma.

    Args:
        Cs: Values of C to try.
        gammas: Values of gamma to try, on standardised features; None: `gamma_scales` / (number of features).
        gamma_scales: Values to try when `gammas` is None; 1.0 is scikit-learn's "scale" on features of variance 1.
        cv: Folds: their number, a splitter, or (training rows, held-out rows) pairs, as in GridSearchCV.
        standardize: Whether to standardise features, in each fold by its training rows.
        tol: SVC's `tol`.
        max_iter: SVC's `max_iter`; -1: no limit.
        memory_bytes: Budget for kernels; beyond it SVC's own kernels take over, in the final fit.

    Attributes:
        C_: The chosen C.
        gamma_: The chosen gamma.
        scores_: (n_splits, n_Cs, n_gammas) float64 accuracies on held-out rows.
        classes_: (n_classes,) labels.
        scaler_: The fitted StandardScaler; it changes nothing without `standardize`.
        svc_: The SVC fitted on all rows with `C_` and `gamma_`; its labels are places in `classes_`.
        n_iter_: (n_pairs,) its iterations.

    Examples:
        >>> from sklearn.datasets import load_digits
        >>> from featbench.solvers import RBFSVCCV
        >>> X, y = load_digits(return_X_y=True)
        >>> model = RBFSVCCV(Cs=(1.0, 10.0), gamma_scales=(0.1, 0.3), cv=3).fit(X[:1000], y[:1000])
        >>> model.C_, round(model.gamma_ * 64, 3), model.scores_.shape
        (10.0, 0.3, (3, 2, 2))
        >>> round(model.score(X[1000:], y[1000:]), 1)
        0.9
    """

    _parameter_constraints: dict[str, Any] = {  # noqa: RUF012 (the name and the type are scikit-learn's)
        "Cs": ["array-like"],
        "gammas": ["array-like", None],
        "gamma_scales": ["array-like"],
        "cv": ["cv_object"],
        "standardize": ["boolean"],
        "tol": [Interval(Real, 0.0, None, closed="neither")],
        "max_iter": [Interval(Integral, -1, None, closed="left")],
        "memory_bytes": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        Cs: Sequence[float] = (1.0, 10.0, 100.0),
        *,
        gammas: Sequence[float] | None = None,
        gamma_scales: Sequence[float] = (0.1, 0.3, 1.0),
        cv: Any = 5,
        standardize: bool = True,
        tol: float = 1e-3,
        max_iter: int = -1,
        memory_bytes: float = KERNEL_BYTES,
    ) -> None:
        self.Cs = Cs
        self.gammas = gammas
        self.gamma_scales = gamma_scales
        self.cv = cv
        self.standardize = standardize
        self.tol = tol
        self.max_iter = max_iter
        self.memory_bytes = memory_bytes

    @_fit_context(prefer_skip_nested_validation=False)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any) -> Self:
        """Choose C and gamma, and fit the SVC with them on all rows.

        Args:
            X: (N, D) float, finite.
            y: (N,) labels of at least two classes.

        Raises:
            ValueError: There is only one class, or a parameter or an array is invalid.
        """
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], order="C")
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"RBFSVCCV needs at least 2 classes; the data has one class: {self.classes_[0]!r}")
        scales = [float(scale) / X.shape[1] for scale in self.gamma_scales]
        gammas = scales if self.gammas is None else [float(gamma) for gamma in self.gammas]
        grid = [(float(C), gamma) for C in self.Cs for gamma in gammas]
        machines = [SVC(C=C, gamma=gamma, break_ties=True, tol=self.tol, max_iter=self.max_iter) for C, gamma in grid]
        if not machines:
            raise ValueError("RBFSVCCV needs at least one C and one gamma to try")
        splits = list(check_cv(self.cv, y, classifier=True).split(X, y))
        results = rbf_grid(X, labels, splits, machines, self.memory_bytes, standardize=self.standardize)
        accuracies = np.array([[accuracy for accuracy, _ in folds] for folds in results])
        self.scores_ = accuracies.T.reshape(len(splits), -1, len(gammas))
        best = int(accuracies.mean(axis=1).argmax())
        self.C_, self.gamma_ = grid[best]
        self.scaler_ = _scaler(self.standardize).fit(X)
        self.svc_ = fit_rbf(clone(machines[best]), self.scaler_.transform(X), labels, self.memory_bytes)
        self.n_iter_ = self.svc_.n_iter_
        return self

    def decision_function(self, X: Any) -> Floats:
        """Return the decision values of the SVC: (M,) for two classes, else (M, n_classes)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], order="C", reset=False)
        return decision_values(self.svc_, self.scaler_.transform(X))

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Return the class with the highest decision value, (M,)."""
        scores = self.decision_function(X)
        return np.asarray(self.classes_[scores.argmax(axis=1) if scores.ndim == 2 else (scores > 0).astype(int)])


def _scaler(standardize: bool) -> StandardScaler:
    return StandardScaler(with_mean=standardize, with_std=standardize)


def fit_rbf(machine: SVC, X: npt.NDArray[Any], y: npt.NDArray[np.int64], memory_bytes: float = KERNEL_BYTES) -> SVC:
    """Fit one machine to all rows, from their kernel if it fits the memory.

    Args:
        machine: Unfitted, kernel="rbf".
        X: (N, D) float, finite, scaled.
        y: (N,) int64 labels.
        memory_bytes: Budget for kernels.

    Returns:
        The machine, fitted, with the attributes of scikit-learn's own `fit`.

    Raises:
        ValueError: scikit-learn refuses the machine.
    """
    if machine.probability is True:
        return machine.fit(X, y)
    X = np.ascontiguousarray(X, np.float64)
    if 8 * len(X) ** 2 > memory_bytes:
        if pair_kernel_bytes(y) > memory_bytes:
            return machine.fit(X, y)
        return fit_pairs([machine], X, y, memory_bytes)[0]
    gamma = gamma_of(machine, X)
    kernel = euclidean_distances(X, squared=True)
    fitted = precomputed(machine).fit(kernel_of(kernel, gamma, kernel), y)
    vars(machine).update({name: value for name, value in vars(fitted).items() if name not in machine.get_params()})
    machine.n_features_in_, machine.shape_fit_, machine._gamma = X.shape[1], X.shape, gamma
    machine.support_vectors_ = X[machine.support_]
    return machine


def rbf_grid(
    X: npt.NDArray[Any],
    y: npt.NDArray[np.int64],
    splits: Sequence[tuple[Rows, Rows]],
    machines: Sequence[SVC],
    memory_bytes: float = KERNEL_BYTES,
    *,
    standardize: bool = True,
) -> list[list[tuple[float, bool]]]:
    """Fit every machine on every split, and score it on the rows held out.

    Args:
        X: (N, D) float, finite, not scaled.
        y: (N,) int64 labels.
        splits: (rows to fit on, rows to score on).
        machines: Unfitted, kernel="rbf", break_ties=True, with C, gamma and other parameters.
        memory_bytes: Budget for the kernel of a split; beyond it one pair of classes after the other is fitted.
        standardize: Whether to standardise features by the rows to fit on.

    Returns:
        For every machine and every split: the accuracy, and whether the solver converged.

    Raises:
        ValueError: scikit-learn refuses a machine.
    """
    results: list[list[tuple[float, bool]]] = [[] for _ in machines]
    for rows, held_out in splits:
        kept = rows[np.argsort(y[rows], kind="stable")]  # libsvm then finds a pair of classes side by side
        scaler = _scaler(standardize).fit(X[kept])
        train, test = scaler.transform(X[kept]).astype(np.float64), scaler.transform(X[held_out]).astype(np.float64)
        if split_kernel_bytes(len(kept), len(held_out)) <= memory_bytes:
            fitted = _fit_kernels(machines, train, y[kept])
        else:
            plain = [clone(machine).set_params(probability=SVC().probability) for machine in machines]
            fitted = fit_pairs(plain, train, y[kept], memory_bytes)
        accuracies = _accuracies(fitted, by_gamma(machines, train), train, test, y[held_out])
        for result, accuracy, machine in zip(results, accuracies, fitted, strict=True):
            result.append((accuracy, bool(machine.fit_status_ == 0)))
    return results


def _fit_kernels(machines: Sequence[SVC], X: Floats, y: npt.NDArray[np.int64]) -> list[SVC]:
    """Fit machines to all rows from one kernel a gamma; what returns takes kernels."""
    distances = euclidean_distances(X, squared=True)
    kernel = np.empty_like(distances)  # one for all gammas: allocating it costs more than exp

    def fit(machine: SVC) -> SVC:
        with config_context(assume_finite=True):  # kernels of finite rows are finite
            return precomputed(machine).fit(kernel, y)

    fitted: dict[int, SVC] = {}
    for gamma, group in by_gamma(machines, X).items():
        kernel_of(distances, gamma, kernel)
        found = Parallel(n_jobs=-1, prefer="threads")(delayed(fit)(machines[index]) for index in group)
        fitted |= zip(group, found, strict=True)
    return [fitted[index] for index in range(len(machines))]


def _accuracies(
    fitted: Sequence[SVC],
    groups: Mapping[float, Sequence[int]],
    train: Floats,
    test: Floats,
    y_test: npt.NDArray[np.int64],
) -> list[float]:
    """Score fitted machines; `groups` are the indices of those of each gamma, which share a kernel."""
    stacked = [np.hstack([_row_coefficients(fitted[i], len(train)) for i in group]) for group in groups.values()]
    right = np.zeros(len(fitted))
    for block in kernel_blocks(len(test), len(train)):
        distances = euclidean_distances(test[block], train, squared=True)
        kernel = np.empty_like(distances)
        for (gamma, group), coefficients in zip(groups.items(), stacked, strict=True):
            values = np.split(kernel_of(distances, gamma, kernel) @ coefficients, len(group), axis=1)
            for index, pair_values in zip(group, values, strict=True):
                labels = predict_pairs(fitted[index], pair_values + fitted[index].intercept_)
                right[index] += (labels == y_test[block]).sum()
    accuracies: list[float] = (right / len(test)).tolist()
    return accuracies


def _row_coefficients(machine: SVC, n_rows: int) -> Floats:
    """Return `pair_coefficients` with a row for each training row, 0 where it is no support vector."""
    of_vectors = pair_coefficients(machine)
    coefficients = np.zeros((n_rows, of_vectors.shape[1]))
    coefficients[machine.support_] = of_vectors
    return coefficients
