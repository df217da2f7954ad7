from __future__ import annotations

import numpy as np
import pytest
import torch

from featbench.solvers.losses import SquaredHinge
from featbench.solvers.preconditioner import EXACT_BELOW, Preconditioner, eigenvectors
from featbench.solvers.problem import Hessian
from tests.linear_rows import as_seen, shared


@pytest.mark.parametrize(("n", "d"), [(300, 20), (30, EXACT_BELOW + 6)])
def test_all_eigenvectors_give_the_inverse(n: int, d: int) -> None:
    rows = shared(n, d, 1, torch.float64, own=False)
    X, q = as_seen(rows, 0), np.array([0.0, 1e-3, 10.0])
    V = torch.randn(d + 1, 3, dtype=torch.float64)
    found = eigenvectors(rows.X, rows.scaling).apply(V, torch.from_numpy(q))
    for column in range(3):
        expected = np.linalg.solve(np.eye(d + 1) + q[column] * X.T @ X, V[:, column].numpy())
        np.testing.assert_allclose(found[:, column], expected, rtol=1e-8, atol=1e-8)


def test_leading_eigenvalues_are_exact() -> None:
    torch.manual_seed(0)
    d = EXACT_BELOW + 26
    X = torch.randn(d, 10, dtype=torch.float64) @ torch.randn(10, d, dtype=torch.float64)
    found = eigenvectors(X, 0.0).values.flip(0)[:10]
    np.testing.assert_allclose(found, np.linalg.svd(X.numpy(), compute_uv=False)[:10] ** 2, rtol=1e-8)


@pytest.mark.parametrize("C", [0.1, 10.0])
def test_a_class_is_preconditioned_by_its_hessian(C: float) -> None:
    """In float64 the Hessian is factored at once."""
    rows = shared(60, 7, 2, torch.float64, own=True)
    curvature = 2 * (torch.rand(60, 2) > 0.5).double()
    loss, ids = SquaredHinge(curvature, curvature), torch.tensor([3, 5])
    hessian = Hessian(rows, loss, torch.full((2,), C, dtype=torch.float64), curvature, C * curvature.sum(0), ids)
    preconditioner = Preconditioner(eigenvectors(rows.X, rows.scaling))
    assert preconditioner.prepare(hessian, 200).tolist() == [200, 200]
    R = torch.randn(8, 2, dtype=torch.float64)
    found = preconditioner.apply(hessian, R)
    for column in range(2):
        X = as_seen(rows, column)
        expected = np.linalg.solve(np.eye(8) + C * (X.T * curvature[:, column].numpy()) @ X, R[:, column].numpy())
        np.testing.assert_allclose(found[:, column], expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("factor_bytes", "steps"), [(2**30, 5), (0, 200)])
def test_float32_spends_as_much_on_steps_as_on_a_factor(factor_bytes: float, steps: int) -> None:
    rows = shared(100_000, 3, 1, torch.float32, own=False)
    ones = torch.ones(100_000, 1)
    hessian = Hessian(rows, SquaredHinge(ones, ones), torch.ones(1), ones, ones.sum(0), torch.tensor([0]))
    preconditioner = Preconditioner(eigenvectors(rows.X, rows.scaling), factor_bytes)
    # A factor of so few features costs less than one product with all rows: 5 steps are the least.
    assert preconditioner.prepare(hessian, 200).tolist() == [steps]
