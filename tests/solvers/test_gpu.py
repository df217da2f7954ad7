from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import LinearSVC

from featbench.solvers import PrimalLinearSVC, SoftmaxRegressionCV
from featbench.solvers.linear_folds import LinearSettings, Scaling
from featbench.solvers.linear_grid import fit_linear, linear_grid
from featbench.solvers.memory import columns_at_once
from tests.pretend import GPU


def made_up(n: int, d: int, n_classes: int, dtype: str = "float32") -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = np.arange(n) % n_classes
    return (rng.normal(size=(n, d)) + rng.normal(size=(n_classes, d))[y] * 0.3).astype(dtype), y


def test_a_pretended_gpu_refuses_what_a_real_one_does(gpu: str) -> None:
    there = torch.arange(4.0).to(gpu)
    assert there.device == GPU
    assert (there + 1).sum().item() == 10
    with pytest.raises(RuntimeError):
        there + torch.ones(4)
    with pytest.raises(RuntimeError):
        torch.ones(4)[:2].copy_(there[:2]).add_(there[:2])
    with pytest.raises((RuntimeError, TypeError)):
        there.numpy()


@pytest.mark.parametrize(
    ("n", "d", "n_classes", "C", "dtype"),
    [
        (900, 30, 4, 0.01, "float32"),
        (900, 30, 2, 100.0, "float32"),  # factors of Hessians
        (400, 30, 3, 1.0, "float64"),
        (200, 600, 3, 1.0, "float32"),  # the space of the rows
        (1300, 1100, 2, 0.01, "float32"),  # into it on the way, and the leading eigenvectors only
    ],
)
def test_the_estimator_on_a_gpu(n: int, d: int, n_classes: int, C: float, dtype: str, gpu: str) -> None:
    X, y = made_up(n, d, n_classes, dtype)
    weights = np.linspace(0, 2, n)
    there = PrimalLinearSVC(C=C, class_weight="balanced", device=gpu).fit(X, y, weights)
    here = PrimalLinearSVC(C=C, class_weight="balanced").fit(X, y, weights)
    np.testing.assert_allclose(there.decision_function(X), here.decision_function(X), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("n", "d", "n_classes"), [(600, 20, 3), (600, 20, 2), (120, 300, 3)])
def test_the_grid_on_a_gpu(n: int, d: int, n_classes: int, gpu: str) -> None:
    X, y = made_up(n, d, n_classes)
    splits = list(StratifiedKFold(3).split(X, y))
    there = linear_grid(X, y, splits, [1e-4, 1e-2], LinearSettings(), gpu)
    assert there == linear_grid(X, y, splits, [1e-4, 1e-2], LinearSettings())


def test_softmax_regression_on_a_gpu(gpu: str) -> None:
    X, y = made_up(300, 20, 3)
    there, here = (SoftmaxRegressionCV(Cs=[1e-3, 1e-1], cv=2, device=device).fit(X, y) for device in (gpu, "cpu"))
    assert (there.C_, there.scores_.tolist()) == (here.C_, here.scores_.tolist())
    np.testing.assert_allclose(there.coef_, here.coef_, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("budget_bytes", "at_once"), [(None, 16_777), (2 * 128 * 500, 2), (1, 1)])
def test_columns_in_batches_are_the_same_columns(budget_bytes: float | None, at_once: int) -> None:
    X, y = made_up(500, 20, 7)
    assert columns_at_once(500, torch.device("cpu"), budget_bytes) == at_once
    found = fit_linear(X, y, 0.1, LinearSettings(), Scaling.identity(20), budget_bytes=budget_bytes)
    expected = LinearSVC(C=0.1, dual=False, tol=1e-8).fit(X, y)
    np.testing.assert_allclose(found.W[:-1].T, expected.coef_, rtol=1e-2, atol=1e-4)
