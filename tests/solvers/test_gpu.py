from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.model_selection import StratifiedKFold

from featbench.solvers import linear, linear_grid, problem
from featbench.solvers.linear import PrimalLinearSVC
from featbench.solvers.linear_folds import LinearSettings
from featbench.solvers.linear_path import fit_path
from featbench.solvers.newton import Solution
from featbench.solvers.problem import Problem
from tests.pretend import GPU


def made_up(n: int, d: int, n_classes: int, dtype: str = "float32") -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = np.arange(n) % n_classes
    return (rng.normal(size=(n, d)) + rng.normal(size=(n_classes, d))[y] * 0.3).astype(dtype), y


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Where columns were fitted, and how many at a time."""
    seen: list[tuple[str, int]] = []

    def recorded(problem: Problem, *rest: Any) -> list[Solution]:
        seen.append((problem.signs.device.type, problem.signs.shape[1]))
        return fit_path(problem, *rest)

    for module in (linear, linear_grid):
        monkeypatch.setattr(module, "fit_path", recorded)
    return seen


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
def test_the_estimator_on_a_gpu(
    n: int, d: int, n_classes: int, C: float, dtype: str, gpu: str, fitted: list[tuple[str, int]]
) -> None:
    X, y = made_up(n, d, n_classes, dtype)
    weights = np.linspace(0, 2, n)
    there = PrimalLinearSVC(C=C, class_weight="balanced", device=gpu).fit(X, y, weights)
    assert {where for where, _ in fitted} == {"cuda"}
    here = PrimalLinearSVC(C=C, class_weight="balanced").fit(X, y, weights)
    np.testing.assert_allclose(there.decision_function(X), here.decision_function(X), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("n", "d", "n_classes"), [(600, 20, 3), (600, 20, 2), (120, 300, 3)])
def test_the_grid_on_a_gpu(n: int, d: int, n_classes: int, gpu: str, fitted: list[tuple[str, int]]) -> None:
    X, y = made_up(n, d, n_classes)
    splits = list(StratifiedKFold(3).split(X, y))
    there = linear_grid.linear_grid(X, y, splits, [1e-4, 1e-2], LinearSettings(), gpu)
    assert {where for where, _ in fitted} == {"cuda"}
    assert there == linear_grid.linear_grid(X, y, splits, [1e-4, 1e-2], LinearSettings())


def test_columns_in_batches_are_the_same_columns(
    monkeypatch: pytest.MonkeyPatch, fitted: list[tuple[str, int]]
) -> None:
    X, y = made_up(500, 20, 7)
    whole = PrimalLinearSVC(C=0.1).fit(X, y)
    monkeypatch.setattr(problem, "_VALUES", 1000)
    parts = PrimalLinearSVC(C=0.1).fit(X, y)
    np.testing.assert_allclose(parts.coef_, whole.coef_, rtol=1e-3, atol=1e-5)
    assert fitted == [("cpu", 7), ("cpu", 2), ("cpu", 2), ("cpu", 2), ("cpu", 1)]
