"""Support vector machines with a Gaussian kernel, by pairs of classes.

libsvm's machine for many classes is one machine for each pair, fitted on the rows of the two alone, so that the kernel
of a pair does where that of all rows does not fit the memory. Pairs are fitted side by side as memory allows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
from joblib import Parallel, cpu_count, delayed
from sklearn import config_context
from sklearn.svm import SVC
from sklearn.utils.class_weight import compute_class_weight
from threadpoolctl import threadpool_limits

from featbench.solvers.class_kernels import ClassKernels
from featbench.solvers.memory import KERNEL_BYTES, pair_kernel_bytes
from featbench.solvers.rbf import Floats, by_gamma, gamma_of

Rows = npt.NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class _Pair:
    """What libsvm found for two classes; rows are those of the whole set.

    Attributes:
        rows: (n,) of the support vectors.
        weights: (n,) float64, alpha, below 0 for the second class.
        intercept: Of the decision value, which is above 0 for the first class.
        n_iter: Iterations.
        status: 0 where they have converged.
    """

    rows: Rows
    weights: Floats
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
    for machine in machines:  # on a few rows, for scikit-learn's checks and what it derives from the parameters
        few = np.concatenate([own[:2] for own in rows])
        machine.fit(X[few], y[few])
        machine.class_weight_ = compute_class_weight(machine.class_weight, classes=machine.classes_, y=y)
    pairs = list(combinations(range(len(rows)), 2))
    n_cores = n_cores or cpu_count()
    jobs = int(max(1, min(n_cores, len(pairs), memory_bytes // pair_kernel_bytes(y))))
    share = max(1, n_cores // jobs)  # of the cores, for each pair
    numbers = by_gamma(machines, X)
    with threadpool_limits(share):
        kernels = ClassKernels([X[own] for own in rows], list(numbers), jobs)
        tried = Parallel(n_jobs=jobs, prefer="threads")(
            delayed(_fit_two)(machines, list(numbers.values()), kernels, rows, pair, share) for pair in pairs
        )
    for machine, found in zip(machines, zip(*tried, strict=True), strict=True):
        _put_together(machine, found, rows, X)
    return list(machines)


def _fit_two(
    machines: Sequence[SVC],
    numbers: Sequence[Sequence[int]],
    kernels: ClassKernels,
    rows: Sequence[Rows],
    pair: tuple[int, int],
    jobs: int,
) -> list[_Pair]:
    """Fit every machine to two classes; `numbers` are those of the machines of each gamma."""
    a, b = pair
    both = np.concatenate([rows[a], rows[b]])
    found: dict[int, _Pair] = {}
    for alike, kernel in zip(numbers, kernels.of_pair(a, b), strict=True):
        tried = Parallel(n_jobs=jobs, prefer="threads")(
            delayed(_fit_one)(_params(machines[number], a, b), kernel, both, len(rows[a])) for number in alike
        )
        found |= zip(alike, tried, strict=True)
    return [found[number] for number in range(len(machines))]


def _params(machine: SVC, a: int, b: int) -> dict[str, Any]:
    weights = dict(enumerate(machine.class_weight_[[a, b]]))
    return {**machine.get_params(), "kernel": "precomputed", "gamma": 1.0, "class_weight": weights}


def _fit_one(params: Mapping[str, Any], kernel: Floats, rows: Rows, n_first: int) -> _Pair:
    with config_context(assume_finite=True):  # as kernels of finite rows are
        machine = SVC(**params).fit(kernel, (np.arange(len(rows)) >= n_first).astype(int))
    return _Pair(
        rows[machine.support_],
        machine._dual_coef_[0],
        float(machine._intercept_[0]),
        int(machine._num_iter[0]),
        machine.fit_status_,
    )


def _put_together(machine: SVC, pairs: Sequence[_Pair], rows: Sequence[Rows], X: Floats) -> None:
    """Give a machine what was found for its pairs, in libsvm's layout: vectors class by class, a row a rival."""
    used = np.unique(np.concatenate([pair.rows for pair in pairs]))
    support = [np.intersect1d(own, used, assume_unique=True) for own in rows]
    place = np.zeros(len(X), dtype=np.intp)
    place[np.concatenate(support)] = np.arange(len(used))
    owner = np.empty(len(X), dtype=np.intp)
    for number, own in enumerate(rows):
        owner[own] = number
    weights = np.zeros((len(rows) - 1, len(used)))
    for (a, b), pair in zip(combinations(range(len(rows)), 2), pairs, strict=True):
        rival = np.where(owner[pair.rows] == a, b - 1, a)
        weights[rival, place[pair.rows]] = pair.weights
    intercepts = np.array([pair.intercept for pair in pairs])
    sign = -1 if len(rows) == 2 else 1  # scikit-learn has two classes the other way round from libsvm
    machine.support_ = np.concatenate(support).astype(np.int32)
    machine.support_vectors_ = X[machine.support_]
    machine._n_support = np.array([len(own) for own in support], dtype=np.int32)
    machine._dual_coef_, machine.dual_coef_ = weights, sign * weights
    machine._intercept_, machine.intercept_ = intercepts, sign * intercepts
    machine._num_iter = machine.n_iter_ = np.array([pair.n_iter for pair in pairs], dtype=np.int32)
    machine.fit_status_ = max(pair.status for pair in pairs)
    machine.shape_fit_, machine._gamma = X.shape, gamma_of(machine, X)
