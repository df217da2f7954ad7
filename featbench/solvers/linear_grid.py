"""Linear classifiers for many C and folds at once, and the final fit on all rows.

Of a support vector machine every (class, fold) is a column of one batch, and each C starts from the solution of the
next smaller one; softmax regression is in `softmax_folds`. A fold is standardised by the mean and deviation of its own
training rows, through its columns' weights (`products`): nothing of the held-out rows leaks, and all folds share the
rows. Rows on disk (`streamed`) are standardised whenever a block is read; the numbers are the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from featbench.solvers.linear_folds import (
    FittedColumns,
    Floats,
    Fold,
    LinearSettings,
    Rows,
    Scaling,
    fold_scaling,
    make_fold,
    make_svc_problems,
    score_fold,
    seen_by,
    shared_rows,
)
from featbench.solvers.linear_path import fit_path, rows_are_cheaper
from featbench.solvers.memory import FACTOR_BYTES, columns_at_once
from featbench.solvers.newton import join
from featbench.solvers.preconditioner import Preconditioner, eigenvectors
from featbench.solvers.softmax_folds import fit_softmax_folds
from featbench.solvers.streamed import FeatureRows, StreamedRows

_FACTOR_SHARE = 0.25  # of the memory for rows on disk
_GRID_GAP = {"squared_hinge": 1e-5, "softmax": 1e-6}  # enough to choose by accuracy
_FINAL_GAP = {"squared_hinge": 1e-6, "softmax": 1e-7}  # liblinear's rule alone allows percents


def linear_grid(
    X: FeatureRows,
    y: npt.NDArray[np.int64],
    splits: Sequence[tuple[Rows, Rows]],
    Cs: Sequence[float],
    settings: LinearSettings,
    device: str = "cpu",
    *,
    standardize: bool = True,
) -> list[list[tuple[float, bool]]]:
    """Fit every C on every split, and score it on the rows held out.

    Args:
        X: (N, D) float32 or float64, finite, not scaled.
        y: (N,) int64 labels; each split needs two among the rows to fit on.
        splits: (rows to fit on, rows to score on).
        Cs: In any order.
        settings: The other parameters.
        device: Where torch computes.
        standardize: Whether to standardise by the training rows of each split.

    Returns:
        For every C, in the order given, and every split: the accuracy, and whether the solver converged.

    Raises:
        ValueError: The training rows of a split are of one class.
    """
    folds = [
        make_fold(y, train, held_out, fold_scaling(X, train, standardize), settings.class_weight)
        for train, held_out in splits
    ]
    fitted = _fit_folds(X, y, folds, Cs, settings, device, _GRID_GAP[settings.loss])
    bias = settings.bias
    by_fold = [score_fold(X, y, fold, columns, bias, device) for fold, columns in zip(folds, fitted, strict=True)]
    return [list(results) for results in zip(*by_fold, strict=True)]


def fit_linear(
    X: FeatureRows,
    y: npt.NDArray[np.int64],
    C: float,
    settings: LinearSettings,
    scaling: Scaling,
    device: str = "cpu",
    *,
    sample_weight: Floats | None = None,
    budget_bytes: float | None = None,
) -> FittedColumns:
    """Fit one C on all rows.

    Args:
        X: (N, D) float32 or float64, finite.
        y: (N,) int64 labels.
        C: The weight of the losses.
        settings: The other parameters.
        scaling: Of the features.
        device: Where torch computes.
        sample_weight: (N,) float64, factors of C; all 1 where None.
        budget_bytes: Memory budget for the columns of one batch, as in `columns_at_once`.

    Raises:
        ValueError: The rows are of one class.
    """
    rows = np.arange(len(X))
    fold = make_fold(y, rows, rows[:0], scaling, settings.class_weight)
    gap = _FINAL_GAP[settings.loss]
    ((columns,),) = _fit_folds(X, y, [fold], [C], settings, device, gap, sample_weight, budget_bytes)
    return columns


def _fit_folds(
    X: FeatureRows,
    y: npt.NDArray[np.int64],
    folds: Sequence[Fold],
    Cs: Sequence[float],
    settings: LinearSettings,
    device: str,
    gap: float,
    sample_weight: Floats | None = None,
    budget_bytes: float | None = None,
) -> list[list[FittedColumns]]:
    """Fit every C on every fold; return the columns of each fold and C."""
    if settings.loss == "softmax":
        assert isinstance(X, np.ndarray)  # the registry has it refuse rows on disk
        return fit_softmax_folds(X, y, folds, Cs, settings.max_iter, device, gap)
    return _fit_svc_folds(X, y, folds, Cs, settings, device, gap, sample_weight, budget_bytes)


def _fit_svc_folds(
    X: FeatureRows,
    y: npt.NDArray[np.int64],
    folds: Sequence[Fold],
    Cs: Sequence[float],
    settings: LinearSettings,
    device: str,
    gap: float,
    sample_weight: Floats | None,
    budget_bytes: float | None,
) -> list[list[FittedColumns]]:
    """Fit every C on every fold, as many columns at a time as the memory takes; return those of each fold and C."""
    used, scaling, rows = shared_rows(X, folds, torch.device(device))
    longest, factor_bytes = max(len(fold.train) for fold in folds), float(FACTOR_BYTES)
    if isinstance(X, StreamedRows):
        budget_bytes, factor_bytes = X.memory_bytes, min(factor_bytes, X.memory_bytes * _FACTOR_SHARE)
    in_rows = not isinstance(X, StreamedRows) and rows_are_cheaper(longest, longest, X.shape[1])
    shared = None if in_rows else eigenvectors(rows, settings.bias)
    columns = [(number, column) for number, fold in enumerate(folds) for column in range(len(fold.positive))]
    order = np.argsort(Cs, kind="stable")
    paths = []
    most = columns_at_once(len(used), rows.device, budget_bytes)
    for part in (columns[start : start + most] for start in range(0, len(columns), most)):
        numbers = [number for number, _ in part]
        seen = seen_by(rows, [folds[number] for number in numbers], scaling, settings.bias)
        weights = None if sample_weight is None else sample_weight[used]
        problems = make_svc_problems(seen, y[used], used, folds, part, settings.tol, weights)
        preconditioner = Preconditioner(shared, factor_bytes) if shared else None
        paths.append(fit_path(problems, numbers, [Cs[i] for i in order], settings.max_iter, gap, preconditioner))
    of_C = [join(parts) for parts in zip(*paths, strict=True)]
    ends = np.cumsum([0, *(len(fold.positive) for fold in folds)]).tolist()
    return [
        [FittedColumns.of(of_C[place], slice(start, end)) for place in np.argsort(order)]
        for start, end in itertools.pairwise(ends)
    ]
