"""Kernels of support vector machines as products of matrices, and what a fitted machine makes of them.

libsvm computes a kernel one number after the other, on one core; a product of matrices is several times as fast. What
libsvm makes of it is the same to rounding.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.svm import SVC
from sklearn.utils.multiclass import _ovr_decision_function

Floats = npt.NDArray[np.float64]
_BLOCK_BYTES = 2**27  # of the kernel of rows that are scored


def gamma_of(machine: SVC, X: Floats) -> float:
    """Return what scikit-learn makes of a machine's gamma for rows (N, D)."""
    if machine.gamma == "auto":
        return 1.0 / int(X.shape[1])
    if machine.gamma == "scale":
        variance = float(X.var())
        return 1.0 / (int(X.shape[1]) * variance) if variance else 1.0
    return float(machine.gamma)


def by_gamma(machines: Sequence[SVC], X: Floats) -> dict[float, list[int]]:
    """Return the numbers of the machines that have a gamma for rows (N, D), by gamma."""
    found: dict[float, list[int]] = {}
    for number, machine in enumerate(machines):
        found.setdefault(gamma_of(machine, X), []).append(number)
    return found


def kernel_of(distances: Floats, gamma: float, out: Floats) -> Floats:
    """Turn squared distances into the kernel, in memory that is there: new memory costs more than the exponentials."""
    kernel: Floats = np.exp(np.multiply(distances, -gamma, out=out), out=out)
    return kernel


def pair_weights(machine: SVC) -> Floats:
    """Return what the kernels of the support vectors weigh in the decision value of each pair of classes.

    Args:
        machine: A fitted one, kernel="rbf" or "precomputed".

    Returns:
        (n_SV, 1) for two classes, else (n_SV, n_classes * (n_classes - 1) / 2), pairs as `itertools.combinations`
        orders them.
    """
    coefficients: Floats = machine.dual_coef_
    n_classes, count = len(machine.classes_), coefficients.shape[1]
    if n_classes == 2:
        return coefficients.T
    ends = np.cumsum([0, *machine.n_support_])
    own = [slice(start, end) for start, end in itertools.pairwise(ends.tolist())]
    weights = np.zeros((count, n_classes * (n_classes - 1) // 2))
    for column, (a, b) in enumerate(itertools.combinations(range(n_classes), 2)):  # a row for each rival
        weights[own[a], column] = coefficients[b - 1, own[a]]
        weights[own[b], column] = coefficients[a, own[b]]
    return weights


def decision_values(machine: SVC, X: npt.NDArray[Any]) -> Floats:
    """Do as `machine.decision_function`, for a fitted one with kernel="rbf".

    Args:
        machine: The machine.
        X: (N, D) float, scaled as the rows that it was fitted on.

    Returns:
        (N,) float64 where there are two classes, else what `decision_function_shape` says.
    """
    vectors, weights = machine.support_vectors_, pair_weights(machine)
    values = np.empty((len(X), weights.shape[1]))
    for part in blocks_of(len(X), len(vectors)):
        kernel = euclidean_distances(X[part].astype(np.float64), vectors, squared=True)
        values[part] = kernel_of(kernel, machine._gamma, kernel) @ weights
    values += machine.intercept_
    if len(machine.classes_) == 2:
        return values[:, 0]
    return values if machine.decision_function_shape == "ovo" else _against_rest(values, len(machine.classes_))


def labels_of(machine: SVC, values: Floats) -> npt.NDArray[np.int64]:
    """Do as `machine.predict`, from the decision values of pairs of classes: (N, 1 or n_pairs) to labels (N,)."""
    n_classes = len(machine.classes_)
    if n_classes == 2:
        chosen = (values[:, 0] > 0).astype(int)
    elif machine.break_ties:
        chosen = _against_rest(values, n_classes).argmax(axis=1)
    else:  # libsvm's votes, of equals the first
        votes = np.zeros((len(values), n_classes), dtype=int)
        for column, (a, b) in enumerate(itertools.combinations(range(n_classes), 2)):
            votes[:, a] += values[:, column] > 0
            votes[:, b] += values[:, column] <= 0
        chosen = votes.argmax(axis=1)
    labels: npt.NDArray[np.int64] = machine.classes_[chosen]
    return labels


def blocks_of(n: int, count: int) -> Iterator[slice]:
    """Divide n rows so that their kernels with `count` others stay within a block's memory."""
    rows = max(1, _BLOCK_BYTES // (8 * count))
    return (slice(start, min(start + rows, n)) for start in range(0, n, rows))


def _against_rest(values: Floats, n_classes: int) -> Floats:
    votes: Floats = _ovr_decision_function(values < 0, -values, n_classes)
    return votes
