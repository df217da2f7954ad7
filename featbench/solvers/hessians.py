"""Newton directions of many columns at once: preconditioned conjugate gradients on their Hessians.

The preconditioner is made of the eigenvectors of X'X, which all columns share, while a few steps do; beyond that, of
the Hessian of one column on a sample of the rows inside its margin, which its kin in other folds share.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from featbench.solvers.problem import Problem
from featbench.solvers.products import EXACT_BELOW, Preconditioner

_MAX_STEPS = 200
_MIN_STEPS = 5
_NOTHING = 1e-24  # of the squared length of the residual
_SAMPLED = 8  # rows a feature
_READING = 20  # columns whose products with the rows take as long as reading the rows
FACTOR_BYTES = 2**30  # of Hessians and their factors


@dataclass(frozen=True, eq=False)
class Hessians:
    """What is known of the Hessians of a problem; it grows, and one C after the other gains by it.

    Attributes:
        preconditioner: Of the problem's rows, for columns that do well with it.
        losses: (D + 1, D + 1) float64, those of the losses for C = 1, by `Problem.kin`, where they were worth it.
        sampled: (D + 1) times this many of the rows inside the margin went into the next of `losses`, by `kin`.
        factored: A C and the Cholesky factor for it, by `kin`.
        spent: Products with a row spent in conjugate gradients since the last of `losses`, by `kin`.
        memory_bytes: What Hessians and their factors may take.
    """

    preconditioner: Preconditioner
    losses: dict[int, Tensor] = field(default_factory=dict)
    sampled: dict[int, int] = field(default_factory=lambda: defaultdict(lambda: _SAMPLED))
    factored: dict[int, tuple[float, Tensor | None]] = field(default_factory=dict)
    spent: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    memory_bytes: float = FACTOR_BYTES

    def factors(self, C: float, dtype: torch.dtype) -> dict[int, Tensor]:
        """Return the Cholesky factors of the Hessians by `kin`; one that is not positive in float64 is left out."""
        for number, losses in self.losses.items():
            if self.factored.get(number, (None,))[0] != C:
                hessian = losses * C
                hessian.diagonal().add_(1)
                factor, info = torch.linalg.cholesky_ex(hessian)
                self.factored[number] = (C, factor if int(info) == 0 else None)
        return {number: factor.to(dtype) for number, (_, factor) in self.factored.items() if factor is not None}


def newton_direction(
    problem: Problem,
    gradient: Tensor,
    weights: Tensor,
    hessians: Hessians,
    tolerance: float,
    enough: Tensor,
    C: float,
) -> tuple[Tensor, Tensor]:
    """Solve (I + X' diag(weights) X) s = -gradient roughly, each column (D + 1, K) for itself.

    Steps go on until the residual, as the preconditioner measures it, has fallen to `tolerance` of its length.

    Kin that have spent as much on conjugate gradients as a factor of their Hessian costs stop there, and are given that
    factor the next time, so that they never cost much more than twice the better of the two ways.

    In float64, which is for what is ill-conditioned, the last step must also gain little against those before it (Nash
    and Sofer 1990): a factor of the Hessian elsewhere can hide a residual that matters.

    Returns:
        The steps, and (K,) how much lower than they reach the quadratic model can be at most: half the squared
        residual, since the model is strongly convex with modulus 1. Steps go on until it is at most `enough` (K,), too.
    """
    budget = _budget(problem, weights, hessians, C)
    rows, kin = problem.rows, problem.kin
    factors = hessians.factors(C, weights.dtype)
    preconditioner = hessians.preconditioner
    norm = gradient.norm(dim=0)
    residual = (-gradient / norm).to(weights.dtype)  # of length 1, which keeps float32 in its range
    q = weights.mean(0)
    s = torch.zeros_like(residual)
    solution = torch.zeros_like(residual)
    alive = torch.arange(residual.shape[1], device=residual.device)
    p = z = _precondition(preconditioner, factors, kin, residual, q)
    rz = (residual * z).sum(0)
    stop = rz * tolerance**2
    limit = (2 * enough / norm**2).to(residual.dtype)
    left = torch.ones_like(norm)
    gained = torch.zeros_like(rz)
    exact = weights.dtype == torch.float64
    for steps in range(1, _MAX_STEPS + 1):
        for number in kin.tolist():
            hessians.spent[number] += _cost_of_step(weights)
        product = p + rows.curvature(p, weights)
        alpha = rz / (p * product).sum(0)
        gain = alpha * rz
        gained = gained + gain
        s = s + alpha * p
        residual = residual - alpha * product
        z = _precondition(preconditioner, factors, kin, residual, q)
        previous, rz = rz, (residual * z).sum(0)
        square = (residual * residual).sum(0)
        left[alive] = square.to(left.dtype)
        going = (rz > stop) | (square > limit)
        if exact:
            going |= (steps * gain > gained / 2) & (square > _NOTHING)
        going &= budget > steps
        if not going.all():
            solution[:, alive] = s
            kept = going.nonzero()[:, 0]
            if not len(kept):
                break
            alive, rows, weights, q, stop = alive[kept], rows.take(kept), weights[:, kept], q[kept], stop[kept]
            limit, kin, budget, gained = limit[kept], kin[kept], budget[kept], gained[kept]
            s, residual, z, p = s[:, kept], residual[:, kept], z[:, kept], p[:, kept]
            previous, rz = previous[kept], rz[kept]
        p = z + (rz / previous) * p
    solution[:, alive] = s
    return solution.double() * norm, left * norm**2 / 2


def _precondition(
    preconditioner: Preconditioner, factors: Mapping[int, Tensor], kin: Tensor, R: Tensor, q: Tensor
) -> Tensor:
    shared = torch.tensor([number not in factors for number in kin.tolist()], device=kin.device).nonzero()[:, 0]
    Z = torch.empty_like(R)
    Z[:, shared] = preconditioner.apply(R[:, shared], q[shared])
    for number, factor in factors.items():
        columns = (kin == number).nonzero()[:, 0]
        if len(columns):
            half = torch.linalg.solve_triangular(factor, R[:, columns], upper=False)
            Z[:, columns] = torch.linalg.solve_triangular(factor.T, half, upper=True)
    return Z


def _cost_of_step(weights: Tensor) -> float:
    """Return what a step of conjugate gradients costs a column, beside a product with a row among many others."""
    n, columns = weights.shape
    return 2 * n * (1 + _READING / columns)


def _budget(problem: Problem, weights: Tensor, hessians: Hessians, C: float) -> Tensor:
    """Factor the Hessians of kin whose conjugate gradients have cost as much as that, and limit those of the others.

    A sample of the rows will do at first; it is doubled each time.

    Returns:
        (K,) int64, steps of conjugate gradients.
    """
    width, kin = problem.rows.X.shape[1] + 1, problem.kin
    budget = torch.full_like(kin, _MAX_STEPS)
    numbers = torch.unique(kin).tolist()
    if width > EXACT_BELOW or len(numbers) * 2 * 8 * width**2 > hessians.memory_bytes:
        return budget
    active = (weights > 0).sum(0)
    for number in numbers:
        columns = (kin == number).nonzero()[:, 0]
        column = int(columns[0])
        stride = max(1, int(active[column]) // (hessians.sampled[number] * width))
        cost = (int(active[column]) // stride + width / 3) * width
        # Float64 is for what is ill-conditioned: there an old factor, or a step cut short, leads nowhere.
        if hessians.spent[number] >= cost or weights.dtype == torch.float64:
            kept = weights[:, column].nonzero()[::stride, 0]
            own = weights[kept, column] * (stride / C)
            hessians.losses[number] = problem.rows.moments(kept, own, column).double()
            hessians.factored.pop(number, None)
            hessians.sampled[number] *= 2
            hessians.spent[number] = 0
        if weights.dtype == torch.float32:
            left = (cost - hessians.spent[number]) / (_cost_of_step(weights) * len(columns))
            budget[columns] = max(_MIN_STEPS, int(left))
    return budget.clamp(max=_MAX_STEPS)
