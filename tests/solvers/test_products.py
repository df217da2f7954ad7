from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.linear_rows import as_seen, shared


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize(("dtype", "digits"), [(torch.float32, 2e-4), (torch.float64, 1e-10)])
@pytest.mark.parametrize("columns", [3, 30])
def test_a_pass_over_the_rows(own: bool, dtype: torch.dtype, digits: float, columns: int) -> None:
    rows = shared(2000, 300, columns, dtype, own=own)  # in several blocks
    V, weights = torch.randn(301, columns, dtype=dtype), torch.rand(2000, columns, dtype=dtype)
    found = rows.blockwise_product(V, lambda part, values: values * weights[part])
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
