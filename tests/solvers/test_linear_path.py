from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.svm import LinearSVC

from featbench.solvers.linear_path import ROW_COST, fit_path, rows_are_cheaper
from featbench.solvers.losses import SquaredHinge
from featbench.solvers.newton import Solution
from featbench.solvers.preconditioner import Preconditioner, eigenvectors
from featbench.solvers.problem import Problems, svc_problems
from featbench.solvers.products import SharedRows
from tests.linear_rows import as_seen

CS = [1e-4, 1e-2, 1.0]
FOLDS = [0, 0, 0, 1, 1]


def two_folds(dtype: torch.dtype) -> Problems:
    """Three columns of one fold and two of another, each with its own rows and scaling."""
    rng = np.random.default_rng(0)
    X = torch.from_numpy(rng.normal(size=(120, 60))).to(dtype)
    mean = torch.from_numpy(rng.normal(size=(60, 2)))[:, FOLDS]
    inverse = torch.from_numpy(rng.uniform(0.5, 2, (60, 2)))[:, FOLDS]
    y = rng.integers(0, 3, 120)
    signs = torch.from_numpy(np.where(y[:, None] == [0, 1, 2, 0, 1], 1.0, -1.0)).to(dtype)
    costs = torch.ones(120, 5, dtype=dtype)
    costs[:30, :3] = 0
    costs[90:, 3:] = 0
    rows = SharedRows(X, mean, inverse, 1.5)
    return svc_problems(rows, SquaredHinge(signs, costs), torch.tensor([0, 1, 2, 0, 1]), 1e-6)


def fit(problems: Problems, row_cost: float = ROW_COST, *, weights: bool = True) -> list[Solution]:
    preconditioner = Preconditioner(eigenvectors(problems.rows.X, 1.5)) if weights else None
    return fit_path(problems, FOLDS, CS, 1000, 1e-8, preconditioner, row_cost)


def check_against_scikit_learn(problems: Problems, path: list[Solution]) -> None:
    assert isinstance(problems.loss, SquaredHinge)
    for C, solution in zip(CS, path, strict=True):
        assert solution.converged.all()
        for column in range(5):
            X, sign, cost = (
                as_seen(problems.rows, column),
                problems.loss.signs[:, column],
                problems.loss.costs[:, column],
            )
            machine = LinearSVC(C=C, dual=False, tol=1e-10, max_iter=10_000, fit_intercept=False)
            expected = machine.fit(X, sign.numpy(), sample_weight=cost.double().numpy()).coef_[0]
            np.testing.assert_allclose(solution.W[:, column], expected, rtol=1e-3, atol=1e-4)


# From the weights' space to that of the rows: never, where all 90 rows of a fold are inside the margin no longer, as
# is so for the second C, or at once.
@pytest.mark.parametrize("row_cost", [0, 86**3 / 3 / (90 * 60), ROW_COST])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_optimum_is_scikit_learns_wherever_the_solver_changes(dtype: torch.dtype, row_cost: float) -> None:
    problems = two_folds(dtype)
    check_against_scikit_learn(problems, fit(problems, row_cost))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_optimum_in_row_space_is_scikit_learns(dtype: torch.dtype) -> None:
    problems, threads = two_folds(dtype), torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        check_against_scikit_learn(problems, fit(problems, weights=False))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("n", "inside", "d", "expected"),
    [
        (200, 200, 512, True),  # a few photos
        (8000, 8000, 512, False),  # products of the rows would take more than their features
        (8000, 8000, 4608, False),
        (8000, 2700, 4608, True),
        (200, 200, 40, False),
    ],
)
def test_where_rows_are_cheaper(n: int, inside: float, d: int, expected: bool) -> None:
    assert rows_are_cheaper(n, inside, d) is expected
