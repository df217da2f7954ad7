"""One support vector machine with a Gaussian kernel: scikit-learn's, with kernels that are products of matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.svm import SVC

from featbench.solvers.memory import KERNEL_BYTES, pair_kernel_bytes
from featbench.solvers.rbf import gamma_of, kernel_of
from featbench.solvers.rbf_pairs import fit_pairs


def fit_rbf(machine: SVC, X: npt.NDArray[Any], y: npt.NDArray[np.int64], memory_bytes: float = KERNEL_BYTES) -> SVC:
    """Fit one machine to all rows, by their kernel where it fits the memory.

    Args:
        machine: Unfitted, kernel="rbf".
        X: (N, D) float, finite, scaled.
        y: (N,) int64 labels.
        memory_bytes: Budget for kernels.

    Returns:
        The machine, fitted, as scikit-learn's own `fit` would leave it.

    Raises:
        ValueError: scikit-learn refuses the machine.
    """
    if machine.probability is True:
        return machine.fit(X, y)
    X = np.ascontiguousarray(X, np.float64)
    if 8 * len(X) ** 2 > memory_bytes:
        if pair_kernel_bytes(y) <= memory_bytes:
            return fit_pairs([machine], X, y, memory_bytes)[0]
        return machine.fit(X, y)
    gamma = gamma_of(machine, X)
    kernel = euclidean_distances(X, squared=True)
    kernel_of(kernel, gamma, kernel)
    fitted = SVC(**{**machine.get_params(), "kernel": "precomputed", "gamma": 1.0}).fit(kernel, y)
    learned = {name: value for name, value in vars(fitted).items() if name not in machine.get_params()}
    vars(machine).update(learned)
    machine.n_features_in_, machine.shape_fit_, machine._gamma = X.shape[1], X.shape, gamma
    machine.support_vectors_ = X[machine.support_]
    return machine
