"""The support vector machine with a Gaussian kernel for many C and gamma: the distances are computed once a fold.

Each gamma is one exponential of the squared distances, which all C share; libsvm then solves the same problem as with
kernel="rbf" and spares itself the kernel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from joblib import Parallel, delayed
from sklearn import config_context
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from featbench.classifiers.rbf import KERNEL_BYTES, gamma_of, kernel_of

Rows = npt.NDArray[np.intp]


def fits_memory(splits: Sequence[tuple[Rows, Rows]]) -> bool:
    """Say whether the kernels of every split stay within `KERNEL_BYTES`."""
    return all(2 * 8 * len(kept) * (len(kept) + len(held_out)) <= KERNEL_BYTES for kept, held_out in splits)


def rbf_grid(
    X: npt.NDArray[Any],
    y: npt.NDArray[np.int64],
    splits: Sequence[tuple[Rows, Rows]],
    machines: Sequence[SVC],
) -> list[list[tuple[float, bool]]]:
    """Fit every machine on every split, and score it on the rows held out.

    Args:
        X: (N, D) float, finite, not scaled.
        y: (N,) int64 labels.
        splits: (rows to fit on, rows to score on).
        machines: Unfitted, kernel="rbf", which tell C, gamma and the rest.

    Returns:
        For every machine and every split: the accuracy, and whether the solver converged.

    Raises:
        ValueError: scikit-learn refuses a machine.
    """
    results: list[list[tuple[float, bool]]] = [[] for _ in machines]
    for rows, held_out in splits:
        kept = rows[np.argsort(y[rows], kind="stable")]  # libsvm then finds a pair of classes side by side
        scaler = StandardScaler().fit(X[kept])
        train, test = scaler.transform(X[kept]).astype(np.float64), scaler.transform(X[held_out]).astype(np.float64)
        within, across = euclidean_distances(train, squared=True), euclidean_distances(test, train, squared=True)
        kernels = np.empty_like(within), np.empty_like(across)  # new ones a gamma would cost more than exp
        by_gamma: dict[float, list[int]] = {}
        for number, machine in enumerate(machines):
            by_gamma.setdefault(gamma_of(machine, train), []).append(number)
        for gamma, numbers in by_gamma.items():
            for distances, kernel in zip((within, across), kernels, strict=True):
                kernel_of(distances, gamma, kernel)
            tried = Parallel(n_jobs=-1, prefer="threads")(
                delayed(_try)(machines[number].get_params(), *kernels, y[kept], y[held_out]) for number in numbers
            )
            for number, result in zip(numbers, tried, strict=True):
                results[number].append(result)
    return results


def _try(
    params: Mapping[str, Any],
    within: npt.NDArray[np.float64],
    across: npt.NDArray[np.float64],
    y: npt.NDArray[np.int64],
    y_held_out: npt.NDArray[np.int64],
) -> tuple[float, bool]:
    with config_context(assume_finite=True):  # as kernels of finite rows are: no need to look again
        machine = SVC(**{**params, "kernel": "precomputed", "gamma": 1.0}).fit(within, y)
        return float(machine.score(across, y_held_out)), bool(machine.fit_status_ == 0)
