"""Logistic regression for many C and folds at once.

Every C on every fold is a problem of its own, and all of them are fitted together (`logistic`). A fold's
standardisation, by the mean and deviation of its own training rows, is a change of its columns' weights (`products`),
so that nothing of the held-out rows leaks and the rows are still shared.
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
    Columns,
    Fold,
    LinearSettings,
    Rows,
    Scaling,
    fit_scaler,
    make_fold,
    score_fold,
    seen_by,
    shared_rows,
)
from featbench.solvers.logistic import SINGLE_GAP, Problems, minimise
from featbench.solvers.products import SharedRows, fewer_rows, precondition, row_space

_VALUES = 2**23  # rows x columns fitted at a time
_GAP = SINGLE_GAP  # to choose between accuracies, closer is no better
_FINAL_GAP = 1e-7


def logistic_grid(
    X: npt.NDArray[Any],
    y: npt.NDArray[np.int64],
    splits: Sequence[tuple[Rows, Rows]],
    Cs: Sequence[float],
    max_iter: int,
) -> list[list[tuple[float, bool]]]:
    """Fit every C on every split, and score it on the rows held out.

    Args:
        X: (N, D) float, finite, not scaled.
        y: (N,) int64 labels; each split needs two among the rows to fit on.
        splits: (rows to fit on, rows to score on).
        Cs: In any order.
        max_iter: Newton steps allowed.

    Returns:
        For every C, in the order given, and every split: the accuracy, and whether the solver converged.

    Raises:
        ValueError: The rows to fit on are of one class.
    """
    folds = [_fold(y, kept, held_out, fit_scaler(X, kept)) for kept, held_out in splits]
    fitted = _fit_folds(X, y, folds, Cs, max_iter, _GAP)
    by_fold = [score_fold(X, y, fold, columns, 1.0) for fold, columns in zip(folds, fitted, strict=True)]
    return [list(results) for results in zip(*by_fold, strict=True)]


def fit_logistic(
    scaler: StandardScaler, machine: LogisticRegression, X: npt.NDArray[Any], y: npt.NDArray[np.int64]
) -> None:
    """Fit a scaler, and scikit-learn's estimator on what it scales; `n_iter_` counts Newton steps.

    Raises:
        ValueError: The rows are of one class.
    """
    rows = np.arange(len(X))
    fold = _fold(y, rows, rows[:0], fit_scaler(X, rows, scaler))
    ((fitted,),) = _fit_folds(X, y, [fold], [machine.C], machine.max_iter, _FINAL_GAP)
    machine.classes_, machine.n_features_in_ = fold.classes, X.shape[1]
    machine.coef_, machine.intercept_ = np.ascontiguousarray(fitted.W[:-1].T), fitted.W[-1].copy()
    machine.n_iter_ = np.where(fitted.converged, fitted.n_iter, machine.max_iter).astype(np.int32)


def _fold(y: npt.NDArray[np.int64], kept: Rows, held_out: Rows, scaler: StandardScaler) -> Fold:
    return make_fold(y, kept, held_out, Scaling.of(scaler), LinearSettings())


def _fit_folds(
    X: npt.NDArray[Any],
    y: npt.NDArray[np.int64],
    folds: Sequence[Fold],
    Cs: Sequence[float],
    max_iter: int,
    gap: float,
) -> list[list[Columns]]:
    """Fit every C on every fold; return those of each fold and C."""
    if all(fewer_rows(len(fold.kept), X.shape[1]) for fold in folds):
        return [_in_row_space(X, y, fold, Cs, max_iter, gap) for fold in folds]
    used, scaling, rows = shared_rows(X, folds, torch.device("cpu"))
    preconditioner = precondition(rows, 0.0)
    fitted: dict[tuple[int, int], Columns] = {}
    for width in {len(fold.positive) for fold in folds}:  # a class can be missing in a fold
        alike = [number for number, fold in enumerate(folds) if len(fold.positive) == width]
        jobs = list(product(range(len(Cs)), alike))
        most = max(1, _VALUES // (len(used) * width))
        for part in (jobs[start : start + most] for start in range(0, len(jobs), most)):
            mine = [folds[fold] for _, fold in part]
            problems = Problems.of(seen_by(rows, mine, scaling, 1.0), y[used], used, mine, [Cs[C] for C, _ in part])
            fitted |= zip(part, minimise(problems, preconditioner, max_iter, gap), strict=True)
    return [[fitted[C, fold] for C in range(len(Cs))] for fold in range(len(folds))]


def _in_row_space(
    X: npt.NDArray[Any], y: npt.NDArray[np.int64], fold: Fold, Cs: Sequence[float], max_iter: int, gap: float
) -> list[Columns]:
    """Fit every C on one fold that has fewer rows than features: no more features than rows are left then."""
    rows, basis = row_space(torch.from_numpy(fold.scaling.apply(X[fold.kept])), 0.0)
    shared = SharedRows(rows, None, None, 1.0)
    problems = Problems.of(shared, y[fold.kept], fold.kept, [fold] * len(Cs), Cs)
    fitted = minimise(problems, precondition(rows, 0.0), max_iter, gap)
    back = basis[:-1].numpy()
    return [replace(each, W=np.concatenate([back @ each.W[:-1], each.W[-1:]])) for each in fitted]
