"""Softmax regression for many C and folds at once, as scikit-learn defines it: see `linear_grid`, which calls it.

Every (C, fold) is a problem, and all problems are fitted as one batch (`newton`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from featbench.solvers.linear_folds import FittedColumns, Fold, Rows, seen_by, shared_rows
from featbench.solvers.losses import Softmax
from featbench.solvers.memory import columns_at_once
from featbench.solvers.newton import minimise
from featbench.solvers.preconditioner import EXACT_BELOW, Preconditioner, eigenvectors
from featbench.solvers.problem import Problems
from featbench.solvers.products import SharedRows
from featbench.solvers.row_newton import row_features


def fit_softmax_folds(
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
