from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featbench.solvers.ridge_grid import ridge_grid

ALPHAS = [1e-3, 1.0, 1e3]


@pytest.mark.parametrize(("n", "d", "n_classes"), [(300, 12, 4), (60, 200, 3), (120, 10, 2)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_accuracies_are_scikit_learns(n: int, d: int, n_classes: int, dtype: type) -> None:
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(n) % n_classes) + 5  # labels need not begin at 0
    X = (rng.normal(size=(n, d)) + 0.2 * y[:, None] * rng.normal(size=d)).astype(dtype) * 10 + 3
    X[:, 1] = 7.0  # constant
    X[:, 2] = X[:, 3]
    splits = [(np.arange(0, n, 2), np.arange(1, n, 2)), (np.arange(1, n, 2), np.arange(0, n, 2))]
    for alpha, folds in zip(ALPHAS, ridge_grid(X, y, splits, ALPHAS), strict=True):
        for (kept, out), (accuracy, converged) in zip(splits, folds, strict=True):
            theirs = make_pipeline(StandardScaler(), RidgeClassifier(alpha=alpha, solver="svd")).fit(X[kept], y[kept])
            assert accuracy == pytest.approx(theirs.score(X[out], y[out]), abs=1e-12)
            assert converged is None
