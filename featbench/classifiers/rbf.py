"""One support vector machine with a Gaussian kernel: scikit-learn's, with kernels that are products of matrices.

libsvm computes a kernel one number after the other, on one core; a product of matrices is several times as fast. What
libsvm makes of it, and the fitted machine, are the same to rounding.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.svm import SVC

Floats = npt.NDArray[np.float64]
KERNEL_BYTES = 2**31  # distances and one kernel, of training and held-out rows: some 10,000 rows
_BLOCK_BYTES = 2**27  # of the kernel of rows that are scored


def gamma_of(machine: SVC, X: Floats) -> float:
    """Return what scikit-learn makes of a machine's gamma for rows (N, D)."""
    if machine.gamma == "auto":
        return 1.0 / int(X.shape[1])
    if machine.gamma == "scale":
        variance = float(X.var())
        return 1.0 / (int(X.shape[1]) * variance) if variance else 1.0
    return float(machine.gamma)


def kernel_of(distances: Floats, gamma: float, out: Floats) -> Floats:
    """Turn squared distances into the kernel, in memory that is there: new memory costs more than the exponentials."""
    kernel: Floats = np.exp(np.multiply(distances, -gamma, out=out), out=out)
    return kernel


def fit_rbf(machine: SVC, X: npt.NDArray[Any], y: npt.NDArray[np.int64]) -> SVC:
    """Fit one machine to all rows, by their kernel where it fits the memory.

    Args:
        machine: Unfitted, kernel="rbf".
        X: (N, D) float, finite, scaled.
        y: (N,) int64 labels.

    Returns:
        The machine, fitted, as scikit-learn's own `fit` would leave it.

    Raises:
        ValueError: scikit-learn refuses the machine.
    """
    if machine.probability is True or 8 * len(X) ** 2 > KERNEL_BYTES:
        return machine.fit(X, y)
    X = np.ascontiguousarray(X, np.float64)
    gamma = gamma_of(machine, X)
    kernel = euclidean_distances(X, squared=True)
    kernel_of(kernel, gamma, kernel)
    fitted = SVC(**{**machine.get_params(), "kernel": "precomputed", "gamma": 1.0}).fit(kernel, y)
    learned = {name: value for name, value in vars(fitted).items() if name not in machine.get_params()}
    vars(machine).update(learned)
    machine.n_features_in_, machine.shape_fit_, machine._gamma = X.shape[1], X.shape, gamma
    machine.support_vectors_ = X[machine.support_]
    return machine


def decision_values(machine: SVC, X: npt.NDArray[Any]) -> Floats:
    """Do as `machine.decision_function`, for a fitted one with kernel="rbf".

    Args:
        machine: The machine.
        X: (N, D) float, scaled as the rows that it was fitted on.

    Returns:
        (N,) float64 where there are two classes, else what `decision_function_shape` says.
    """
    vectors = machine.support_vectors_
    count = len(vectors)
    of_kernel = copy.copy(machine)
    of_kernel.kernel, of_kernel.shape_fit_, of_kernel.n_features_in_ = "precomputed", (count, count), count
    of_kernel.support_, of_kernel.support_vectors_ = np.arange(count, dtype=np.int32), np.empty((0, 0))
    rows = max(1, _BLOCK_BYTES // (8 * count))
    values = []
    for start in range(0, len(X), rows):
        kernel = euclidean_distances(X[start : start + rows].astype(np.float64), vectors, squared=True)
        values.append(of_kernel.decision_function(kernel_of(kernel, machine._gamma, kernel)))
    return np.concatenate(values)
