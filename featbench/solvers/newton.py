"""Truncated Newton method for many linear models at once; the loss is an argument.

Preconditioned conjugate gradients find a Newton direction (`preconditioner`), then a line search goes along it (Lin,
Weng and Keerthi 2008, Trust Region Newton Method for Logistic Regression; Keerthi and DeCoste 2005 for the squared
hinge, whose Hessian is the generalised one). Converged problems leave the batch. A problem has converged when
its gradient is short (if it has a rule for that) and a bound on the distance to the minimum is small; or when float64
cannot improve it.

float32 rows are multiplied in float32 first. The result is then measured in float64, and problems that have not
converged continue in float64: the precision affects the time, not the solution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from featbench.solvers.losses import Loss
from featbench.solvers.preconditioner import Preconditioner
from featbench.solvers.problem import Hessian, Point, Problems, columns_of, sums, to_columns

_ARMIJO = 0.01
_FIRST_TOLERANCE = 0.5  # of the first two directions, far from the optimum (Dembo et al. 1982)
_TOLERANCE = 0.1
_NEAR = 1e3  # allowed gaps: from here the next step is computed accurately, if there is no rule for the gradient
_SINGLE_STEPS = 100  # Newton steps in float32, then float64
_SINGLE_GAP = 1e-6  # float32 reaches no smaller one reliably
_MAX_CG_STEPS = 200
_NO_RESIDUAL = 1e-24  # of the squared length of the gradient
_SEARCHES = 60
_FLAT = 0.1  # of the derivative where a line search starts
ROUNDING = {torch.float32: 1e-7, torch.float64: 1e-13}  # of an objective, which is a sum of many numbers


@dataclass(frozen=True, eq=False)
class Solution:
    """Fitted problems.

    Attributes:
        W: (D + 1, P * width) float64; the last row is the weight of the bias feature.
        n_iter: (P,) int64, Newton steps.
        converged: (P,) bool.
        interrupted: Whether `interrupt` stopped the solver.
    """

    W: Tensor
    n_iter: Tensor
    converged: Tensor
    interrupted: bool = False


def join(parts: Sequence[Solution]) -> Solution:
    """Put problems side by side."""
    W = torch.cat([part.W for part in parts], dim=1)
    return Solution(W, torch.cat([part.n_iter for part in parts]), torch.cat([part.converged for part in parts]))


def minimise(
    problems: Problems,
    start: Tensor,
    max_iter: int,
    gap: float,
    preconditioner: Preconditioner,
    interrupt: Callable[[Problems, Point], bool] = lambda problems, point: False,
) -> Solution:
    """Fit all problems.

    Args:
        problems: The problems.
        start: (D + 1, P * width) float64, where to begin.
        max_iter: Newton steps allowed.
        gap: Relative distance to the minimum, as `allowed_gap` of the loss defines it.
        preconditioner: Of the problems' rows.
        interrupt: Called with the problems that have not converged and their point; True stops the solver.
    """
    if problems.loss.dtype == torch.float64:
        return _descend(problems, start, max_iter, gap, preconditioner, interrupt)
    steps, single_gap = min(max_iter, _SINGLE_STEPS), max(gap, _SINGLE_GAP)
    solution = _descend(problems, start, steps, single_gap, preconditioner, interrupt)
    if solution.interrupted:
        return solution
    exact = problems.double()
    W, n_iter, converged = solution.W, solution.n_iter, _Progress.of(exact, exact.at(solution.W), gap).done
    rest = (~converged & (n_iter < max_iter)).nonzero()[:, 0]
    if not len(rest):
        return Solution(W, n_iter, converged)
    columns = columns_of(rest, problems.loss.width)
    further = _descend(exact.take(rest), W[:, columns], max_iter, gap, preconditioner, interrupt)
    W[:, columns], converged[rest] = further.W, further.converged
    n_iter[rest] = (n_iter[rest] + further.n_iter).clamp(max=max_iter)
    return Solution(W, n_iter, converged, further.interrupted)


@dataclass(frozen=True, eq=False)
class _Progress:
    """Distances of problems from convergence.

    Attributes:
        gradient: (D + 1, P * width) float64.
        objective: (P,) float64.
        allowed: (P,) float64, allowed distance to the minimum.
        near: (P,) bool, whether the next step is computed accurately.
        done: (P,) bool, converged.
    """

    gradient: Tensor
    objective: Tensor
    allowed: Tensor
    near: Tensor
    done: Tensor

    @classmethod
    def of(cls, problems: Problems, point: Point, gap: float) -> _Progress:
        gradient, objective = problems.gradient(point), problems.objective(point)
        bound = problems.hessian(point).bound(gradient)
        allowed = problems.loss.allowed_gap(gap, problems.penalty(point), objective)
        if problems.stop is None:
            near = bound <= _NEAR * allowed
        else:
            near = sums(gradient, gradient, len(problems.C)).sqrt() <= problems.C * problems.stop
        return cls(gradient, objective, allowed, near, near & (bound <= allowed))

    def take(self, problems: Tensor, width: int) -> _Progress:
        gradient = self.gradient[:, columns_of(problems, width)]
        return _Progress(
            gradient, self.objective[problems], self.allowed[problems], self.near[problems], self.done[problems]
        )


def _descend(
    problems: Problems,
    start: Tensor,
    max_iter: int,
    gap: float,
    preconditioner: Preconditioner,
    interrupt: Callable[[Problems, Point], bool],
) -> Solution:
    """Fit all problems, computing in the precision of the loss."""
    rounding, width = ROUNDING[problems.loss.dtype], problems.loss.width
    W, point = start.clone(), problems.at(start)
    active = torch.arange(len(problems.C), device=start.device)
    n_iter = torch.full_like(active, max_iter)
    converged = torch.zeros_like(active, dtype=torch.bool)
    exhausted = stuck = no_gain = torch.zeros_like(converged)
    for iteration in range(max_iter + 1):
        progress = _Progress.of(problems, point, gap)
        done = progress.done | exhausted
        converged[active[done]] = True
        n_iter[active] = iteration
        W[:, columns_of(active, width)] = point.W
        kept = (~(done | stuck)).nonzero()[:, 0]
        if iteration == max_iter or not len(kept):
            break
        if len(kept) < len(active):
            active, problems, point, no_gain = active[kept], problems.take(kept), point.take(kept), no_gain[kept]
            progress = progress.take(kept, width)
        if interrupt(problems, point):
            return Solution(W, n_iter, converged, interrupted=True)
        tolerance = _TOLERANCE if iteration >= 2 else _FIRST_TOLERANCE
        allowed = torch.where(progress.near, progress.allowed, torch.inf)
        hessian = problems.hessian(point)
        step, unexplored = newton_direction(hessian, progress.gradient, tolerance, allowed / 2, preconditioner)
        slope = sums(progress.gradient, step, len(active))
        point, length = _advance(problems, point, step, slope, progress.objective, rounding)
        floor = rounding * progress.objective
        floor = torch.where(progress.near & (length == 1), torch.maximum(progress.allowed, floor), floor)
        had_no_gain, no_gain = no_gain, unexplored - slope / 2 <= floor
        exhausted = no_gain & had_no_gain  # twice: the rows inside the margin may change
        stuck = (length == 0) & ~no_gain
    return Solution(W, n_iter, converged)


def newton_direction(
    hessian: Hessian, gradient: Tensor, tolerance: float, allowed: Tensor, preconditioner: Preconditioner
) -> tuple[Tensor, Tensor]:
    """Solve hessian step = -gradient roughly, each problem for itself, by preconditioned conjugate gradients.

    Steps go on until the residual, as the preconditioner measures it, has fallen to `tolerance` of its length. In
    float64, which is for what is ill-conditioned, the last step must also gain little against those before it (Nash and
    Sofer 1990) where classes have preconditioners: a factor of the Hessian elsewhere can hide a residual that matters.

    Returns:
        The steps (D + 1, P * width), and bounds (P,) on how far they are from the minima of the quadratic models. Steps
        go on until these are at most `allowed` (P,), too.
    """
    width, n_problems = hessian.loss.width, len(allowed)
    budget = preconditioner.prepare(hessian, _MAX_CG_STEPS)
    norm = sums(gradient, gradient, n_problems).sqrt()
    residual = (-gradient / to_columns(norm, width)).to(hessian.curvature.dtype)  # keeps float32 in its range
    s = solution = torch.zeros_like(residual)
    active = torch.arange(n_problems, device=residual.device)
    p = z = preconditioner.apply(hessian, residual)
    rz = sums(residual, z, n_problems)
    stop, limit = rz * tolerance**2, (allowed / norm**2).to(rz.dtype)
    unexplored, gained = torch.ones_like(norm), torch.zeros_like(rz)
    for steps in range(1, _MAX_CG_STEPS + 1):
        preconditioner.count_step(hessian)
        product = hessian.product(p)
        alpha = rz / sums(p, product, len(active))
        gain = alpha * rz
        gained = gained + gain
        s = s + to_columns(alpha, width) * p
        residual = residual - to_columns(alpha, width) * product
        z = preconditioner.apply(hessian, residual)
        previous, rz = rz, sums(residual, z, len(active))
        bound = hessian.bound(residual)
        unexplored[active] = bound.to(unexplored.dtype)
        more = (rz > stop) | (bound > limit)
        if rz.dtype == torch.float64 and hessian.class_ids is not None:
            more |= (steps * gain > gained / 2) & (bound > _NO_RESIDUAL)
        more &= budget > steps
        if not more.all():
            solution[:, columns_of(active, width)] = s
            kept = more.nonzero()[:, 0]
            if not len(kept):
                break
            columns = columns_of(kept, width)
            hessian, s, residual, z, p = hessian.take(kept), *(part[:, columns] for part in (s, residual, z, p))
            parts = active, stop, limit, budget, gained, previous, rz
            active, stop, limit, budget, gained, previous, rz = (part[kept] for part in parts)
        p = z + to_columns(rz / previous, width) * p
    solution[:, columns_of(active, width)] = s
    return solution.double() * to_columns(norm, width), unexplored * norm**2


def _advance(
    problems: Problems, before: Point, step: Tensor, slope: Tensor, objective: Tensor, rounding: float
) -> tuple[Point, Tensor]:
    """Move along the steps, and return the lengths (P,) that were taken of them.

    The whole step is taken where the objective falls far enough (Armijo), else the minimum along the step is searched:
    halving alone zigzags where rows enter the margin after a hair's breadth, as they do for a large C.
    """
    after = problems.move(before, step)
    length = torch.ones_like(slope)
    bad = ~(problems.objective(after) <= objective * (1 + rounding) + _ARMIJO * slope)
    if bad.any():
        some = bad.nonzero()[:, 0]
        columns = columns_of(some, problems.loss.width)
        W, way = before.W[:, columns], step[:, columns]
        if not problems.loss.penalise_bias:
            W, way = W[:-1], way[:-1]
        values = before.values[:, columns].double()
        change = after.values[:, columns].double() - values
        products = sums(W, way, len(some)), sums(way, way, len(some))
        loss, C = problems.loss.take(some), problems.C[some]
        length[some] = line_search(loss, C, *products, values, change, slope[some])
        after = problems.move(before, step * to_columns(length, problems.loss.width))
    return after, length


def line_search(
    loss: Loss, C: Tensor, cross: Tensor, square: Tensor, values: Tensor, change: Tensor, slope: Tensor
) -> Tensor:
    """Find where in [0, 1] along a step the derivative of the objective, which grows, is near 0.

    Args:
        loss: Of P problems.
        C: (P,) float64, the weight of the losses.
        cross: (P,) float64, products of the penalised weights with the step.
        square: (P,) float64, squared lengths of the step.
        values: (N, P * width) float64, decision values where the problems are.
        change: (N, P * width) float64, what the whole step adds to them.
        slope: (P,) float64, the derivatives where the problems are, below 0.

    Returns:
        (P,) in [0, 1]; 0 where nothing lowers the objective.
    """
    low, high = torch.zeros_like(slope), torch.ones_like(slope)
    t, best = high, low
    for _ in range(_SEARCHES):
        _, derivatives, curvature = loss.evaluate(slice(None), values + change * to_columns(t, loss.width))
        derivative = cross + t * square + C * sums(derivatives, change, len(t))
        found = derivative.abs() <= _FLAT * slope.abs()
        low, high = torch.where(derivative <= 0, t, low), torch.where(derivative > 0, t, high)
        best = torch.where(found, t, low)
        if found.all():
            break
        growth = square + C * sums(loss.curve(curvature, change.clone()), change, len(t))
        guess = t - derivative / growth
        inside = (guess > low) & (guess < high)
        t = torch.where(found, t, torch.where(inside, guess, (low + high) / 2))
    return best
