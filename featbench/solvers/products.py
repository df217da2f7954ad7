"""Products with a matrix of rows that many linear models share, each with a scaling of its own.

Column k of a set of models sees the rows of X as (x - mean_k) / deviation_k, followed by a feature that is always
`scaling`, whose weight is the bias. X itself is not copied: the scaling is applied to the column's weights, so that one
product with X serves all columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from featbench.solvers.streamed import StreamedRows

_BLOCK_VALUES = 2**17  # of X in one block: small enough to stay in a core's cache between its two products
# Columns. With 2 to 5 of them MKL takes half the time for the transposed matrices, with 20 as long as for the others
# (`python -m tests.speed.constants`).
_NARROW = 24
_GPU_BLOCK_VALUES = 2**25  # `python -m tests.speed.gpu` measures it


@dataclass(frozen=True, eq=False)
class ScaledRows:
    """Rows on disk, (x - mean) * inverse: used like a tensor of N rows, of which only blocks are in memory.

    Attributes:
        source: (N, D).
        mean: (D,) float64.
        inverse: (D,) float64.
        dtype: float32 or float64, precision of the scaled rows.
    """

    source: StreamedRows
    mean: Tensor
    inverse: Tensor
    dtype: torch.dtype

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D)."""
        return self.source.shape

    @property
    def device(self) -> torch.device:
        """Where the rows are computed with."""
        return self.mean.device

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        read = self.source.read(rows if isinstance(rows, slice) else rows.cpu().numpy())
        X = torch.from_numpy(read).to(self.device).double()
        return X.sub_(self.mean).mul_(self.inverse).to(self.dtype)


@dataclass(frozen=True, eq=False)
class SharedRows:
    """Rows, and how each column sees them.

    Attributes:
        X: (N, D) float32 or float64.
        mean: (D, K) float64, what column k subtracts; None where no column changes X.
        inverse: (D, K) float64, what column k then multiplies by; None where `mean` is.
        scaling: The value of the feature that carries the bias; 0 for no bias.
    """

    X: Tensor | ScaledRows
    mean: Tensor | None
    inverse: Tensor | None
    scaling: float

    def take(self, columns: Tensor) -> SharedRows:
        """Return the columns with these indices."""
        if self.mean is None or self.inverse is None:
            return self
        return SharedRows(self.X, self.mean[:, columns], self.inverse[:, columns], self.scaling)

    def of_column(self, rows: Tensor, column: int, dtype: torch.dtype) -> Tensor:
        """Return some rows as a column sees them, with the feature of the bias: (n, D + 1)."""
        X = torch.empty(len(rows), self.X.shape[1] + 1, dtype=dtype, device=self.X.device)
        X[:, :-1], X[:, -1] = self.X[rows], self.scaling
        if self.mean is not None and self.inverse is not None:
            X[:, :-1].sub_(self.mean[:, column].to(dtype)).mul_(self.inverse[:, column].to(dtype))
        return X

    def moments(self, rows: Tensor, weights: Tensor, column: int) -> Tensor:
        """Return the sum of w x x' over rows x with weights w, as a column sees them: (D + 1, D + 1)."""
        width = self.X.shape[1] + 1
        total = weights.new_zeros(width, width)
        for start in range(0, len(rows), self._block_rows()):
            part = slice(start, start + self._block_rows())
            X = self.of_column(rows[part], column, weights.dtype)
            total.addmm_(X.T * weights[part], X)
        return total

    def gram(self) -> Tensor:
        """Return X'X with the feature of the bias, (D + 1, D + 1), where no column changes X."""
        width = self.X.shape[1] + 1
        total = torch.zeros(width, width, dtype=self.X.dtype, device=self.X.device)
        for rows in self._blocks():
            X = with_bias(self.X[rows], self.scaling)
            total.addmm_(X.T, X)
        return total

    def blockwise_product(self, V: Tensor, transform: Callable[[slice, Tensor], Tensor]) -> Tensor:
        """Multiply by V (D + 1, K), transform the product, and multiply by the transpose, in one pass over the rows.

        Args:
            V: Weights; their dtype is that of the computation.
            transform: Turns decision values (n, K) of rows (a slice) into the factors of the second product.

        Returns:
            (D + 1, K) in the dtype of V.
        """
        U, offset = self._shared(V)
        narrow = V.shape[1] <= _NARROW
        if narrow:
            U = U.T.contiguous().T  # one column after the other in memory
        G, total = torch.zeros_like(U), torch.zeros_like(offset)
        for rows in self._blocks():
            block = self.X[rows].to(V.dtype)
            if narrow:
                R = transform(rows, torch.addmm(offset[:, None], U.T, block.T).T.contiguous())
                G.T.addmm_(R.T, block)
            else:
                R = transform(rows, torch.addmm(offset, block, U))
                G.addmm_(block.T, R)
            total += R.sum(0)
        return self._own(G, total)

    def _blocks(self) -> Iterator[slice]:
        n, size = self.X.shape[0], self._block_rows()
        return (slice(start, min(start + size, n)) for start in range(0, n, size))

    def _block_rows(self) -> int:
        values = _BLOCK_VALUES if self.X.device.type == "cpu" else _GPU_BLOCK_VALUES
        return max(256, values // max(self.X.shape[1], 1))

    def _shared(self, V: Tensor) -> tuple[Tensor, Tensor]:
        """Express weights of the columns' own features as weights of X and an offset."""
        U, offset = V[:-1], V[-1] * self.scaling
        if self.mean is None or self.inverse is None:
            return U.contiguous(), offset
        U = U * self.inverse.to(V.dtype)
        return U, offset - (self.mean.to(V.dtype) * U).sum(0)

    def _own(self, G: Tensor, total: Tensor) -> Tensor:
        """Express a product with X transposed as one with the columns' own features; the adjoint of `_shared`."""
        if self.mean is not None and self.inverse is not None:
            G = (G - self.mean.to(G.dtype) * total) * self.inverse.to(G.dtype)
        return torch.cat([G, (total * self.scaling)[None]])


def with_bias(X: Tensor, bias: float) -> Tensor:
    """Append the feature that carries the bias to rows (N, D)."""
    return torch.cat([X, X.new_full((len(X), 1), bias)], dim=1)
