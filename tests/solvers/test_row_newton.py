from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.svm import LinearSVC

from featbench.solvers.losses import SquaredHinge
from featbench.solvers.row_newton import Gram, RowPoint, RowProblems, minimise_rows, row_features


def problem(n: int, d: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows that end in the feature of the bias, signs of three columns, and costs, of which some are 0."""
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.arange(3), rng.integers(0, 3, n - 3)])
    X = np.concatenate([rng.normal(size=(n, d)) + rng.normal(size=(3, d))[y], np.ones((n, 1))], axis=1)
    costs = rng.uniform(0.5, 2, (n, 3)) * (rng.random((n, 3)) < 0.9)
    costs[:3] = 1
    return (
        torch.from_numpy(X),
        torch.from_numpy(np.where(y[:, None] == np.arange(3), 1.0, -1.0)),
        torch.from_numpy(costs),
    )


def problems(
    X: torch.Tensor, signs: torch.Tensor, costs: torch.Tensor, C: float, tol: float = 1e-3, double_up_to: int = 1024
) -> RowProblems:
    stop = torch.full((signs.shape[1],), tol, dtype=torch.float64)
    return RowProblems(Gram.of(X, double_up_to), SquaredHinge(signs, costs), C, stop)


def at(of_rows: RowProblems, A: torch.Tensor | None = None) -> RowPoint:
    A = torch.zeros_like(of_rows.loss.signs) if A is None else A
    return RowPoint(A, of_rows.gram.decisions(A))


def optima(X: torch.Tensor, signs: torch.Tensor, costs: torch.Tensor, C: float) -> np.ndarray:
    """The objectives of scikit-learn's optima; the bias is among the features."""
    found = []
    for sign, cost in zip(signs.T.numpy(), costs.T.numpy(), strict=True):
        machine = LinearSVC(C=C, dual=False, tol=1e-10, max_iter=10_000, fit_intercept=False)
        w = machine.fit(X.numpy(), sign, sample_weight=cost).coef_[0]
        slack = np.maximum(0, 1 - sign * (X.numpy() @ w))
        found.append(w @ w / 2 + C * (cost * slack**2).sum())
    return np.array(found)


@pytest.mark.parametrize("double_up_to", [0, 1024])
@pytest.mark.parametrize("C", [1e-4, 1e-2, 1.0, 100.0])
@pytest.mark.parametrize(("n", "d"), [(20, 60), (150, 40)])
def test_the_optimum_is_scikit_learns(n: int, d: int, C: float, double_up_to: int) -> None:
    X, signs, costs = problem(n, d, 0)
    own = problems(X, signs, costs, C, double_up_to=double_up_to)
    assert own.gram.products.dtype == (torch.float64 if double_up_to else torch.float32)
    point, n_iter, converged = minimise_rows(own, at(own), 100, 1e-9)
    assert converged.all()
    assert (n_iter > 0).all()
    np.testing.assert_allclose(point.values, X @ (X.T @ point.A), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(own.objective(point), optima(X, signs, costs, C), rtol=1e-8)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), exponent=st.floats(-3, 2), scale=st.floats(-4, 1))
def test_the_gap_is_a_bound(seed: int, exponent: float, scale: float) -> None:
    C = 10**exponent
    X, signs, costs = problem(12, 4, seed)
    own = problems(X, signs, costs, C)
    A = 10**scale * torch.randn(12, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    point = at(own, A * (costs > 0))
    excess = own.objective(point).numpy() - optima(X, signs, costs, C)
    assert (own.gap(point).numpy() >= excess * (1 - 1e-9) - 1e-12).all()


def test_a_fit_that_begins_at_the_optimum_stays_there() -> None:
    own = problems(*problem(50, 20, 1), 0.1)
    point, _, _ = minimise_rows(own, at(own), 100, 1e-10)
    again, n_iter, converged = minimise_rows(own, point, 100, 1e-10)
    assert converged.all()
    assert n_iter.tolist() == [0, 0, 0]
    assert torch.equal(again.A, point.A)


def test_too_few_steps_are_not_converged() -> None:
    own = problems(*problem(150, 40, 2), 10.0, tol=1e-9)
    _, n_iter, converged = minimise_rows(own, at(own), 1, 1e-9)
    assert n_iter.tolist() == [1, 1, 1]
    assert not converged.any()


def test_a_fit_that_float64_cannot_improve_has_converged() -> None:
    X, signs, costs = problem(150, 40, 3)
    own = problems(X, signs, costs, 1.0, tol=0.0)
    point, n_iter, converged = minimise_rows(own, at(own), 100, 0.0)
    assert converged.all()
    assert (n_iter < 20).all()
    np.testing.assert_allclose(own.objective(point), optima(X, signs, costs, 1.0), rtol=1e-8)


def test_equations_without_a_factor_are_not_converged() -> None:
    X, signs, costs = problem(20, 4, 4)
    own = problems(*(torch.cat([part, part]) for part in (X, signs, costs)), 1e300)
    point, n_iter, converged = minimise_rows(own, at(own), 100, 1e-6)
    assert not converged.any()
    assert (n_iter < 100).all()
    assert torch.isfinite(point.A).all()


@pytest.mark.parametrize(("double_up_to", "rtol"), [(0, 1e-4), (40, 1e-10)])
def test_products_and_equations_are_numpys(double_up_to: int, rtol: float) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 60))
    own = Gram.of(torch.from_numpy(X), double_up_to)
    assert own.products.dtype == (torch.float64 if double_up_to else torch.float32)
    np.testing.assert_allclose(own.products, X @ X.T, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(own.lengths, np.sqrt((X * X).sum(1)))
    A = rng.normal(size=(40, 3))
    np.testing.assert_allclose(own.decisions(torch.from_numpy(A)), X @ (X.T @ A), rtol=1e-10)
    np.testing.assert_allclose(own.weights(torch.from_numpy(A)), X.T @ A, rtol=1e-10)
    ridge, wanted, before = rng.uniform(0.1, 2, 25), rng.normal(size=25), own.products.clone()
    some = torch.from_numpy(np.sort(rng.permutation(40)[:25]))
    solution = own.solve(some, torch.from_numpy(ridge), torch.from_numpy(wanted))
    assert solution is not None
    assert solution.dtype == torch.float64
    expected = np.linalg.solve(X[some] @ X[some].T + np.diag(ridge), wanted)
    np.testing.assert_allclose(solution, expected, rtol=10 * rtol, atol=rtol)
    assert torch.equal(own.products, before)


def test_equations_that_float32_cannot_factor_are_solved_in_float64() -> None:
    X = torch.tensor([[1.0, 2.0], [1.0, 2.0]], dtype=torch.float64)  # 5 + 1e-9 is 5 in float32
    own, rows, ridge = Gram.of(X, double_up_to=0), torch.arange(2), torch.full((2,), 1e-9, dtype=torch.float64)
    solution = own.solve(rows, ridge, torch.ones(2, dtype=torch.float64))
    assert solution is not None
    np.testing.assert_allclose(solution, [0.1, 0.1], rtol=1e-6)
    assert own.solve(rows, -ridge, torch.ones(2, dtype=torch.float64)) is None


def test_row_features_keep_products_and_lengths() -> None:
    X = torch.randn(40, 90, generator=torch.Generator().manual_seed(0))
    narrow, basis = row_features(X, 2.5)
    assert narrow.shape == (40, 40)
    expected = np.concatenate([X.double().numpy(), np.full((40, 1), 2.5)], axis=1)
    np.testing.assert_allclose(narrow @ basis.T, expected, atol=1e-12)
    np.testing.assert_allclose(basis.T @ basis, np.eye(40), atol=1e-12)
