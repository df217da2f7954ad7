from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from featbench.classifiers.rows import LabelledFeatures
from featbench.solvers.linear_folds import LinearSettings
from featbench.solvers.linear_grid import linear_grid

Digits = Callable[[int, int], LabelledFeatures]
Splits = list[tuple[np.ndarray, np.ndarray]]


def folds_of(y: np.ndarray, count: int = 3) -> Splits:
    return list(StratifiedKFold(count, shuffle=True, random_state=0).split(y, y))


def by_hand(model: Any, X: np.ndarray, y: np.ndarray, splits: Splits) -> list[float]:
    pipeline = make_pipeline(StandardScaler(), model)
    return [float(pipeline.fit(X[kept], y[kept]).score(X[out], y[out])) for kept, out in splits]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "settings", [{}, {"fit_intercept": False}, {"intercept_scaling": 5.0}, {"class_weight": "balanced"}]
)
def test_a_linear_grid_scores_as_the_loop(digits: Digits, settings: dict[str, Any], dtype: type) -> None:
    rows = digits(0, 400)
    X, splits = rows.X.astype(dtype), folds_of(rows.y)
    grid = linear_grid(X, rows.y, splits, [1e-2, 1e-5, 1.0], LinearSettings(tol=1e-6, **settings))
    for C, found in zip([1e-2, 1e-5, 1.0], grid, strict=True):
        model = LinearSVC(C=C, dual=False, tol=1e-6, max_iter=5000, **settings)
        expected = by_hand(model, X, rows.y, splits)
        assert [accuracy for accuracy, _ in found] == pytest.approx(expected, abs=0.0076)  # one of 133 rows
        assert all(converged for _, converged in found)


def test_a_held_out_row_far_away_changes_nothing_of_the_fit() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    X = np.where(y == 1, 1.0, -1.0)[:, None] + 0.7 * rng.normal(size=(200, 3))
    X[-1] = 1e6
    X[:100, 2] = 5.0  # constant where the first split is fitted, not where it is scored
    splits = [(np.arange(100), np.arange(100, 200)), (np.arange(100, 200), np.arange(100))]
    for dtype in (np.float64, np.float32):
        (found,) = linear_grid(X.astype(dtype), y, splits, [0.1], LinearSettings())
        expected = by_hand(LinearSVC(C=0.1, dual=False), X, y, splits)
        assert [accuracy for accuracy, _ in found] == pytest.approx(expected, abs=1e-12)


def test_a_class_missing_in_a_fold(digits: Digits) -> None:
    rows = digits(0, 300)
    few = np.flatnonzero(np.isin(rows.y, (3, 8)))
    splits = [(np.flatnonzero(rows.y != 4), np.arange(300)), (few, np.arange(300)), (np.arange(300), few)]
    (found,) = linear_grid(rows.X, rows.y, splits, [0.01], LinearSettings(tol=1e-6))
    expected = by_hand(LinearSVC(C=0.01, dual=False, tol=1e-6), rows.X, rows.y, splits)
    assert [accuracy for accuracy, _ in found] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    "settings", [{}, {"fit_intercept": False}, {"intercept_scaling": 5.0, "class_weight": "balanced"}]
)
def test_a_linear_grid_with_more_features_than_rows(settings: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 90)
    X = (rng.normal(size=(90, 200)) + rng.normal(size=(3, 200))[y] + 3).astype(np.float32)
    X[:, 5] = 1.0
    grid = linear_grid(X, y, folds_of(y), [1.0, 1e-4, 1e-2], LinearSettings(tol=1e-6, **settings))
    for C, found in zip([1.0, 1e-4, 1e-2], grid, strict=True):
        model = LinearSVC(C=C, dual=False, tol=1e-6, max_iter=5000, **settings)
        expected = by_hand(model, X.astype(np.float64), y, folds_of(y))
        assert [accuracy for accuracy, _ in found] == pytest.approx(expected, abs=1e-12)
        assert all(converged for _, converged in found)
