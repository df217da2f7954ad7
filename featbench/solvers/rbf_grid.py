"""The support vector machine with a Gaussian kernel for many C and gamma: the distances are computed once a fold.

Each gamma is one exponential of the squared distances, which all C share; libsvm then solves the same problem as with
kernel="rbf" and spares itself the kernel. Where a kernel of all rows does not fit the memory, one of two classes after
the other does (`rbf_pairs`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from joblib import Parallel, delayed
from sklearn import clone, config_context
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from featbench.solvers.memory import KERNEL_BYTES, split_kernel_bytes
from featbench.solvers.rbf import Floats, blocks_of, by_gamma, kernel_of, labels_of, pair_weights
from featbench.solvers.rbf_pairs import fit_pairs

Rows = npt.NDArray[np.intp]


def rbf_grid(
    X: npt.NDArray[Any],
    y: npt.NDArray[np.int64],
    splits: Sequence[tuple[Rows, Rows]],
    machines: Sequence[SVC],
    memory_bytes: float = KERNEL_BYTES,
) -> list[list[tuple[float, bool]]]:
    """Fit every machine on every split, and score it on the rows held out.

    Args:
        X: (N, D) float, finite, not scaled.
        y: (N,) int64 labels.
        splits: (rows to fit on, rows to score on).
        machines: Unfitted, kernel="rbf", which tell C, gamma and the rest.
        memory_bytes: Budget for kernels.

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
        data = train, y[kept], test, y[held_out]
        if split_kernel_bytes(len(kept), len(held_out)) <= memory_bytes:
            found = _on_whole(machines, *data)
        else:
            found = _by_pairs(machines, *data, memory_bytes)
        for result, tried in zip(results, found, strict=True):
            result.append(tried)
    return results


def _by_pairs(
    machines: Sequence[SVC],
    train: Floats,
    y: npt.NDArray[np.int64],
    test: Floats,
    y_held_out: npt.NDArray[np.int64],
    memory_bytes: float,
) -> list[tuple[float, bool]]:
    plain = [clone(machine).set_params(probability=SVC().probability) for machine in machines]
    fitted = fit_pairs(plain, train, y, memory_bytes)
    groups = by_gamma(machines, train)
    # side by side, so that a kernel is read once for all C
    weights = [np.hstack([_weights(fitted[number], len(train)) for number in alike]) for alike in groups.values()]
    right = np.zeros(len(fitted))
    for part in blocks_of(len(test), len(train)):
        distances = euclidean_distances(test[part], train, squared=True)
        kernel = np.empty_like(distances)
        for (gamma, alike), joined in zip(groups.items(), weights, strict=True):
            values = np.split(kernel_of(distances, gamma, kernel) @ joined, len(alike), axis=1)
            for number, of_pairs in zip(alike, values, strict=True):
                labels = labels_of(fitted[number], of_pairs + fitted[number].intercept_)
                right[number] += (labels == y_held_out[part]).sum()
    shares = (right / len(test)).tolist()
    return [(share, machine.fit_status_ == 0) for share, machine in zip(shares, fitted, strict=True)]


def _on_whole(
    machines: Sequence[SVC], train: Floats, y: npt.NDArray[np.int64], test: Floats, y_held_out: npt.NDArray[np.int64]
) -> list[tuple[float, bool]]:
    within, across = euclidean_distances(train, squared=True), euclidean_distances(test, train, squared=True)
    kernels = np.empty_like(within), np.empty_like(across)  # new ones a gamma would cost more than exp
    results: dict[int, tuple[float, bool]] = {}
    for gamma, numbers in by_gamma(machines, train).items():
        for distances, kernel in zip((within, across), kernels, strict=True):
            kernel_of(distances, gamma, kernel)
        tried = Parallel(n_jobs=-1, prefer="threads")(
            delayed(_try)(machines[number].get_params(), *kernels, y, y_held_out) for number in numbers
        )
        results |= zip(numbers, tried, strict=True)
    return [results[number] for number in range(len(machines))]


def _try(
    params: Mapping[str, Any],
    within: Floats,
    across: Floats,
    y: npt.NDArray[np.int64],
    y_held_out: npt.NDArray[np.int64],
) -> tuple[float, bool]:
    with config_context(assume_finite=True):  # as kernels of finite rows are: no need to look again
        machine = SVC(**{**params, "kernel": "precomputed", "gamma": 1.0}).fit(within, y)
    labels = labels_of(machine, across @ _weights(machine, len(within)) + machine.intercept_)
    return float((labels == y_held_out).mean()), bool(machine.fit_status_ == 0)


def _weights(machine: SVC, n: int) -> Floats:
    """Return `pair_weights` with a row for each of n training rows, 0 for those that are no support vectors."""
    of_vectors = pair_weights(machine)
    weights = np.zeros((n, of_vectors.shape[1]))
    weights[machine.support_] = of_vectors
    return weights
