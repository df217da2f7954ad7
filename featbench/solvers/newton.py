"""Linear support vector machines, many at once, in the primal.

Column k of W minimises

    1/2 |w|^2 + C_k sum_i cost_ik max(0, 1 - sign_ik w.x_i)^2

where x_i ends in a feature that carries the bias, which is regularised like the other weights, as liblinear does. All
columns share the products with the rows (`products`). The method is a truncated Newton method (Keerthi and DeCoste
2005; Lin, Weng and Keerthi 2008): conjugate gradients on the generalised Hessian I + 2C X'AX (A: the rows inside the
margin), preconditioned (`hessians`), then a line search. Columns that have converged leave the batch. The stopping
rule is liblinear's, and that the objective is certain to be within `gap` of its minimum; a column also stops where
float64 has nothing left to gain.

Rows of float32 are multiplied in float32 at first. Whatever then seems to have converged is measured again in float64,
and goes on in float64 where it has not: the precision bears on the time that it takes, not on the solution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from featbench.solvers.hessians import Hessians, newton_direction
from featbench.solvers.problem import Point, Problem, line_search

_ARMIJO = 0.01
_TOLERANCES = (0.5, 0.5, 0.1)  # of the first directions, far from the optimum (Dembo et al. 1982), and of the others
_SINGLE_STEPS = 100  # Newton steps after which what has not converged goes on in float64
_ROUNDING = {torch.float32: 1e-7, torch.float64: 1e-13}  # of an objective, which is a sum of many numbers


@dataclass(frozen=True, eq=False)
class Solution:
    """The columns fitted.

    Attributes:
        W: (D + 1, K) float64; the last row is the weight of the bias feature.
        n_iter: (K,) int64, Newton steps.
        converged: (K,) bool.
        left: Whether there is a better way to go on for this C.
    """

    W: Tensor
    n_iter: Tensor
    converged: Tensor
    left: bool = False


def minimise(
    problem: Problem,
    start: Tensor,
    C: float,
    stop: Tensor,
    max_iter: int,
    hessians: Hessians,
    gap: float,
    leave: Callable[[Problem, Point], bool] = lambda problem, point: False,
) -> Solution:
    """Fit all columns for one C.

    Args:
        problem: The columns.
        start: (D + 1, K) float64, where to begin.
        C: The weight of the losses.
        stop: (K,) float64, `stopping_norms` of the problem.
        max_iter: Newton steps allowed.
        hessians: Of the problem; those of its rows at least.
        gap: Of the objective, how far above its minimum it may still be: liblinear's rule alone allows percents.
        leave: Says of the columns that have not converged, and where they are, whether there is a better way to go on.
    """
    if problem.costs.dtype == torch.float64:
        return _descend(problem, start, C, stop, max_iter, hessians, gap, leave)
    solution = _descend(problem, start, C, stop, min(max_iter, _SINGLE_STEPS), hessians, gap, leave)
    if solution.left:
        return solution
    exact = Point.at(problem.double(), solution.W)
    done = _is_flat(exact, C, stop, gap)[1]
    W, n_iter, converged = solution.W, solution.n_iter, done
    open_ = (~done & (n_iter < max_iter)).nonzero()[:, 0]
    if len(open_):
        further = _descend(problem.take(open_).double(), W[:, open_], C, stop[open_], max_iter, hessians, gap, leave)
        W[:, open_], converged[open_] = further.W, further.converged
        n_iter[open_] = (n_iter[open_] + further.n_iter).clamp(max=max_iter)
        return Solution(W, n_iter, converged, further.left)
    return Solution(W, n_iter, converged)


def _is_flat(point: Point, C: float, stop: Tensor, gap: float) -> tuple[Tensor, Tensor]:
    """Say (K,) whether liblinear's rule is met, and whether there is also certainly little to gain."""
    norm = point.gradient(C).norm(dim=0)
    flat = norm <= C * stop
    # The objective is strongly convex with modulus 1, so that it is at most |gradient|^2 / 2 above its minimum.
    return flat, flat & (norm * norm / 2 <= gap * point.objective(C))


def _descend(
    problem: Problem,
    start: Tensor,
    C: float,
    stop: Tensor,
    max_iter: int,
    hessians: Hessians,
    gap: float,
    leave: Callable[[Problem, Point], bool],
) -> Solution:
    """Fit all columns, computing in the precision of the problem."""
    rounding = _ROUNDING[problem.costs.dtype]
    W, batch = start.clone(), _Batch.begin(problem, start)
    n_iter = torch.full_like(batch.alive, max_iter)
    converged = torch.zeros_like(n_iter, dtype=torch.bool)
    for iteration in range(max_iter + 1):
        flat, done = _is_flat(batch.point, C, stop[batch.alive], gap)
        done |= batch.exhausted
        converged[batch.alive[done]] = True
        W[:, batch.alive] = batch.point.w
        n_iter[batch.alive] = iteration
        if iteration == max_iter or done.all():
            break
        if done.any():
            kept = (~done).nonzero()[:, 0]
            batch, flat = batch.take(kept), flat[kept]
        if leave(batch.problem, batch.point):
            return Solution(W, n_iter, converged, left=True)
        objective, gradient = batch.point.objective(C), batch.point.gradient(C)
        enough = torch.where(flat, gap, torch.inf) * objective / 2
        weights = (batch.problem.costs * (2 * C)).mul_(batch.point.slack > 0)
        tolerance = _TOLERANCES[min(iteration, len(_TOLERANCES) - 1)]
        step, unexplored = newton_direction(batch.problem, gradient, weights, hessians, tolerance, enough, C)
        length = _advance(batch, step, gradient, objective, C, rounding)
        promised = unexplored - (gradient * step).sum(0) / 2
        little = promised <= torch.where(flat & (length == 1), gap, rounding) * objective
        batch.exhausted, batch.little = little & batch.little, little  # twice: the rows inside the margin may change
        stuck = (length == 0) & ~little
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
        point: Where they are.
        little: (K,) bool, whether the step that was just taken promised next to nothing more.
        exhausted: (K,) bool, whether the one before it did, too.
    """

    alive: Tensor
    problem: Problem
    point: Point
    little: Tensor
    exhausted: Tensor

    @classmethod
    def begin(cls, problem: Problem, start: Tensor) -> _Batch:
        alive = torch.arange(start.shape[1], device=start.device)
        nothing = torch.zeros_like(alive, dtype=torch.bool)
        return cls(alive, problem, Point.at(problem, start), nothing, nothing)

    def take(self, columns: Tensor) -> _Batch:
        parts = self.problem.take(columns), self.point.take(columns), self.little[columns], self.exhausted[columns]
        return _Batch(self.alive[columns], *parts)


def _advance(batch: _Batch, step: Tensor, gradient: Tensor, objective: Tensor, C: float, rounding: float) -> Tensor:
    """Move the batch along its steps, and return the lengths (K,) that it took of them.

    The whole step is taken where the objective falls enough (Armijo), else the minimum along the step is searched:
    halving alone zigzags where rows enter the margin after a hair's breadth, as they do for a large C.
    """
    before, after = batch.point, batch.point.plus(batch.problem, step)
    slope = (gradient * step).sum(0)
    bad = after.objective(C) > objective * (1 + rounding) + _ARMIJO * slope
    length = torch.ones_like(slope)
    batch.point = after
    if bad.any():
        columns = bad.nonzero()[:, 0]
        here, way = before.take(columns), step[:, columns]
        length[columns] = line_search(
            (here.w * way).sum(0),
            (way * way).sum(0),
            here.slack,
            here.slack.double() - after.slack[:, columns],
            batch.problem.costs[:, columns],
            slope[columns],
            C,
        )
        batch.point = before.plus(batch.problem, step * length)
    return length
