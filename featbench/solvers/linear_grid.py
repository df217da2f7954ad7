"""The linear support vector machine for many C and folds at once.

Every (class, fold) is a column of one problem, and a smaller C is the start of the next. A fold's standardisation, by
the mean and deviation of its own training rows, is a change of its columns' weights (`products`), so that nothing of
the held-out rows leaks and the rows are still shared. Rows that stay on disk (`streamed`) are standardised whenever a
block of them is read; the numbers are the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from sklearn.preprocessing import StandardScaler

from featbench.solvers.hessians import FACTOR_BYTES, Hessians
from featbench.solvers.linear_folds import (
    Columns,
    Fold,
    LinearSettings,
    Rows,
    Scaling,
    fit_scaler,
    in_batches,
    make_fold,
    make_problem,
    score_fold,
    shared_rows,
)
from featbench.solvers.linear_path import fit_path, rows_pay
from featbench.solvers.problem import COLUMN_BYTES, columns_at_once
from featbench.solvers.products import precondition
from featbench.solvers.streamed import FeatureRows, StreamedRows

_FACTOR_SHARE = 0.25  # of the memory for rows on disk
_GAP = 1e-5  # of the objective: to choose between accuracies, closer is no better
_FINAL_GAP = 1e-6


def linear_grid(
    X: FeatureRows,
    y: npt.NDArray[np.int64],
    splits: Sequence[tuple[Rows, Rows]],
    Cs: Sequence[float],
    settings: LinearSettings,
    device: str = "cpu",
) -> list[list[tuple[float, bool]]]:
    """Fit every C on every split, and score it on the rows held out.

    Args:
        X: (N, D) float32 or float64, finite, not scaled.
        y: (N,) int64 labels; each split needs two among the rows to fit on.
        splits: (rows to fit on, rows to score on).
        Cs: In any order.
        settings: The other parameters.
        device: Where torch computes.

    Returns:
        For every C, in the order given, and every split: the accuracy, and whether the solver converged.
    """
    folds = [make_fold(y, kept, held_out, Scaling.of(fit_scaler(X, kept)), settings) for kept, held_out in splits]
    fitted = _fit_folds(X, y, folds, Cs, settings, device, _GAP)
    by_fold = [
        score_fold(X, y, fold, columns, settings.bias, device) for fold, columns in zip(folds, fitted, strict=True)
    ]
    return [list(results) for results in zip(*by_fold, strict=True)]


def fit_streamed(
    X: StreamedRows,
    y: npt.NDArray[np.int64],
    C: float,
    settings: LinearSettings,
    scaler: StandardScaler,
    device: str = "cpu",
) -> Columns:
    """Fit one C on all rows, as the scaler standardises them; it is fitted on the way.

    Raises:
        ValueError: The rows are of one class.
    """
    rows = np.arange(len(X))
    fold = make_fold(y, rows, rows[:0], Scaling.of(fit_scaler(X, rows, scaler)), settings)
    ((columns,),) = _fit_folds(X, y, [fold], [C], settings, device, _FINAL_GAP)
    return columns


def _fit_folds(
    X: FeatureRows,
    y: npt.NDArray[np.int64],
    folds: Sequence[Fold],
    Cs: Sequence[float],
    settings: LinearSettings,
    device: str,
    gap: float,
) -> list[list[Columns]]:
    """Fit every C on every fold, as many columns at a time as the memory takes; return those of each fold and C."""
    used, scaling, rows = shared_rows(X, folds, torch.device(device))
    few = max(len(fold.kept) for fold in folds)
    in_rows = not isinstance(X, StreamedRows) and rows_pay(few, few, X.shape[1])
    preconditioner = None if in_rows else precondition(rows, settings.bias)
    order = np.argsort(Cs, kind="stable")
    most, factor_bytes = columns_at_once(len(used), rows.device), float(FACTOR_BYTES)
    if isinstance(X, StreamedRows):
        most = int(X.memory_bytes / (COLUMN_BYTES * len(used)))
        factor_bytes = min(factor_bytes, X.memory_bytes * _FACTOR_SHARE)
    fitted: list[list[Columns]] = [[] for _ in folds]
    for batch in in_batches(folds, max(1, most)):
        problem = make_problem(rows, y[used], used, [fold for _, fold in batch], scaling, settings.bias)
        ends = np.cumsum([0, *(len(fold.positive) for _, fold in batch)])
        groups = [slice(start, end) for start, end in itertools.pairwise(ends.tolist())]
        hessians = Hessians(preconditioner, memory_bytes=factor_bytes) if preconditioner else None
        path = fit_path(problem, groups, [Cs[i] for i in order], settings.tol, settings.max_iter, gap, hessians)
        for (number, _), columns in zip(batch, groups, strict=True):
            parts = [Columns.of(path[place], columns) for place in np.argsort(order)]
            before = fitted[number]
            fitted[number] = [a.beside(b) for a, b in zip(before, parts, strict=True)] if before else parts
    return fitted
