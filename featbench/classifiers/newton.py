"""Linear support vector machines, many at once, in the primal.

Column k of W minimises

    1/2 |w|^2 + C_k sum_i cost_ik max(0, 1 - sign_ik w.x_i)^2

where x_i ends in a feature that carries the bias, which is regularised like the other weights, as liblinear does. All
columns share the products with the rows (`products`). The method is a truncated Newton method (Keerthi and DeCoste
2005; Lin, Weng and Keerthi 2008): conjugate gradients on the generalised Hessian I + 2C X'AX (A: the rows inside the
margin), preconditioned with the eigenvectors of X'X, then a line search. Columns that have converged
leave the batch. The stopping rule is liblinear's, and that a Newton step promises to gain less than 1e-6 of the
objective; a column also stops where float64 has nothing left to gain.

Gradients and objectives are float64, whatever X is; conjugate gradients begin in the precision of X, which bears on the
number of steps and not on the solution.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from featbench.classifiers.products import EXACT_BELOW, Preconditioner, SharedRows

_MAX_CG_STEPS = 200
_CG_TOLERANCE = 0.1
_ARMIJO = 0.01
_SEARCHES = 60
_FLAT = 0.1  # of the derivative where a line search starts
_ROUNDING = 1e-13  # of an objective, which is a sum of many float64
_PROMISED = 1e-6  # of the objective, what a Newton step may still promise: liblinear's rule alone allows percents
_SINGLE_STEPS = 25  # Newton steps after which conjugate gradients turn to float64 too


@dataclass(frozen=True, eq=False)
class Problem:
    """The columns to fit.

    Attributes:
        rows: The rows, and how each column sees them.
        signs: (N, K) float64, 1 for the column's class and -1 for the others.
        costs: (N, K) float64, the weight of a row; 0 leaves it out.
    """

    rows: SharedRows
    signs: Tensor
    costs: Tensor

    def take(self, columns: Tensor) -> Problem:
        """Return the columns with these indices."""
        return Problem(self.rows.take(columns), self.signs[:, columns], self.costs[:, columns])


@dataclass(frozen=True, eq=False)
class Solution:
    """The columns fitted.

    Attributes:
        W: (D + 1, K) float64; the last row is the weight of the bias feature.
        n_iter: (K,) int64, Newton steps.
        converged: (K,) bool.
    """

    W: Tensor
    n_iter: Tensor
    converged: Tensor


def gradient_at_zero(problem: Problem) -> Tensor:
    """Return the norms (K,) of the gradients at W = 0 for C = 1; others are proportional to C."""
    norms: Tensor = problem.rows.backward(problem.costs * problem.signs * -2).norm(dim=0)
    return norms


def stopping_norms(problem: Problem, tol: float) -> Tensor:
    """Return liblinear's stopping rule for C = 1: tol * min(positive, negative) / N * |gradient at 0|, as (K,)."""
    used = problem.costs > 0
    total = used.sum(0)
    positive = (used & (problem.signs > 0)).sum(0)
    share = torch.minimum(positive, total - positive).clamp(min=1) / total.clamp(min=1)
    return tol * share * gradient_at_zero(problem)


def minimise(
    problem: Problem, start: Tensor, C: float, stop: Tensor, max_iter: int, preconditioner: Preconditioner
) -> Solution:
    """Fit all columns for one C.

    Args:
        problem: The columns.
        start: (D + 1, K) float64, where to begin.
        C: The weight of the losses.
        stop: (K,) float64, `stopping_norms` of the problem.
        max_iter: Newton steps allowed.
        preconditioner: Of the problem's rows.
    """
    W, batch = start.clone(), _Batch.begin(problem, start)
    n_iter = torch.full_like(batch.alive, max_iter)
    converged = torch.zeros_like(n_iter, dtype=torch.bool)
    for iteration in range(max_iter + 1):
        hinge = batch.slack.clamp(min=0)
        pull = hinge * batch.problem.costs
        objective = C * (hinge * pull).sum(0) + (batch.w * batch.w).sum(0) / 2
        gradient = batch.w + batch.problem.rows.backward(pull.mul_(batch.problem.signs)).mul_(-2 * C)
        weights = (batch.problem.costs * (2 * C)).mul_(batch.slack > 0)
        norm = gradient.norm(dim=0)
        flat = norm <= C * stop[batch.alive]
        # The objective is strongly convex with modulus 1, so that it is at most |gradient|^2 / 2 above its minimum.
        done = batch.exhausted | (flat & (norm * norm / 2 <= _PROMISED * objective))
        converged[batch.alive[done]] = True
        n_iter[batch.alive[done]] = iteration
        W[:, batch.alive] = batch.w
        if iteration == max_iter or done.all():
            break
        if done.any():
            kept = (~done).nonzero()[:, 0]
            batch = batch.take(kept)
            gradient, objective, weights, flat = gradient[:, kept], objective[kept], weights[:, kept], flat[kept]
        enough = torch.where(flat, _PROMISED, torch.inf) * objective / 2
        if iteration < _SINGLE_STEPS:
            weights = weights.to(problem.rows.X.dtype)
        step, unexplored = _newton_direction(batch, gradient, weights, preconditioner, enough)
        length = _advance(batch, step, gradient, objective, C)
        promised = unexplored - (gradient * step).sum(0) / 2
        batch.exhausted = promised <= torch.where(flat & (length == 1), _PROMISED, _ROUNDING) * objective
        stuck = (length == 0) & ~batch.exhausted
        if stuck.any():
            batch = batch.take((~stuck).nonzero()[:, 0])
            if not len(batch.alive):
                break
    return Solution(W, n_iter, converged)


@dataclass(eq=False)
class _Batch:
    """The columns that have not converged yet.

    Attributes:
        alive: (K,) int64, their numbers in the whole problem.
        problem: Their problem.
        w: (D + 1, K) float64, where they are.
        slack: (N, K) float64, 1 - sign * decision value.
        exhausted: (K,) bool, whether there is nothing left to gain after the step that was just taken.
        spent: (K,) float64, products with a row spent in conjugate gradients since the last factor.
        factors: K Cholesky factors (D + 1, D + 1) of a recent Hessian, None for columns that did well without.
    """

    alive: Tensor
    problem: Problem
    w: Tensor
    slack: Tensor
    exhausted: Tensor
    spent: Tensor
    factors: list[Tensor | None]

    @classmethod
    def begin(cls, problem: Problem, start: Tensor) -> _Batch:
        count = start.shape[1]
        alive = torch.arange(count, device=start.device)
        slack = 1 - problem.signs * problem.rows.forward(start)
        spent = torch.zeros(count, dtype=torch.float64, device=start.device)
        return cls(alive, problem, start, slack, torch.zeros_like(alive, dtype=torch.bool), spent, [None] * count)

    def take(self, columns: Tensor) -> _Batch:
        factors = [self.factors[column] for column in columns.tolist()]
        parts = self.w[:, columns], self.slack[:, columns], self.exhausted[columns], self.spent[columns]
        return _Batch(self.alive[columns], self.problem.take(columns), *parts, factors)


def _advance(batch: _Batch, step: Tensor, gradient: Tensor, objective: Tensor, C: float) -> Tensor:
    """Move the batch along its steps, and return the lengths (K,) that it took of them."""
    change = batch.problem.rows.forward(step).mul_(batch.problem.signs)
    length = _line_search(batch, step, gradient, change, objective, C)
    batch.w = batch.w + step * length
    batch.slack -= change.mul_(length)
    return length


def _newton_direction(
    batch: _Batch, gradient: Tensor, weights: Tensor, preconditioner: Preconditioner, enough: Tensor
) -> tuple[Tensor, Tensor]:
    """Solve (I + X' diag(weights) X) s = -gradient roughly, each column (D + 1, K) to its own tolerance.

    A column that has spent as much on conjugate gradients as a factor of its Hessian costs is given that factor, so
    that it never costs more than twice the better of the two ways.

    Returns:
        The steps, and (K,) how much lower than they reach the quadratic model can be at most: half the squared
        residual, since the model is strongly convex with modulus 1. Steps go on until it is at most `enough` (K,).
    """
    _refactor(batch, weights)
    rows, factors = batch.problem.rows, batch.factors
    norm = gradient.norm(dim=0)
    residual = (-gradient / norm).to(weights.dtype)  # of length 1, which keeps float32 in its range
    q = weights.mean(0)
    solution, s = torch.zeros_like(residual), torch.zeros_like(residual)
    alive = torch.arange(residual.shape[1], device=residual.device)
    p = z = _precondition(preconditioner, factors, residual, q)
    rz = (residual * z).sum(0)
    stop = rz * _CG_TOLERANCE**2
    limit = (2 * enough / norm**2).to(residual.dtype)
    left = torch.ones_like(norm)
    for _ in range(_MAX_CG_STEPS):
        batch.spent[alive] += 2 * weights.shape[0]
        product = p + rows.curvature(p, weights)
        alpha = rz / (p * product).sum(0)
        s = s + alpha * p
        residual = residual - alpha * product
        z = _precondition(preconditioner, factors, residual, q)
        previous, rz = rz, (residual * z).sum(0)
        square = (residual * residual).sum(0)
        left[alive] = square.to(left.dtype)
        going = (rz > stop) | (square > limit)
        if not going.all():
            solution[:, alive] = s
            kept = going.nonzero()[:, 0]
            if not len(kept):
                break
            alive, rows, weights, q, stop = alive[kept], rows.take(kept), weights[:, kept], q[kept], stop[kept]
            limit = limit[kept]
            s, residual, z, p = s[:, kept], residual[:, kept], z[:, kept], p[:, kept]
            previous, rz = previous[kept], rz[kept]
            factors = [factors[column] for column in kept.tolist()]
        p = z + (rz / previous) * p
    solution[:, alive] = s
    return solution.double() * norm, left * norm**2 / 2


def _precondition(preconditioner: Preconditioner, factors: list[Tensor | None], R: Tensor, q: Tensor) -> Tensor:
    Z = preconditioner.apply(R, q)
    for column, factor in enumerate(factors):
        if factor is not None:
            Z[:, column] = torch.cholesky_solve(R[:, column, None].double(), factor)[:, 0].to(Z.dtype)
    return Z


def _refactor(batch: _Batch, weights: Tensor) -> None:
    """Factor the Hessians of columns whose conjugate gradients have cost as much as that would."""
    width = len(batch.w)
    if width > EXACT_BELOW:
        return
    active = (weights > 0).sum(0)
    cost = active * width / 2 + width**2 / 6
    for column in (batch.spent > cost).nonzero()[:, 0].tolist():
        kept = weights[:, column].nonzero()[:, 0]
        rows = batch.problem.rows.of_column(kept, column)
        hessian = (rows.T * weights[kept, column].double()) @ rows
        hessian.diagonal().add_(1)
        factor, info = torch.linalg.cholesky_ex(hessian)
        if int(info) == 0:
            batch.factors[column] = factor
        batch.spent[column] = 0


def _line_search(batch: _Batch, step: Tensor, gradient: Tensor, change: Tensor, objective: Tensor, C: float) -> Tensor:
    """Take each column's whole step where the objective falls enough (Armijo), else search its minimum along the step.

    Halving alone zigzags where rows enter the margin after a hair's breadth, as they do for a large C.

    Args:
        batch: The columns.
        step: (D + 1, K) where they want to go.
        gradient: (D + 1, K) where they are.
        change: (N, K), by how much a whole step lowers the slack.
        objective: (K,) where they are.
        C: The weight of the losses.

    Returns:
        (K,) in [0, 1]; 0 where nothing lowers the objective.
    """
    slope = (gradient * step).sum(0)
    reached = batch.w + step
    hinge = (batch.slack - change).clamp_(min=0)
    value = C * (batch.problem.costs * hinge.square_()).sum(0) + (reached * reached).sum(0) / 2
    length = torch.ones_like(slope)
    bad = (value > objective * (1 + _ROUNDING) + _ARMIJO * slope).nonzero()[:, 0]
    if len(bad):
        pulled = batch.problem.costs[:, bad] * change[:, bad] * (-2 * C)
        cross, square = (batch.w[:, bad] * step[:, bad]).sum(0), (step[:, bad] ** 2).sum(0)
        length[bad] = _along(batch.slack[:, bad], change[:, bad], pulled, cross, square, slope[bad])
    return length


def _along(slack: Tensor, change: Tensor, pulled: Tensor, cross: Tensor, square: Tensor, slope: Tensor) -> Tensor:
    """Find where in [0, 1] the derivative along the step is near 0; it grows piecewise linearly from `slope` < 0."""
    low, high = torch.zeros_like(slope), torch.ones_like(slope)
    t, best = high, low
    for _ in range(_SEARCHES):
        hinge = (slack - change * t).clamp_(min=0)
        derivative = cross + t * square + (pulled * hinge).sum(0)
        found = derivative.abs() <= _FLAT * slope.abs()
        low, high = torch.where(derivative <= 0, t, low), torch.where(derivative > 0, t, high)
        best = torch.where(found, t, low)
        if found.all():
            break
        growth = square - (pulled * change * (hinge > 0)).sum(0)
        guess = t - derivative / growth
        middle = (low + high) / 2
        t = torch.where(found, t, torch.where((guess > low) & (guess < high), guess, middle))
    return best
