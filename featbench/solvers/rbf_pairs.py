"""Support vector machines with a Gaussian kernel, one pair of classes at a time.

libsvm's machine for many classes is one machine for each pair of classes, fitted on their rows alone. So the kernel of
a pair is enough where the kernel of all rows does not fit the memory. Pairs are fitted in parallel as memory allows.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
from joblib import Parallel, cpu_count, delayed
from sklearn import config_context
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.svm import SVC
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import _ovr_decision_function
from threadpoolctl import threadpool_limits

from featbench.solvers.memory import KERNEL_BYTES, pair_kernel_bytes

Rows = npt.NDArray[np.intp]
Floats = npt.NDArray[np.float64]
_BLOCK_BYTES = 2**27  # of the kernel of rows that are scored
_TRANSPOSED_COLUMNS = 128  # at a time, so that they stay in the processor's cache


def gamma_of(machine: SVC, X: Floats) -> float:
    """Return gamma as a number, as scikit-learn computes "auto" and "scale" for rows (N, D)."""
    if machine.gamma == "auto":
        return 1.0 / int(X.shape[1])
    if machine.gamma == "scale":
        variance = float(X.var())
        return 1.0 / (int(X.shape[1]) * variance) if variance else 1.0
    return float(machine.gamma)


def by_gamma(machines: Sequence[SVC], X: Floats) -> dict[float, list[int]]:
    """Group the indices of machines by their gamma for rows (N, D)."""
    groups: dict[float, list[int]] = {}
    for index, machine in enumerate(machines):
        groups.setdefault(gamma_of(machine, X), []).append(index)
    return groups


def kernel_of(distances: Floats, gamma: float, out: Floats) -> Floats:
    """Turn squared distances into the kernel, in `out`: allocating memory takes longer than the exponentials."""
    kernel: Floats = np.exp(np.multiply(distances, -gamma, out=out), out=out)
    return kernel


def precomputed(machine: SVC, **changes: Any) -> SVC:
    """Return an unfitted machine with the same parameters that takes kernels instead of rows."""
    return SVC(**{**machine.get_params(), "kernel": "precomputed", "gamma": 1.0, **changes})


def pair_coefficients(machine: SVC) -> Floats:
    """Dual coefficients of a fitted machine by pair of classes.

    Returns:
        (n_SV, n_pairs): one pair for two classes, else pairs in the order of `itertools.combinations`.
    """
    dual: Floats = machine.dual_coef_
    n_classes = len(machine.classes_)
    if n_classes == 2:
        return dual.T
    ends = np.cumsum([0, *machine.n_support_])
    vectors_of = [slice(start, end) for start, end in itertools.pairwise(ends.tolist())]
    coefficients = np.zeros((dual.shape[1], n_classes * (n_classes - 1) // 2))
    for column, (a, b) in enumerate(combinations(range(n_classes), 2)):  # libsvm: a row for each other class
        coefficients[vectors_of[a], column] = dual[b - 1, vectors_of[a]]
        coefficients[vectors_of[b], column] = dual[a, vectors_of[b]]
    return coefficients


def one_against_rest(pair_values: Floats, n_classes: int) -> Floats:
    """Turn decision values of pairs (N, n_pairs) into one a class (N, n_classes), as scikit-learn does."""
    scores: Floats = _ovr_decision_function(pair_values < 0, -pair_values, n_classes)
    return scores


def predict_pairs(machine: SVC, pair_values: Floats) -> npt.NDArray[np.int64]:
    """Do as `machine.predict` with `break_ties`, from decision values of pairs (N, n_pairs): labels (N,)."""
    n_classes = len(machine.classes_)
    two = n_classes == 2
    chosen = (pair_values[:, 0] > 0).astype(int) if two else one_against_rest(pair_values, n_classes).argmax(axis=1)
    labels: npt.NDArray[np.int64] = machine.classes_[chosen]
    return labels


def decision_values(machine: SVC, X: npt.NDArray[Any], block_bytes: int = _BLOCK_BYTES) -> Floats:
    """Do as `machine.decision_function`, for a fitted one with kernel="rbf".

    Args:
        machine: The machine.
        X: (N, D) float, scaled as the rows that it was fitted on.
        block_bytes: Memory for kernels of a block of rows.

    Returns:
        (N,) float64 for two classes, else as `decision_function_shape` says.
    """
    vectors, coefficients = machine.support_vectors_, pair_coefficients(machine)
    values = np.empty((len(X), coefficients.shape[1]))
    for block in kernel_blocks(len(X), len(vectors), block_bytes):
        kernel = euclidean_distances(X[block].astype(np.float64), vectors, squared=True)
        values[block] = kernel_of(kernel, machine._gamma, kernel) @ coefficients
    values += machine.intercept_
    if len(machine.classes_) == 2:
        return values[:, 0]
    return values if machine.decision_function_shape == "ovo" else one_against_rest(values, len(machine.classes_))


def kernel_blocks(n_rows: int, n_columns: int, block_bytes: int = _BLOCK_BYTES) -> Iterator[slice]:
    """Divide rows so that the kernel (n, n_columns) of a block stays within the memory."""
    size = max(1, block_bytes // (8 * n_columns))
    return (slice(start, min(start + size, n_rows)) for start in range(0, n_rows, size))


class PairKernels:
    """Kernels of two classes at a time. Pairs share the kernel of a class with itself, as far as memory allows.

    Shared kernels are float32, to which libsvm rounds all kernels.

    Args:
        class_rows: The rows of each class, (n, D) float64.
        gammas: Which kernels are wanted.
        n_jobs: Classes to compute in parallel.
        memory_bytes: Budget for the shared kernels.
    """

    def __init__(
        self, class_rows: Sequence[Floats], gammas: Sequence[float], n_jobs: int, memory_bytes: float = KERNEL_BYTES
    ) -> None:
        self._class_rows = class_rows
        self._gammas = gammas
        sizes = np.cumsum([4 * len(gammas) * len(rows) ** 2 for rows in class_rows])
        n_shared = int((sizes <= memory_bytes).sum()) if len(class_rows) > 2 else 0  # a single pair shares nothing
        self._shared = Parallel(n_jobs=n_jobs, prefer="threads")(
            delayed(self._within)(rows) for rows in class_rows[:n_shared]
        )

    def _within(self, rows: Floats) -> list[npt.NDArray[np.float32]]:
        distances = euclidean_distances(rows, squared=True)
        kernel = np.empty_like(distances)
        return [kernel_of(distances, gamma, kernel).astype(np.float32) for gamma in self._gammas]

    def of_pair(self, a: int, b: int) -> Iterator[Floats]:
        """Yield the kernel (n, n) float64 of two classes for each gamma, in the same memory; a's rows come first."""
        first, second = self._class_rows[a], self._class_rows[b]
        n = len(first)
        across = euclidean_distances(first, second, squared=True)
        within = {
            label: euclidean_distances(self._class_rows[label], squared=True)
            for label in (a, b)
            if label >= len(self._shared)
        }
        kernel = np.empty((n + len(second), n + len(second)))
        for index, gamma in enumerate(self._gammas):
            for label, block in ((a, slice(n)), (b, slice(n, None))):
                if label in within:
                    kernel_of(within[label], gamma, kernel[block, block])
                else:
                    kernel[block, block] = self._shared[label][index]
            kernel_of(across, gamma, kernel[:n, n:])
            for start in range(n, len(kernel), _TRANSPOSED_COLUMNS):
                columns = slice(start, start + _TRANSPOSED_COLUMNS)
                kernel[columns, :n] = kernel[:n, columns].T
            yield kernel


@dataclass(frozen=True, eq=False)
class _PairFit:
    """libsvm's solution for two classes; rows are those of the whole set.

    Attributes:
        support: (n,) rows of the support vectors.
        dual: (n,) float64 dual coefficients, negative for the second class.
        intercept: Of the decision value, which is positive for the first class.
        n_iter: Iterations.
        status: 0 if they converged.
    """

    support: Rows
    dual: Floats
    intercept: float
    n_iter: int
    status: int


def fit_pairs(
    machines: Sequence[SVC],
    X: Floats,
    y: npt.NDArray[np.int64],
    memory_bytes: float = KERNEL_BYTES,
    n_cores: int | None = None,
) -> list[SVC]:
    """Fit machines as their own `fit` would.

    Args:
        machines: Unfitted, kernel="rbf"; they are changed in place.
        X: (N, D) float64, finite, scaled.
        y: (N,) int64 labels of at least two classes.
        memory_bytes: Budget for kernels.
        n_cores: Processor cores to use; None: all.

    Returns:
        The machines.

    Raises:
        ValueError: scikit-learn refuses a machine.
    """
    rows = [np.flatnonzero(y == label) for label in np.unique(y)]
    for machine in machines:  # two rows a class: for scikit-learn's checks and what it derives from the parameters
        two_each = np.concatenate([of_class[:2] for of_class in rows])
        machine.fit(X[two_each], y[two_each])
        machine.class_weight_ = compute_class_weight(machine.class_weight, classes=machine.classes_, y=y)
    pairs = list(combinations(range(len(rows)), 2))
    n_cores = n_cores or cpu_count()
    n_jobs = int(max(1, min(n_cores, len(pairs), memory_bytes // pair_kernel_bytes(y))))
    threads = max(1, n_cores // n_jobs)  # for each pair
    groups = by_gamma(machines, X)
    with threadpool_limits(threads):
        kernels = PairKernels([X[of_class] for of_class in rows], list(groups), n_jobs, memory_bytes)
        fits = Parallel(n_jobs=n_jobs, prefer="threads")(
            delayed(_fit_pair)(machines, list(groups.values()), kernels, rows, pair, threads) for pair in pairs
        )
    for machine, of_machine in zip(machines, zip(*fits, strict=True), strict=True):
        _assemble(machine, of_machine, rows, X)
    return list(machines)


def _fit_pair(
    machines: Sequence[SVC],
    groups: Sequence[Sequence[int]],
    kernels: PairKernels,
    rows: Sequence[Rows],
    pair: tuple[int, int],
    n_jobs: int,
) -> list[_PairFit]:
    """Fit every machine to two classes; `groups` are the indices of the machines of each gamma."""
    a, b = pair
    both = np.concatenate([rows[a], rows[b]])
    fits: dict[int, _PairFit] = {}
    for group, kernel in zip(groups, kernels.of_pair(a, b), strict=True):
        weights = [dict(enumerate(machines[index].class_weight_[[a, b]])) for index in group]
        fitted = Parallel(n_jobs=n_jobs, prefer="threads")(
            delayed(_fit_one)(machines[index], weight, kernel, both, len(rows[a]))
            for index, weight in zip(group, weights, strict=True)
        )
        fits |= zip(group, fitted, strict=True)
    return [fits[index] for index in range(len(machines))]


def _fit_one(machine: SVC, class_weight: Mapping[int, float], kernel: Floats, rows: Rows, n_first: int) -> _PairFit:
    with config_context(assume_finite=True):  # kernels of finite rows are finite
        fitted = precomputed(machine, class_weight=class_weight)
        fitted.fit(kernel, (np.arange(len(rows)) >= n_first).astype(int))
    dual, intercept = fitted._dual_coef_[0], float(fitted._intercept_[0])
    return _PairFit(rows[fitted.support_], dual, intercept, int(fitted._num_iter[0]), fitted.fit_status_)


def _assemble(machine: SVC, pairs: Sequence[_PairFit], rows: Sequence[Rows], X: Floats) -> None:
    """Give a machine the solutions of its pairs, in libsvm's layout: vectors class by class, a row each other class."""
    used = np.unique(np.concatenate([pair.support for pair in pairs]))
    support = [np.intersect1d(of_class, used, assume_unique=True) for of_class in rows]
    column = np.zeros(len(X), dtype=np.intp)
    column[np.concatenate(support)] = np.arange(len(used))
    class_id = np.empty(len(X), dtype=np.intp)
    for number, of_class in enumerate(rows):
        class_id[of_class] = number
    dual = np.zeros((len(rows) - 1, len(used)))
    for (a, b), pair in zip(combinations(range(len(rows)), 2), pairs, strict=True):
        other = np.where(class_id[pair.support] == a, b - 1, a)
        dual[other, column[pair.support]] = pair.dual
    intercepts = np.array([pair.intercept for pair in pairs])
    sign = -1 if len(rows) == 2 else 1  # scikit-learn's two classes are in the opposite order of libsvm's
    machine.support_ = np.concatenate(support).astype(np.int32)
    machine.support_vectors_ = X[machine.support_]
    machine._n_support = np.array([len(of_class) for of_class in support], dtype=np.int32)
    machine._dual_coef_, machine.dual_coef_ = dual, sign * dual
    machine._intercept_, machine.intercept_ = intercepts, sign * intercepts
    machine._num_iter = machine.n_iter_ = np.array([pair.n_iter for pair in pairs], dtype=np.int32)
    machine.fit_status_ = max(pair.status for pair in pairs)
    machine.shape_fit_, machine._gamma = X.shape, gamma_of(machine, X)
