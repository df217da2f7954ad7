"""Approximate inverses of Hessians for conjugate gradients.

All columns share the eigenvectors of X'X (Frangella, Tropp and Udell, Randomized Nyström Preconditioning, 2023). Once
conjugate gradients have cost a class as much as a Cholesky factor would, the Hessian of one of its columns is computed
and factored, for its columns in all folds: the work is then at most about twice that of the better of the two methods.
`python -m tests.speed.constants` measures it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import torch
from torch import Tensor

from featbench.solvers.memory import FACTOR_BYTES
from featbench.solvers.problem import Hessian
from featbench.solvers.products import ScaledRows, SharedRows, with_bias

EXACT_BELOW = 1024  # features or rows: the eigenvectors of matrices this small cost less than a few products with X
_RANK = 384
_POWER_STEPS = 2
_MIN_STEPS = 5  # of conjugate gradients
_READING = 20  # reading the rows costs as much as the products of this many columns


@dataclass(frozen=True, eq=False)
class Eigenvectors:
    """An approximate inverse of I + q X'X for any q.

    Attributes:
        vectors: (D + 1, r) float, the leading eigenvectors of X'X.
        values: (r,) float, the eigenvalues.
        tail: Stands for all other eigenvalues.
    """

    vectors: Tensor
    values: Tensor
    tail: float

    def apply(self, V: Tensor, q: Tensor) -> Tensor:
        """Multiply V (D + 1, K) by the approximate inverse of I + q X'X, with a q (K,) for each column."""
        vectors = self.vectors.to(V.dtype)
        rest = 1 / (1 + self.tail * q)
        inner = 1 / (1 + self.values.to(V.dtype)[:, None] * q) - rest
        return V * rest + vectors @ (inner * (vectors.T @ V))


@dataclass(eq=False)
class _ClassHessian:
    """The Hessian of a class's columns, as far as it was computed.

    Attributes:
        work: Multiply-adds a feature in conjugate gradients since `losses` was computed.
        losses: (D + 1, D + 1) float64, the Hessian of the losses for C = 1.
        factor: A C, a precision, and the Cholesky factor of I + C losses for them, None where float64 has none.
    """

    work: float = 0.0
    losses: Tensor | None = None
    factor: tuple[float, torch.dtype, Tensor | None] | None = None

    def factor_for(self, C: float, dtype: torch.dtype) -> Tensor | None:
        if self.losses is None:
            return None
        if self.factor is None or self.factor[:2] != (C, dtype):
            hessian = self.losses * C
            hessian.diagonal().add_(1)
            factor, info = torch.linalg.cholesky_ex(hessian)
            self.factor = C, dtype, factor.to(dtype) if int(info) == 0 else None
        return self.factor[2]


@dataclass(frozen=True, eq=False)
class Preconditioner:
    """The preconditioner of problems on the same rows. It keeps its factors for later Newton steps and for the next C.

    Attributes:
        eigenvectors: Of the rows.
        factor_bytes: Memory budget for Hessians and their factors.
    """

    eigenvectors: Eigenvectors
    factor_bytes: float = FACTOR_BYTES
    _classes: dict[int, _ClassHessian] = field(default_factory=lambda: defaultdict(_ClassHessian))

    def prepare(self, hessian: Hessian, max_steps: int) -> Tensor:
        """Factor the Hessians of classes whose conjugate gradients have cost as much; limit the steps of the others.

        Returns:
            (P,) int64, steps of conjugate gradients allowed.
        """
        budget = torch.full((len(hessian.C) // hessian.loss.width,), max_steps, device=hessian.C.device)
        width, ids = hessian.rows.X.shape[1] + 1, hessian.class_ids
        if ids is None or width > EXACT_BELOW:
            return budget
        class_ids = torch.unique(ids).tolist()
        if len(class_ids) * 2 * 8 * width**2 > self.factor_bytes:
            return budget
        active = (hessian.curvature > 0).sum(0)
        for class_id in class_ids:
            own, columns = self._classes[class_id], (ids == class_id).nonzero()[:, 0]
            column = int(columns[0])
            cost = (int(active[column]) + width / 3) * width
            # Float64 is for what is ill-conditioned: there an old factor, or a direction cut short, leads nowhere.
            double = hessian.curvature.dtype == torch.float64
            if double or own.work >= cost:
                inside = hessian.curvature[:, column].nonzero()[:, 0]
                weights = hessian.curvature[inside, column]
                own.losses, own.factor = hessian.rows.moments(inside, weights, column).double(), None
                own.work = 0
            if not double:
                steps = int((cost - own.work) / (_work_of_step(hessian) * len(columns)))
                budget[columns] = min(max_steps, max(_MIN_STEPS, steps))
        return budget

    def apply(self, hessian: Hessian, R: Tensor) -> Tensor:
        """Multiply R (D + 1, P * width) by approximate inverses of the Hessians."""
        q = hessian.totals / hessian.rows.X.shape[0]
        if hessian.class_ids is None:
            Z = self.eigenvectors.apply(R, q)
            if not hessian.loss.penalise_bias:
                Z[-1] = R[-1] / hessian.totals
            return Z
        ids, Z, C = hessian.class_ids.tolist(), torch.empty_like(R), float(hessian.C[0])  # of all the same
        factors = {class_id: self._classes[class_id].factor_for(C, R.dtype) for class_id in set(ids)}
        without = torch.tensor(
            [place for place, class_id in enumerate(ids) if factors[class_id] is None], dtype=torch.int64
        )
        Z[:, without] = self.eigenvectors.apply(R[:, without], q[without])
        for class_id, factor in factors.items():
            if factor is not None:
                own = (hessian.class_ids == class_id).nonzero()[:, 0]
                Z[:, own] = torch.cholesky_solve(R[:, own], factor)
        return Z

    def count_step(self, hessian: Hessian) -> None:
        """Count the work of a step of conjugate gradients."""
        for class_id in [] if hessian.class_ids is None else hessian.class_ids.tolist():
            self._classes[class_id].work += _work_of_step(hessian)


def _work_of_step(hessian: Hessian) -> float:
    """Return the multiply-adds of a step per feature and column, reading the rows included."""
    n, columns = hessian.curvature.shape
    return 2 * n * (1 + _READING / columns)


def eigenvectors(X: Tensor | ScaledRows, bias: float, seed: int = 0) -> Eigenvectors:
    """Decompose X (N, D) with its bias feature; every eigenvector where D or N is small, else the leading ones."""
    n, d = X.shape
    if d < EXACT_BELOW:
        values, vectors = torch.linalg.eigh(SharedRows(X, None, None, bias).gram())
        return Eigenvectors(vectors, values.clamp(min=0), 0.0)
    if n < EXACT_BELOW and isinstance(X, Tensor):
        rows = with_bias(X, bias)
        values, vectors = torch.linalg.eigh(rows @ rows.T)
        kept = values > values[-1] * n * torch.finfo(X.dtype).eps
        values, vectors = values[kept], vectors[:, kept]
        return Eigenvectors(rows.T @ (vectors / values.sqrt()), values, 0.0)
    return _leading(X, bias, seed)


def _leading(X: Tensor | ScaledRows, bias: float, seed: int) -> Eigenvectors:
    shared = SharedRows(X, None, None, bias)
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(X.shape[1] + 1, _RANK, generator=generator, dtype=X.dtype)
    basis, _ = torch.linalg.qr(start.to(X.device))

    def squared(V: Tensor) -> Tensor:
        return shared.blockwise_product(V, lambda part, values: values)

    for _ in range(_POWER_STEPS):
        basis, _ = torch.linalg.qr(squared(basis))
    inner = basis.T @ squared(basis)
    values, rotation = torch.linalg.eigh((inner + inner.T) / 2)
    values = values.clamp(min=0)
    return Eigenvectors(basis @ rotation, values, float(values[0]))
