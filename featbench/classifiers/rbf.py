"""Kernels of support vector machines as products of matrices, and what a fitted machine makes of them.

libsvm computes a kernel one number after the other, on one core; a product of matrices is several times as fast. What
libsvm makes of it is the same to rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.svm import SVC

Floats = npt.NDArray[np.float64]
KERNEL_BYTES = 2**31  # distances and one kernel, of training and held-out rows
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


def predict_rbf(machine: SVC, X: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Do as `machine.predict`: labels (N,) of rows (N, D), see `decision_values`."""
    if len(machine.classes_) > 2 and not machine.break_ties:  # libsvm's votes
        voted: npt.NDArray[np.int64] = machine.predict(X)
        return voted
    values = decision_values(machine, X)
    chosen: npt.NDArray[np.int64] = machine.classes_[(values > 0).astype(int) if values.ndim == 1 else values.argmax(1)]
    return chosen
