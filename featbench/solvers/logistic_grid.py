"""Softmax regression for many C and folds at once, and the final fit on all rows, as scikit-learn defines it.

Every (C, fold) is a problem, and all problems are fitted as one batch (`newton`). A fold is standardised by the mean
and deviation of its own training rows, through its columns' weights (`products`): nothing of the held-out rows leaks,
and all folds share the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from featbench.solvers.linear_folds import (
    FittedColumns,
    Fold,
    Rows,
    Scaling,
    fit_scaler,
    fold_scaling,
    make_fold,
    score_fold,
    seen_by,
    shared_rows,
)
from featbench.solvers.losses import Softmax
from featbench.solvers.memory import columns_at_once
from featbench.solvers.newton import minimise
from featbench.solvers.preconditioner import EXACT_BELOW, Preconditioner, eigenvectors
from featbench.solvers.problem import Problems
from featbench.solvers.products import SharedRows
from featbench.solvers.row_newton import row_features

_GRID_GAP = 1e-6  # enough to choose by accuracy
_FINAL_GAP = 1e-7


def logistic_grid(
    X: npt.NDArray[Any],
    y: npt.NDArray[np.int64],
    splits: Sequence[tuple[Rows, Rows]],
    Cs: Sequence[float],
    max_iter: int,
    device: str = "cpu",
    *,
    standardize: bool = True,
) -> list[list[tuple[float, bool]]]:
    """Fit every C on every split, and score it on the rows held out.

    Args:
        X: (N, D) float, finite, not scaled.
        y: (N,) int64 labels; each split needs two among the rows to fit on.
        splits: (rows to fit on, rows to score on).
        Cs: In any order.
        max_iter: Newton steps allowed.
        device: Where torch computes.
        standardize: Whether to standardise by the training rows of each split.

    Returns:
        For every C, in the order given, and every split: the accuracy, and whether the solver converged.

    Raises:
        ValueError: The training rows of a split are of one class.
    """
    folds = [make_fold(y, train, held_out, fold_scaling(X, train, standardize)) for train, held_out in splits]
    fitted = _fit_folds(X, y, folds, Cs, max_iter, device, _GRID_GAP)
    by_fold = [score_fold(X, y, fold, columns, 1.0, device) for fold, columns in zip(folds, fitted, strict=True)]
    return [list(results) for results in zip(*by_fold, strict=True)]


def fit_softmax(
    X: npt.NDArray[Any], y: npt.NDArray[np.int64], C: float, max_iter: int, scaling: Scaling, device: str = "cpu"
) -> FittedColumns:
    """Fit one C on all rows.

    Raises:
        ValueError: The rows are of one class.
    """
    rows = np.arange(len(X))
    ((fitted,),) = _fit_folds(X, y, [make_fold(y, rows, rows[:0], scaling)], [C], max_iter, device, _FINAL_GAP)
    return fitted


def fit_logistic(
    scaler: StandardScaler, machine: LogisticRegression, X: npt.NDArray[Any], y: npt.NDArray[np.int64]
) -> None:
    """Fit a scaler, and scikit-learn's estimator on the scaled rows; `n_iter_` counts Newton steps.

    Raises:
        ValueError: The rows are of one class.
    """
    scaling = Scaling.of(fit_scaler(X, np.arange(len(X)), scaler))
    fitted = fit_softmax(X, y, machine.C, machine.max_iter, scaling)
    machine.classes_, machine.n_features_in_ = np.unique(y), X.shape[1]
    machine.coef_, machine.intercept_ = np.ascontiguousarray(fitted.W[:-1].T), fitted.W[-1].copy()
    machine.n_iter_ = np.where(fitted.converged, fitted.n_iter, machine.max_iter).astype(np.int32)


def _fit_folds(
    X: npt.NDArray[Any],
    y: npt.NDArray[np.int64],
    folds: Sequence[Fold],
    Cs: Sequence[float],
    max_iter: int,
    device: str,
    gap: float,
) -> list[list[FittedColumns]]:
    """Fit every C on every fold; return those of each fold and C."""
    if all(2 * len(fold.train) <= min(X.shape[1], 2 * EXACT_BELOW) for fold in folds):  # with more rows it is slower
        return [_fit_in_row_space(X, y, fold, Cs, max_iter, device, gap) for fold in folds]
    used, scaling, rows = shared_rows(X, folds, torch.device(device))
    preconditioner = Preconditioner(eigenvectors(rows, 0.0))
    fitted: dict[tuple[int, int], FittedColumns] = {}
    for width in {len(fold.positive) for fold in folds}:  # a class can be missing in a fold
        alike = [number for number, fold in enumerate(folds) if len(fold.positive) == width]
        jobs = list(product(range(len(Cs)), alike))
        most = max(1, columns_at_once(len(used), rows.device) // width)
        for part in (jobs[start : start + most] for start in range(0, len(jobs), most)):
            own = [folds[fold] for _, fold in part]
            seen = seen_by(rows, [fold for fold in own for _ in range(width)], scaling, 1.0)
            found = _fit_problems(seen, y[used], used, own, [Cs[C] for C, _ in part], max_iter, gap, preconditioner)
            fitted |= zip(part, found, strict=True)
    return [[fitted[C, fold] for C in range(len(Cs))] for fold in range(len(folds))]


def _fit_in_row_space(
    X: npt.NDArray[Any],
    y: npt.NDArray[np.int64],
    fold: Fold,
    Cs: Sequence[float],
    max_iter: int,
    device: str,
    gap: float,
) -> list[FittedColumns]:
    """Fit every C on one fold that has fewer rows than features, in as many features as rows."""
    rows, basis = row_features(torch.from_numpy(fold.scaling.apply(X[fold.train])).to(device), 0.0)
    shared, preconditioner = SharedRows(rows, None, None, 1.0), Preconditioner(eigenvectors(rows, 0.0))
    fitted = _fit_problems(shared, y[fold.train], fold.train, [fold] * len(Cs), Cs, max_iter, gap, preconditioner)
    back = basis[:-1].cpu().numpy()
    return [replace(each, W=np.concatenate([back @ each.W[:-1], each.W[-1:]])) for each in fitted]


def _fit_problems(
    rows: SharedRows,
    labels: npt.NDArray[np.int64],
    used: Rows,
    folds: Sequence[Fold],
    Cs: Sequence[float],
    max_iter: int,
    gap: float,
    preconditioner: Preconditioner,
) -> list[FittedColumns]:
    """Fit a problem of each fold and C, all with as many columns; `used` are the rows' numbers, as folds name them."""
    device, width = rows.X.device, len(folds[0].positive)
    classes = [np.searchsorted(fold.classes, labels).clip(max=len(fold.classes) - 1) for fold in folds]
    target = torch.from_numpy(np.stack(classes, axis=1)[..., None]).to(device)
    weights = torch.from_numpy(np.stack([np.isin(used, fold.train) for fold in folds], axis=1)[..., None]).to(device)
    C = torch.tensor(list(Cs), dtype=torch.float64, device=device)
    problems = Problems(rows, Softmax(target, weights.to(rows.X.dtype), width), C)
    solution = minimise(problems, problems.zeros(), max_iter, gap, preconditioner)
    if width > 1:  # the same probabilities with the least weights, and biases as scikit-learn's
        W = solution.W.view(len(solution.W), -1, width)
        solution = replace(solution, W=(W - W.mean(2, keepdim=True)).flatten(1))
    return [FittedColumns.of(solution, slice(place, place + 1), width) for place in range(len(folds))]
