"""Rows that columns see in their own scaling, and the definition of it, for the tests of linear solvers."""

from __future__ import annotations

import numpy as np
import torch

from featbench.solvers.products import SharedRows


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
