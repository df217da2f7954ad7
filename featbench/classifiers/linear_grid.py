"""The linear support vector machine for many C and folds at once.

Every (class, fold) is a column of one problem, and a smaller C is the start of the next. A fold's standardisation, by
the mean and deviation of its own training rows, is a change of its columns' weights (`products`), so that nothing of
the held-out rows leaks and the rows are still shared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor

from featbench.classifiers.hessians import Hessians
from featbench.classifiers.newton import minimise
from featbench.classifiers.problem import Problem, stopping_norms
from featbench.classifiers.products import Preconditioner, SharedRows, fewer_rows, precondition, row_space

Rows = npt.NDArray[np.intp]
_VALUES = 2**23  # rows x columns fitted at a time: six float64 matrices of this size are 400 MB
# float32 keeps the digits of a fold's own scaled features while its scaling is not far from that of all rows.
_SINGLE_UP_TO = 100.0
_GAP = 1e-5  # of the objective: to choose between accuracies, closer is no better


@dataclass(frozen=True)
class LinearSettings:
    """The parameters of `sklearn.svm.LinearSVC` beside C, with its defaults."""

    tol: float = 1e-4
    fit_intercept: bool = True
    intercept_scaling: float = 1.0
    class_weight: Mapping[Any, float] | str | None = None
    max_iter: int = 1000


@dataclass(frozen=True, eq=False)
class _Fold:
    """One split, ready to fit.

    Attributes:
        kept: Rows to fit on.
        held_out: Rows to score on.
        mean: (D,) float64, of the rows to fit on.
        inverse: (D,) float64, one over their deviation; 0 for a constant feature.
        classes: Labels among the rows to fit on, ascending.
        positive: The label of each column.
        factors: The class weight of each of `classes`.
    """

    kept: Rows
    held_out: Rows
    mean: npt.NDArray[np.float64]
    inverse: npt.NDArray[np.float64]
    classes: npt.NDArray[np.int64]
    positive: npt.NDArray[np.int64]
    factors: npt.NDArray[np.float64]


def linear_grid(
    X: npt.NDArray[Any],
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
    folds = [_fold(X, y, kept, held_out, settings) for kept, held_out in splits]
    if all(fewer_rows(len(fold.kept), X.shape[1]) for fold in folds):
        by_fold = [_in_row_space(X, y, fold, Cs, settings, device) for fold in folds]
        return [list(results) for results in zip(*by_fold, strict=True)]
    used = np.unique(np.concatenate([fold.kept for fold in folds]))
    mean, inverse = _scaling(X[used])
    single = X.dtype == np.float32 and all(_near(fold, mean, inverse) for fold in folds)
    shared = ((X[used].astype(np.float64) - mean) * inverse).astype(np.float32 if single else np.float64)
    rows = torch.from_numpy(shared).to(device)
    preconditioner = precondition(rows, _bias(settings))
    results: list[list[tuple[float, bool]]] = [[] for _ in Cs]
    for batch in _batches(folds, len(used)):
        problem = _problem(rows, y[used], used, batch, mean, inverse, settings)
        for number, (W, converged) in enumerate(_path(problem, preconditioner, Cs, settings)):
            results[number] += _scores(X, y, batch, W, converged, settings)
    return results


def _path(
    problem: Problem, preconditioner: Preconditioner, Cs: Sequence[float], settings: LinearSettings
) -> list[tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]]:
    """Fit every C, from the smallest up; return the weights (D + 1, K) and what converged (K,) in the order given."""
    hessians, stop = Hessians(preconditioner), stopping_norms(problem, settings.tol)
    width = problem.rows.X.shape[1] + 1
    W = torch.zeros(width, problem.signs.shape[1], dtype=torch.float64, device=problem.signs.device)
    fitted = {}
    for number in sorted(range(len(Cs)), key=lambda number: Cs[number]):
        solution = minimise(problem, W, Cs[number], stop, settings.max_iter, hessians, _GAP)
        W = solution.W
        fitted[number] = W.cpu().numpy(), solution.converged.cpu().numpy()
    return [fitted[number] for number in range(len(Cs))]


def _in_row_space(
    X: npt.NDArray[Any],
    y: npt.NDArray[np.int64],
    fold: _Fold,
    Cs: Sequence[float],
    settings: LinearSettings,
    device: str,
) -> list[tuple[float, bool]]:
    """Fit every C on one fold that has fewer rows than features: no more features than rows are left then."""
    scaled = torch.from_numpy((X[fold.kept] - fold.mean) * fold.inverse).to(device)
    rows, basis = row_space(scaled, _bias(settings))
    none = np.zeros(rows.shape[1])
    own = replace(fold, mean=none, inverse=none + 1)
    # The bias feature is among the rows; there is no other.
    problem = _problem(rows, y[fold.kept], fold.kept, [own], none, none + 1, replace(settings, fit_intercept=False))
    results = []
    for W, converged in _path(problem, precondition(rows, 0.0), Cs, settings):
        results += _scores(X, y, [fold], basis.cpu().numpy() @ W[:-1], converged, settings)
    return results


def _fold(X: npt.NDArray[Any], y: npt.NDArray[np.int64], kept: Rows, held_out: Rows, settings: LinearSettings) -> _Fold:
    classes = np.unique(y[kept])
    if len(classes) < 2:
        raise ValueError(f"the rows to fit on hold only one class: {classes}")
    factors = compute_class_weight(settings.class_weight, classes=classes, y=y[kept])
    positive = classes[1:] if len(classes) == 2 else classes
    return _Fold(kept, held_out, *_scaling(X[kept]), classes, positive, np.asarray(factors, dtype=np.float64))


def _scaling(X: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    scaler = StandardScaler().fit(X)
    constant = scaler.scale_ != np.sqrt(scaler.var_)  # scikit-learn puts 1 for the deviation of a constant feature
    return scaler.mean_, np.where(constant, 0.0, 1 / scaler.scale_)


def _near(fold: _Fold, mean: npt.NDArray[np.float64], inverse: npt.NDArray[np.float64]) -> bool:
    varies = fold.inverse > 0
    closer = fold.inverse[varies] / inverse[varies]
    shift = np.abs(fold.mean - mean)[varies] * fold.inverse[varies]
    return bool((closer < _SINGLE_UP_TO).all() and (shift < _SINGLE_UP_TO).all())


def _bias(settings: LinearSettings) -> float:
    return float(settings.intercept_scaling) if settings.fit_intercept else 0.0


def _batches(folds: Sequence[_Fold], n_rows: int) -> list[list[_Fold]]:
    """Group folds so that their columns fit the memory; a fold is not divided."""
    batches: list[list[_Fold]] = []
    width = 0
    for fold in folds:
        if not batches or (width + len(fold.positive)) * n_rows > _VALUES:
            batches.append([])
            width = 0
        batches[-1].append(fold)
        width += len(fold.positive)
    return batches


def _problem(
    rows: Tensor,
    labels: npt.NDArray[np.int64],
    used: Rows,
    folds: Sequence[_Fold],
    mean: npt.NDArray[np.float64],
    inverse: npt.NDArray[np.float64],
    settings: LinearSettings,
) -> Problem:
    deviation = np.where(inverse > 0, 1 / np.where(inverse > 0, inverse, 1), 0)
    own_mean, own_inverse, signs, costs = [], [], [], []
    for fold in folds:
        width = len(fold.positive)
        own_mean.append(np.repeat(((fold.mean - mean) * inverse)[:, None], width, axis=1))
        own_inverse.append(np.repeat((deviation * fold.inverse)[:, None], width, axis=1))
        is_positive = labels[:, None] == fold.positive
        signs.append(np.where(is_positive, 1.0, -1.0))
        # As liblinear: with more than two classes, a class weight is that of the class's own rows in its own column.
        two = len(fold.classes) == 2
        positive, negative = (fold.factors[1:], fold.factors[:1]) if two else (fold.factors, np.ones(width))
        costs.append(np.where(is_positive, positive, negative) * np.isin(used, fold.kept)[:, None])

    def joined(parts: list[npt.NDArray[np.float64]]) -> Tensor:
        return torch.from_numpy(np.concatenate(parts, axis=1)).to(rows.device)

    shared = SharedRows(rows, joined(own_mean), joined(own_inverse), _bias(settings))
    kin = torch.from_numpy(np.concatenate([fold.positive for fold in folds])).to(rows.device)
    return Problem(shared, joined(signs).to(rows.dtype), joined(costs).to(rows.dtype), kin)


def _scores(
    X: npt.NDArray[Any],
    y: npt.NDArray[np.int64],
    folds: Sequence[_Fold],
    W: npt.NDArray[np.float64],
    converged: npt.NDArray[np.bool_],
    settings: LinearSettings,
) -> list[tuple[float, bool]]:
    scores, start = [], 0
    for fold in folds:
        columns = slice(start, start + len(fold.positive))
        start = columns.stop
        scaled = (X[fold.held_out] - fold.mean) * fold.inverse
        values = scaled @ W[:-1, columns] + W[-1, columns] * _bias(settings)
        chosen = (values[:, 0] > 0).astype(int) if len(fold.classes) == 2 else values.argmax(axis=1)
        right = fold.classes[chosen] == y[fold.held_out]
        scores.append((float(right.mean()), bool(converged[columns].all())))
    return scores
