from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from featbench.solvers.losses import SquaredHinge
from featbench.solvers.newton import line_search, newton_direction
from featbench.solvers.preconditioner import Preconditioner, eigenvectors
from featbench.solvers.problem import Hessian
from tests.linear_rows import as_seen, shared


@pytest.mark.parametrize("factored", [False, True])
def test_a_newton_direction_solves_its_system(factored: bool) -> None:
    """Conjugate gradients use the eigenvectors of X'X or, in float64, the Hessian of one column of the class."""
    K, C = 4, 0.5
    dtype, allowed, rtol = (torch.float64, 1e-20, 1e-6) if factored else (torch.float32, 1e-9, 1e-3)
    rows = shared(400, 12, K, dtype, own=not factored)
    curvature = 2 * (torch.rand(400, K) > 0.7).to(dtype)
    curvature[:, 2:] = curvature[:, :2]
    loss = SquaredHinge(torch.ones_like(curvature), torch.ones_like(curvature))
    C_columns = torch.full((K,), C, dtype=dtype)
    ids = torch.tensor([0, 1, 0, 1]) if factored else None
    hessian = Hessian(rows, loss, C_columns, curvature, C * curvature.sum(0), ids)
    gradient = torch.randn(13, K, dtype=torch.float64)
    preconditioner = Preconditioner(eigenvectors(rows.X, rows.scaling))
    step, unexplored = newton_direction(hessian, gradient, 0.1, torch.full((K,), allowed), preconditioner)
    for column in range(K):
        X = as_seen(rows, column)
        matrix = np.eye(13) + C * X.T @ (curvature[:, column].numpy()[:, None] * X)
        expected = -np.linalg.solve(matrix, gradient[:, column].numpy())
        np.testing.assert_allclose(step[:, column], expected, rtol=rtol, atol=rtol / 100)
    assert (unexplored <= 1e-8).all()


def test_the_line_search_finds_the_minimum_along_the_step() -> None:
    rng = np.random.default_rng(0)
    sign = np.where(rng.random(50) < 0.5, 1.0, -1.0)
    values, change, w, step, C = (
        sign * 0.5,
        40 * sign * rng.normal(1, 2, 50),
        rng.normal(size=5),
        rng.normal(size=5),
        3.0,
    )

    def objective(t: float) -> float:
        moved = w + t * step
        return float(moved @ moved / 2 + C * (np.maximum(0, 1 - sign * (values + t * change)) ** 2).sum())

    slope = (objective(1e-7) - objective(0)) / 1e-7
    assert slope < 0
    loss = SquaredHinge(*(torch.from_numpy(part[:, None]) for part in (sign, np.ones(50))))
    cross, square = (torch.tensor([part]) for part in (w @ step, step @ step))
    parts = (torch.from_numpy(part[:, None]) for part in (values, change))
    C_, slope_ = torch.tensor([C], dtype=torch.float64), torch.tensor([slope])
    (found,) = line_search(loss, C_, cross, square, *parts, slope_).tolist()
    best = minimize_scalar(objective, bounds=(0, 1), method="bounded", options={"xatol": 1e-10}).x
    assert 0 < best < 1
    assert abs((objective(found + 1e-6) - objective(found - 1e-6)) / 2e-6) <= 0.11 * abs(slope)
    assert objective(found) - objective(best) <= 0.02 * (objective(0) - objective(best))


def test_a_step_that_only_climbs_is_not_taken() -> None:
    one = torch.ones(1, 1, dtype=torch.float64)
    loss = SquaredHinge(one, 0 * one)
    vector = torch.ones(1, dtype=torch.float64)
    assert line_search(loss, vector, vector, vector, 0 * one, one, -1e-9 * vector).item() < 1e-9
