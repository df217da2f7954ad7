from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.svm import LinearSVC

from featbench.classifiers import gram as gram_module
from featbench.solvers.gram import Gram
from featbench.solvers.row_newton import RowColumns, minimise_rows


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


def start(gram: Gram, signs: torch.Tensor, costs: torch.Tensor, A: torch.Tensor | None = None) -> RowColumns:
    A = torch.zeros_like(signs) if A is None else A
    return RowColumns(signs, costs, A, gram.decisions(A))


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
def test_the_optimum_is_scikit_learns(
    n: int, d: int, C: float, double_up_to: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gram_module, "_DOUBLE_UP_TO", double_up_to)
    X, signs, costs = problem(n, d, 0)
    gram = Gram.of(X)
    assert gram.products.dtype == (torch.float64 if double_up_to else torch.float32)
    columns, n_iter, converged = minimise_rows(gram, start(gram, signs, costs), C, torch.full((3,), 1e-3), 100, 1e-9)
    assert converged.all()
    assert (n_iter > 0).all()
    np.testing.assert_allclose(columns.f, X @ (X.T @ columns.A), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(columns.objective(C), optima(X, signs, costs, C), rtol=1e-8)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), exponent=st.floats(-3, 2), scale=st.floats(-4, 1))
def test_the_gap_is_a_bound(seed: int, exponent: float, scale: float) -> None:
    C = 10**exponent
    X, signs, costs = problem(12, 4, seed)
    gram = Gram.of(X)
    A = 10**scale * torch.randn(12, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    there = start(gram, signs, costs, A * (costs > 0))
    gap = there.gap(C, gram.lengths).numpy()
    assert (gap >= (there.objective(C).numpy() - optima(X, signs, costs, C)) * (1 - 1e-9) - 1e-12).all()


def test_the_optimum_is_where_it_stays() -> None:
    X, signs, costs = problem(50, 20, 1)
    gram, stop = Gram.of(X), torch.full((3,), 1e-3)
    columns, _, _ = minimise_rows(gram, start(gram, signs, costs), 0.1, stop, 100, 1e-10)
    again, n_iter, converged = minimise_rows(gram, columns, 0.1, stop, 100, 1e-10)
    assert converged.all()
    assert n_iter.tolist() == [0, 0, 0]
    assert torch.equal(again.A, columns.A)


def test_too_few_steps_are_said() -> None:
    X, signs, costs = problem(150, 40, 2)
    gram = Gram.of(X)
    _, n_iter, converged = minimise_rows(gram, start(gram, signs, costs), 10.0, torch.full((3,), 1e-9), 1, 1e-9)
    assert n_iter.tolist() == [1, 1, 1]
    assert not converged.any()


def test_what_more_digits_cannot_better_has_converged() -> None:
    X, signs, costs = problem(150, 40, 3)
    gram = Gram.of(X)
    columns, n_iter, converged = minimise_rows(gram, start(gram, signs, costs), 1.0, torch.zeros(3), 100, 0.0)
    assert converged.all()
    assert (n_iter < 20).all()
    np.testing.assert_allclose(columns.objective(1.0), optima(X, signs, costs, 1.0), rtol=1e-8)


def test_equations_without_a_factor_are_not_converged() -> None:
    X, signs, costs = problem(20, 4, 4)
    gram = Gram.of(torch.cat([X, X]))
    twice = start(gram, torch.cat([signs, signs]), torch.cat([costs, costs]))
    columns, n_iter, converged = minimise_rows(gram, twice, 1e300, torch.full((3,), 1e-3), 100, 1e-6)
    assert not converged.any()
    assert (n_iter < 100).all()
    assert torch.isfinite(columns.A).all()
