"""Linear support vector machines in the space of the rows: for few rows, and for a large C on wide features.

The optimum of a column is W = X'A with A (N,), 0 for the rows outside the margin. A Newton step solves

    (K_ss + 1 / (2C cost)) A_s = sign_s

for the rows s inside the margin, where K = XX' (Chapelle, Training a Support Vector Machine in the Primal, 2007). That
costs |s|^3 / 3 whatever the condition is, where conjugate gradients on W (`newton`) take more and more steps the larger
C is. Only the factors are in single precision: they solve for the distance to the optimum, which is measured in
float64, so that rounding costs a step at most.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from featbench.solvers.gram import Gram
from featbench.solvers.problem import line_search

_ARMIJO = 0.01
_ROUNDING = 1e-13  # of an objective
_TINY = 1e-300  # alpha is 0 where a row is left out


@dataclass(eq=False)
class RowColumns:
    """Columns to fit, and where they are.

    Attributes:
        signs: (N, K) float64.
        costs: (N, K) float64, the weight of a row; 0 leaves it out.
        A: (N, K) float64, the weights are X'A.
        f: (N, K) float64, the decision values XX'A.
    """

    signs: Tensor
    costs: Tensor
    A: Tensor
    f: Tensor

    def take(self, columns: Tensor) -> RowColumns:
        """Return the columns with these indices."""
        return RowColumns(*(part[:, columns] for part in (self.signs, self.costs, self.A, self.f)))

    def plus(self, step: Tensor, change: Tensor) -> RowColumns:
        """Go a step (N, K), which changes the decision values (N, K)."""
        return replace(self, A=self.A + step, f=self.f + change)

    def slack(self) -> Tensor:
        """Return 1 - sign * decision value, (N, K)."""
        return 1 - self.signs * self.f

    def objective(self, C: float) -> Tensor:
        """Return the objectives (K,)."""
        return (self.A * self.f).sum(0) / 2 + C * (self.costs * self.slack().clamp(min=0) ** 2).sum(0)

    def gradient_norm(self, gram: Gram, C: float) -> Tensor:
        """Return the lengths (K,) of the gradients."""
        gradient = self.A - 2 * C * self.signs * self.costs * self.slack().clamp(min=0)
        return (gradient * gram.decisions(gradient)).sum(0).clamp(min=0).sqrt()

    def gap(self, C: float, lengths: Tensor) -> Tensor:
        """Bound (K,) from above how far the objectives are from their minima: by the dual objective at max(0, sign A).

        Args:
            C: The weight of the losses.
            lengths: (N,), of the rows.
        """
        own = self.signs * self.A
        alpha = own.clamp(min=0)
        cut = alpha - own
        # |w + X'(sign cut)|^2 by Cauchy and Schwarz: what is cut off is next to nothing where it matters.
        square = ((self.A + 2 * self.signs * cut) * self.f).sum(0) + (lengths @ cut) ** 2
        dual = (alpha - alpha**2 / (4 * C * self.costs.clamp(min=_TINY))).sum(0) - square / 2
        return self.objective(C) - dual


def begin_rows(gram: Gram, signs: Tensor, costs: Tensor, inside: Tensor, C: float) -> RowColumns:
    """Take a Newton step from where the rows (N, K) bool are inside the margin, wherever that is."""
    nothing = torch.zeros_like(signs)
    columns = RowColumns(signs, costs, nothing, nothing)
    step = _newton_steps(gram, columns, inside & (costs > 0), C)
    return columns.plus(step, gram.decisions(step))


def minimise_rows(
    gram: Gram, columns: RowColumns, C: float, stop: Tensor, max_iter: int, gap: float
) -> tuple[RowColumns, Tensor, Tensor]:
    """Fit all columns for one C.

    Args:
        gram: Of the rows.
        columns: Where to begin.
        C: The weight of the losses.
        stop: (K,) float64, `stopping_norms` of the problem.
        max_iter: Newton steps allowed.
        gap: Of the objective, how far above its minimum it may still be.

    Returns:
        The columns fitted, (K,) int64 Newton steps, and (K,) bool whether they converged.
    """
    alive = torch.arange(columns.A.shape[1], device=columns.A.device)
    fitted = columns.take(alive)
    n_iter, converged = torch.full_like(alive, max_iter), torch.zeros_like(alive, dtype=torch.bool)
    exhausted = stuck = torch.zeros_like(converged)
    for iteration in range(max_iter + 1):
        done = columns.gap(C, gram.lengths) <= gap * columns.objective(C)
        near = done.nonzero()[:, 0]
        if len(near):
            done[near] = columns.take(near).gradient_norm(gram, C) <= C * stop[alive[near]]
        done |= exhausted
        converged[alive[done]] = True
        n_iter[alive] = iteration
        fitted.A[:, alive], fitted.f[:, alive] = columns.A, columns.f
        kept = (~(done | stuck)).nonzero()[:, 0]
        if iteration == max_iter or not len(kept):
            break
        columns, alive = columns.take(kept), alive[kept]
        columns, exhausted, stuck = _advance(gram, columns, C)
    return fitted, n_iter, converged


def _advance(gram: Gram, columns: RowColumns, C: float) -> tuple[RowColumns, Tensor, Tensor]:
    """Take a Newton step, or the best part of it.

    Returns:
        The columns there, and (K,) bool: whether float64 had nothing left to gain, and whether nothing lowers the rest.
    """
    before, slack = columns.objective(C), columns.slack()
    step = _newton_steps(gram, columns, (slack > 0) & (columns.costs > 0), C)
    change = gram.decisions(step)
    cross, square, own = (columns.A * change).sum(0), (step * change).sum(0), columns.signs * change
    slope = cross - 2 * C * (columns.costs * own * slack.clamp(min=0)).sum(0)
    exhausted = (slope.abs() / 2 <= _ROUNDING * before) & (step != 0).any(0)
    after = columns.plus(step, change)
    length = torch.ones_like(slope)
    bad = ~(after.objective(C) <= before * (1 + _ROUNDING) + _ARMIJO * slope)
    if bad.any():
        some = bad.nonzero()[:, 0]
        parts = cross[some], square[some], slack[:, some], own[:, some], columns.costs[:, some], slope[some]
        length[some] = line_search(*parts, C)
        after = columns.plus(length * step, length * change)
    return after, exhausted, ~exhausted & ((length == 0) | (step == 0).all(0))


def _newton_steps(gram: Gram, columns: RowColumns, inside: Tensor, C: float) -> Tensor:
    """Return how A (N, K) changes by Newton steps from where these rows (N, K) bool are inside the margin.

    A column whose equations have no factor does not change.
    """
    step = torch.zeros_like(columns.A)
    for number in range(step.shape[1]):
        sign, cost, A, f = (part[:, number] for part in (columns.signs, columns.costs, columns.A, columns.f))
        rows, leaving = inside[:, number].nonzero()[:, 0], (~inside[:, number] & (A != 0)).nonzero()[:, 0]
        ridge = 1 / (2 * C * cost[rows])
        left = gram.times(rows, leaving, A[leaving])
        change = gram.solve(rows, ridge, sign[rows] - f[rows] - ridge * A[rows] + left)
        if change is not None:
            step[leaving, number] = -A[leaving]
            step[rows, number] = change
    return step
