"""Products of rows with each other, and equations in them.

On a CPU numpy and scipy compute them, whose BLAS makes use of symmetry; elsewhere torch does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

_BLOCK_ROWS = 256  # of which products are copied at a time, up to the diagonal
_DOUBLE_UP_TO = 1024  # rows: products of so few are computed in float64


@dataclass(frozen=True, eq=False)
class Gram:
    """Rows, and their products with each other.

    Attributes:
        rows: (N, D) float64, standardised, with the feature that carries the bias.
        products: (N, N) float64 of few rows, else float32.
        lengths: (N,) float64, of the rows.
    """

    rows: Tensor
    products: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> Gram:
        """Multiply rows (N, D) float64 with each other."""
        used = rows if len(rows) <= _DOUBLE_UP_TO else rows.float()
        return cls(rows, _product(used, used.T), rows.norm(dim=1))

    def decisions(self, A: Tensor) -> Tensor:
        """Return XX'A (N, K) float64 of A (N, K) float64."""
        if self.products.dtype == torch.float64:
            return _product(self.products, A)
        return self.at(self.weights(A))

    def weights(self, A: Tensor) -> Tensor:
        """Return X'A (D, K) float64 of A (N, K) float64."""
        return _product(A.T, self.rows).T

    def at(self, W: Tensor) -> Tensor:
        """Return XW (N, K) float64 of W (D, K) float64."""
        return _product(self.rows, W)

    def _among(self, rows: Tensor) -> Tensor:
        """Return a copy of the products of some rows with each other; above the diagonal it may hold anything."""
        if self.products.device.type != "cpu":
            return self.products[rows[:, None], rows]
        products, numbers = self.products.numpy(), rows.numpy()
        own = np.empty((len(rows), len(rows)), products.dtype)
        for start in range(0, len(rows), _BLOCK_ROWS):
            end = start + _BLOCK_ROWS
            own[start:end, :end] = products[np.ix_(numbers[start:end], numbers[:end])]
        return torch.from_numpy(own)

    def times(self, rows: Tensor, columns: Tensor, A: Tensor) -> Tensor:
        """Multiply the products of some rows with others by A (m,) float64: (n,) float64."""
        return (self.products[rows[:, None], columns] @ A.to(self.products.dtype)).double()

    def solve(self, rows: Tensor, ridge: Tensor, wanted: Tensor) -> Tensor | None:
        """Solve (products + diag(ridge)) x = wanted for some rows by a Cholesky factor.

        Returns:
            (n,) float64, of a factor in float64 where the products' own precision has none; None where none has.
        """
        for dtype in dict.fromkeys((self.products.dtype, torch.float64)):
            equations = self._among(rows).to(dtype)
            equations.diagonal().add_(ridge.to(dtype))
            solution = _solve(equations, wanted.to(dtype))
            if solution is not None:
                return solution.double()
        return None


def _product(A: Tensor, B: Tensor) -> Tensor:
    return torch.from_numpy(A.numpy() @ B.numpy()) if A.device.type == "cpu" else A @ B


def _solve(equations: Tensor, wanted: Tensor) -> Tensor | None:
    """Solve symmetric equations by their lower triangle; it is overwritten. None where they have no Cholesky factor."""
    if equations.device.type != "cpu":
        factor, info = torch.linalg.cholesky_ex(equations)
        return None if int(info) else torch.cholesky_solve(wanted[:, None], factor)[:, 0]
    try:
        upper = scipy.linalg.cho_factor(equations.numpy().T, overwrite_a=True, check_finite=False)
    except np.linalg.LinAlgError:
        return None
    return torch.from_numpy(scipy.linalg.cho_solve(upper, wanted.numpy(), check_finite=False))
