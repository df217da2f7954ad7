from __future__ import annotations

import numpy as np
import pytest
import torch

from featbench.classifiers import gram
from featbench.solvers.gram import Gram

N = 40


def make(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> Gram:
    monkeypatch.setattr(gram, "_DOUBLE_UP_TO", N if dtype == torch.float64 else 0)
    return Gram.of(torch.from_numpy(np.random.default_rng(0).normal(size=(N, 60))))


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
def test_products_and_equations_are_numpys(dtype: torch.dtype, rtol: float, monkeypatch: pytest.MonkeyPatch) -> None:
    own, rng = make(dtype, monkeypatch), np.random.default_rng(1)
    X = own.rows.numpy()
    assert own.products.dtype == dtype
    np.testing.assert_allclose(own.products, X @ X.T, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(own.lengths, np.sqrt((X * X).sum(1)))
    A = rng.normal(size=(N, 3))
    np.testing.assert_allclose(own.decisions(torch.from_numpy(A)), X @ (X.T @ A), rtol=1e-10)
    np.testing.assert_allclose(own.weights(torch.from_numpy(A)), X.T @ A, rtol=1e-10)
    np.testing.assert_allclose(own.at(torch.from_numpy(X.T @ A)), X @ (X.T @ A), rtol=1e-10)
    rows, columns = torch.tensor([3, 1]), torch.tensor([0, 2, 39])
    part = own.times(rows, columns, torch.from_numpy(A[:3, 0]))
    np.testing.assert_allclose(part, X[[3, 1]] @ X[[0, 2, 39]].T @ A[:3, 0], rtol=rtol, atol=rtol)
    ridge, wanted, before = rng.uniform(0.1, 2, 25), rng.normal(size=25), own.products.clone()
    some = torch.from_numpy(np.sort(rng.permutation(N)[:25]))
    solution = own.solve(some, torch.from_numpy(ridge), torch.from_numpy(wanted))
    assert solution is not None
    assert solution.dtype == torch.float64
    expected = np.linalg.solve(X[some] @ X[some].T + np.diag(ridge), wanted)
    np.testing.assert_allclose(solution, expected, rtol=10 * rtol, atol=rtol)
    assert torch.equal(own.products, before)


def test_equations_that_float32_cannot_factor_are_solved_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gram, "_DOUBLE_UP_TO", 0)
    X = torch.tensor([[1.0, 2.0], [1.0, 2.0]], dtype=torch.float64)  # 5 + 1e-9 is 5 in float32
    own, rows, ridge = Gram.of(X), torch.arange(2), torch.full((2,), 1e-9, dtype=torch.float64)
    assert own.products.dtype == torch.float32
    solution = own.solve(rows, ridge, torch.ones(2, dtype=torch.float64))
    assert solution is not None
    np.testing.assert_allclose(solution, [0.1, 0.1], rtol=1e-6)
    assert own.solve(rows, -ridge, torch.ones(2, dtype=torch.float64)) is None
