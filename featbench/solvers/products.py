"""Products with a matrix of rows that many linear models share, each with a scaling of its own.

Column k of a set of models sees the rows of X as (x - mean_k) / deviation_k, followed by a feature that is always
`scaling`, whose weight is the bias. X itself is never copied or changed for it: the change is applied to the column's
weights, so that one product with X serves all columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from featbench.solvers.streamed import StreamedRows

_BLOCK_VALUES = 2**17  # of X in one block: small enough to stay in a core's cache between its two products
# Columns. With 2 to 10 of them MKL took a third to two thirds of the time for the transposed matrices, on an AMD
# processor with AVX2; with 20 about the same in float32. Not compared on others.
_NARROW = 24
_NARROW_BLOCK_VALUES = 2**19
_GPU_BLOCK_VALUES = 2**25  # a guess: it has not run on a GPU yet
EXACT_BELOW = 1024  # features or rows: the eigenvectors of matrices this small cost less than a few products with X
_RANK = 384
_POWER_STEPS = 2


@dataclass(frozen=True, eq=False)
class ScaledRows:
    """Rows on disk, (x - mean) * inverse: in the place of a tensor of N rows, of which only parts are ever there.

    Attributes:
        source: (N, D).
        mean: (D,) float64.
        inverse: (D,) float64.
        dtype: float32 or float64, what the scaled numbers are rounded to.
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
        """Where the rows come to."""
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
            X = _with_bias(self.X[rows], self.scaling)
            total.addmm_(X.T, X)
        return total

    def through(self, V: Tensor, middle: Callable[[slice, Tensor], Tensor]) -> Tensor:
        """Multiply by V (D + 1, K), change the product, and multiply by the transpose, in one pass over the rows.

        Args:
            V: Weights; their dtype is that of the computation.
            middle: Makes of rows (a slice) and their decision values (n, K) what goes into the second product.

        Returns:
            (D + 1, K) in the dtype of V.
        """
        U, offset = self._shared(V)
        narrow = V.shape[1] <= _NARROW
        if narrow:
            U = U.T.contiguous().T  # one column after the other in memory
        G, total = torch.zeros_like(U), torch.zeros_like(offset)
        for rows in self._blocks(_NARROW_BLOCK_VALUES if narrow else _BLOCK_VALUES):
            block = self.X[rows].to(V.dtype)
            if narrow:
                R = middle(rows, torch.addmm(offset[:, None], U.T, block.T).T.contiguous())
                G.T.addmm_(R.T, block)
            else:
                R = middle(rows, torch.addmm(offset, block, U))
                G.addmm_(block.T, R)
            total += R.sum(0)
        return self._own(G, total)

    def curvature(self, V: Tensor, weights: Tensor) -> Tensor:
        """Return the transposed product with weights (N, K) times the decision values of V."""
        return self.through(V, lambda rows, values: values.mul_(weights[rows]))

    def _blocks(self, values: int = _BLOCK_VALUES) -> Iterator[slice]:
        n, size = self.X.shape[0], self._block_rows(values)
        return (slice(start, min(start + size, n)) for start in range(0, n, size))

    def _block_rows(self, values: int = _BLOCK_VALUES) -> int:
        if self.X.device.type != "cpu":
            values = _GPU_BLOCK_VALUES
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


@dataclass(frozen=True, eq=False)
class Preconditioner:
    """An approximate inverse of I + q X'X for any q, from the leading eigenvectors of X'X.

    Randomised eigenvectors as in Frangella, Tropp and Udell, Randomized Nyström Preconditioning (2023).

    Attributes:
        vectors: (D + 1, r) float.
        values: (r,) float, the eigenvalues.
        tail: What the eigenvalues of everything else are taken to be.
    """

    vectors: Tensor
    values: Tensor
    tail: float

    def apply(self, V: Tensor, q: Tensor) -> Tensor:
        """Multiply V (D + 1, K) by the approximate inverse of I + q X'X, where q (K,) is a column's own."""
        vectors = self.vectors.to(V.dtype)
        rest = 1 / (1 + self.tail * q)
        inner = 1 / (1 + self.values.to(V.dtype)[:, None] * q) - rest
        return V * rest + vectors @ (inner * (vectors.T @ V))


def fewer_rows(n: int, d: int) -> bool:
    """Say whether `row_space` pays: there are fewer rows than features, and few enough to know their Hessians."""
    return n < min(d, EXACT_BELOW)


def row_space(X: Tensor | ScaledRows, scaling: float) -> tuple[Tensor, Tensor]:
    """Turn rows X (N, D) with their bias feature into N features.

    Nothing is lost: optimal weights are a sum of rows, so that they lie in the space that the rows span.

    Returns:
        The rows (N, N) float64, and (D + 1, N) float64, what turns their weights into those of X and the bias feature.
    """
    basis, triangle = torch.linalg.qr(_with_bias(X[:].double(), scaling).T)
    return triangle.T.contiguous(), basis


def precondition(X: Tensor | ScaledRows, scaling: float, seed: int = 0) -> Preconditioner:
    """Decompose X (N, D) with its bias feature; every eigenvector where D or N is small, else the leading ones."""
    n, d = X.shape
    if d < EXACT_BELOW:
        values, vectors = torch.linalg.eigh(SharedRows(X, None, None, scaling).gram())
        return Preconditioner(vectors, values.clamp(min=0), 0.0)
    if n < EXACT_BELOW and isinstance(X, Tensor):
        rows = _with_bias(X, scaling)
        values, left = torch.linalg.eigh(rows @ rows.T)
        kept = values > values[-1] * n * torch.finfo(X.dtype).eps
        values, left = values[kept], left[:, kept]
        return Preconditioner(rows.T @ (left / values.sqrt()), values, 0.0)
    return _leading(X, scaling, seed)


def _with_bias(X: Tensor, scaling: float) -> Tensor:
    return torch.cat([X, X.new_full((len(X), 1), scaling)], dim=1)


def _leading(X: Tensor | ScaledRows, scaling: float, seed: int) -> Preconditioner:
    shared = SharedRows(X, None, None, scaling)
    ones = torch.ones(len(X), 1, dtype=X.dtype, device=X.device)
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(X.shape[1] + 1, _RANK, generator=generator, dtype=X.dtype)
    basis, _ = torch.linalg.qr(start.to(X.device))
    for _ in range(_POWER_STEPS):
        basis, _ = torch.linalg.qr(shared.curvature(basis, ones))
    inner = basis.T @ shared.curvature(basis, ones)
    values, rotation = torch.linalg.eigh((inner + inner.T) / 2)
    values = values.clamp(min=0)
    return Preconditioner(basis @ rotation, values, float(values[0]))
