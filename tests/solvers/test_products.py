from __future__ import annotations

import numpy as np
import pytest
import torch

from featbench.solvers.hessians import Hessians, newton_direction
from featbench.solvers.problem import Problem
from featbench.solvers.products import EXACT_BELOW, Preconditioner, SharedRows, precondition, row_space


def as_seen(rows: SharedRows, column: int) -> np.ndarray:
    """The rows of a column by the definition: its own scaling, then the feature of the bias."""
    X = rows.X.double().numpy()
    if rows.mean is not None and rows.inverse is not None:
        X = (X - rows.mean[:, column].numpy()) * rows.inverse[:, column].numpy()
    return np.concatenate([X, np.full((len(X), 1), rows.scaling)], axis=1)


def shared(n: int, d: int, K: int, dtype: torch.dtype, *, own: bool) -> SharedRows:
    torch.manual_seed(0)
    X = torch.randn(n, d, dtype=dtype)
    mean, inverse = torch.randn(d, K, dtype=torch.float64), torch.rand(d, K, dtype=torch.float64) + 0.5
    inverse[0, 0] = 0  # a feature that is constant in one fold
    return SharedRows(X, mean if own else None, inverse if own else None, 2.5)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize(("dtype", "digits"), [(torch.float32, 2e-4), (torch.float64, 1e-10)])
@pytest.mark.parametrize("columns", [3, 30])
def test_a_pass_over_the_rows(own: bool, dtype: torch.dtype, digits: float, columns: int) -> None:
    rows = shared(2000, 300, columns, dtype, own=own)  # in several blocks
    V, weights = torch.randn(301, columns, dtype=dtype), torch.rand(2000, columns, dtype=dtype)
    found = rows.curvature(V, weights)
    assert found.dtype == dtype
    for column in range(columns):
        X = as_seen(rows, column)
        expected = X.T @ (weights[:, column].double().numpy() * (X @ V[:, column].double().numpy()))
        np.testing.assert_allclose(
            found[:, column].double(), expected, rtol=digits, atol=digits * np.abs(expected).max()
        )


def test_columns_and_rows_of_a_part() -> None:
    rows = shared(50, 4, 3, torch.float64, own=True)
    part = rows.take(torch.tensor([2, 0]))
    np.testing.assert_allclose(part.of_column(torch.tensor([5, 9]), 1, torch.float64), as_seen(rows, 0)[[5, 9]])


def test_sums_of_squares_in_blocks() -> None:
    plain, own = (shared(1000, 7, 3, torch.float64, own=own) for own in (False, True))
    X = as_seen(plain, 0)
    np.testing.assert_allclose(plain.gram(), X.T @ X, rtol=1e-10)
    rows, weights = torch.arange(0, 1000, 3), torch.rand(334, dtype=torch.float64)
    X = as_seen(own, 2)[rows]
    np.testing.assert_allclose(own.moments(rows, weights, 2), (X.T * weights.numpy()) @ X, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("n", "d"), [(300, 20), (30, EXACT_BELOW + 6)])
def test_the_preconditioner_is_the_inverse_where_it_is_small(n: int, d: int) -> None:
    rows = shared(n, d, 1, torch.float64, own=False)
    X, q = as_seen(rows, 0), np.array([0.0, 1e-3, 10.0])
    V = torch.randn(d + 1, 3, dtype=torch.float64)
    found = precondition(rows.X, rows.scaling).apply(V, torch.from_numpy(q))
    for column in range(3):
        expected = np.linalg.solve(np.eye(d + 1) + q[column] * X.T @ X, V[:, column].numpy())
        np.testing.assert_allclose(found[:, column], expected, rtol=1e-8, atol=1e-8)


def test_a_large_preconditioner_knows_the_leading_eigenvalues() -> None:
    torch.manual_seed(0)
    d = EXACT_BELOW + 26
    X = torch.randn(d, 10, dtype=torch.float64) @ torch.randn(10, d, dtype=torch.float64)
    found = precondition(X, 0.0).values.flip(0)[:10]
    np.testing.assert_allclose(found, np.linalg.svd(X.numpy(), compute_uv=False)[:10] ** 2, rtol=1e-8)


def test_the_row_space_keeps_products_and_lengths() -> None:
    rows = shared(40, 90, 1, torch.float32, own=False)
    narrow, basis = row_space(rows.X, rows.scaling)
    assert narrow.shape == (40, 40)
    np.testing.assert_allclose(narrow @ basis.T, as_seen(rows, 0), atol=1e-12)
    np.testing.assert_allclose(basis.T @ basis, np.eye(40), atol=1e-12)


@pytest.mark.parametrize("factored", [False, True])
def test_a_newton_direction_solves_its_system(factored: bool) -> None:
    """Conjugate gradients go by the eigenvectors of X'X or, in float64, by the Hessian of one of the kin."""
    K, C = 4, 0.5
    dtype, enough, rtol = (torch.float64, 1e-20, 1e-6) if factored else (torch.float32, 1e-9, 1e-3)
    rows = shared(400, 12, K, dtype, own=not factored)
    kin = torch.tensor([0, 1, 0, 1])
    weights = 2 * C * (torch.rand(400, K) > 0.7).to(dtype)
    weights[:, 2:] = weights[:, :2]
    gradient = torch.randn(13, K, dtype=torch.float64)
    hessians = Hessians(precondition(rows.X, rows.scaling))
    hessians.spent.update(dict.fromkeys((0, 1), -1e12))
    problem = Problem(rows, torch.ones_like(weights), torch.ones_like(weights), kin)
    step, unexplored = newton_direction(problem, gradient, weights, hessians, 0.1, torch.full((K,), enough), C)
    assert set(hessians.losses) == ({0, 1} if factored else set())
    for column in range(K):
        X = as_seen(rows, column)
        hessian = np.eye(13) + X.T @ (weights[:, column].numpy()[:, None] * X)
        expected = -np.linalg.solve(hessian, gradient[:, column].numpy())
        np.testing.assert_allclose(step[:, column], expected, rtol=rtol, atol=rtol / 100)
    assert (unexplored <= 1e-8).all()


def test_a_factor_follows_c() -> None:
    losses = torch.tensor([[2.0, 1.0], [1.0, 3.0]], dtype=torch.float64)
    hessians = Hessians(Preconditioner(torch.eye(2), torch.ones(2), 0.0), {0: losses})
    for C in (0.1, 10.0):
        factor = hessians.factors(C, torch.float64)[0]
        np.testing.assert_allclose(factor @ factor.T, np.eye(2) + C * losses.numpy())
