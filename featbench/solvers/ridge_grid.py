"""Ridge classification for many alphas, which share one eigendecomposition a split.

With V diag(values) V' = X'X the weights are V diag(1 / (values + alpha)) V'X'Y; with fewer rows than features XX' is
decomposed instead. As in scikit-learn's RidgeClassifier, Y is 1 for a column's class and -1 for the others, and X and Y
are centred.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg
from sklearn.preprocessing import StandardScaler

Rows = npt.NDArray[np.intp]


def ridge_grid(
    X: npt.NDArray[Any], y: npt.NDArray[np.int64], splits: Sequence[tuple[Rows, Rows]], alphas: Sequence[float]
) -> list[list[tuple[float, bool | None]]]:
    """Fit every alpha on every split, standardised by the rows it is fitted on, and score it on those held out.

    Args:
        X: (N, D) float, finite, not scaled.
        y: (N,) int64 labels.
        splits: (rows to fit on, rows to score on).
        alphas: Factors of the squared norm of the weights, above 0.

    Returns:
        For every alpha and every split: the accuracy, and None, because nothing has to converge.
    """
    results: list[list[tuple[float, bool | None]]] = [[] for _ in alphas]
    for kept, held_out in splits:
        scaler = StandardScaler().fit(X[kept])
        train, test = (scaler.transform(X[rows]).astype(np.float64) for rows in (kept, held_out))
        mean = train.mean(axis=0)  # not exactly 0 after scaling in float32
        train, test = train - mean, test - mean
        classes = np.unique(y[kept])
        signs = np.where(y[kept][:, None] == (classes[1:] if len(classes) == 2 else classes), 1.0, -1.0)
        offset = signs.mean(axis=0)
        for result, values in zip(results, _decisions(train, test, signs - offset, alphas), strict=True):
            values = values + offset
            chosen = (values[:, 0] > 0).astype(int) if len(classes) == 2 else values.argmax(axis=1)
            result.append((float((classes[chosen] == y[held_out]).mean()), None))
    return results


def _decisions(train: Any, test: Any, targets: Any, alphas: Sequence[float]) -> list[Any]:
    wide = train.shape[1] > len(train)
    values, vectors = scipy.linalg.eigh(train @ train.T if wide else train.T @ train, check_finite=False)
    values = values.clip(min=0)
    test_in_basis = test @ train.T @ vectors if wide else test @ vectors
    targets_in_basis = vectors.T @ targets if wide else vectors.T @ (train.T @ targets)
    return [test_in_basis @ (targets_in_basis / (values + alpha)[:, None]) for alpha in alphas]
