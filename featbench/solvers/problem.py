"""Support vector machines to fit, their objectives and gradients, and the search along a step."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from featbench.solvers.products import SharedRows

COLUMN_BYTES = 128  # a row and column: twelve float64 of costs, slacks and what becomes of them; the rest for factors
_VALUES = 2**23  # rows x columns fitted at a time on a CPU
_GPU_SHARE = 0.5  # of a GPU's free memory, for columns
_SEARCHES = 60
_FLAT = 0.1  # of the derivative where a line search starts


@dataclass(frozen=True, eq=False)
class Problem:
    """The columns to fit.

    Attributes:
        rows: The rows, and how each column sees them.
        signs: (N, K) float, 1 for the column's class and -1 for the others.
        costs: (N, K) float, the weight of a row; 0 leaves it out. Its dtype is that of the computation.
        kin: (K,) int64; columns of one number are alike, as those of one class in several folds are.
    """

    rows: SharedRows
    signs: Tensor
    costs: Tensor
    kin: Tensor

    def take(self, columns: Tensor) -> Problem:
        """Return the columns with these indices."""
        return Problem(self.rows.take(columns), self.signs[:, columns], self.costs[:, columns], self.kin[columns])

    def double(self) -> Problem:
        """Return the same in float64."""
        return replace(self, signs=self.signs.double(), costs=self.costs.double())


@dataclass(frozen=True, eq=False)
class Point:
    """Where columns are.

    Attributes:
        w: (D + 1, K) float64.
        slack: (N, K), 1 - sign * decision value.
        loss: (K,) float64, for C = 1.
        pull: (D + 1, K) float64, the gradient of `loss`.
    """

    w: Tensor
    slack: Tensor
    loss: Tensor
    pull: Tensor

    @classmethod
    def at(cls, problem: Problem, w: Tensor) -> Point:
        """Go to w (D + 1, K), in one pass over the rows."""
        return cls._reach(problem, w, w, None)

    def plus(self, problem: Problem, step: Tensor) -> Point:
        """Go a step (D + 1, K), in one pass over the rows."""
        return Point._reach(problem, self.w + step, step, self.slack)

    @classmethod
    def _reach(cls, problem: Problem, w: Tensor, step: Tensor, before: Tensor | None) -> Point:
        slack, one = torch.empty_like(problem.costs), problem.costs.new_ones(())
        loss = torch.zeros(w.shape[1], dtype=torch.float64, device=w.device)

        def losses(rows: slice, values: Tensor) -> Tensor:
            signs, here = problem.signs[rows], slack[rows]
            torch.addcmul(one if before is None else before[rows], values, signs, value=-1, out=here)
            hinge = here.clamp(min=0)
            pull = hinge * problem.costs[rows]
            loss.add_((hinge * pull).sum(0))
            return pull.mul_(signs).mul_(-2)

        pull = problem.rows.through(step.to(slack.dtype), losses)
        return cls(w, slack, loss, pull.double())

    def take(self, columns: Tensor) -> Point:
        """Return the columns with these indices."""
        return Point(self.w[:, columns], self.slack[:, columns], self.loss[columns], self.pull[:, columns])

    def objective(self, C: float) -> Tensor:
        """Return the objectives (K,)."""
        return C * self.loss + (self.w * self.w).sum(0) / 2

    def gradient(self, C: float) -> Tensor:
        """Return their gradients (D + 1, K)."""
        return self.w + C * self.pull


def columns_at_once(n: int, device: torch.device) -> int:
    """Return how many columns of n rows are fitted at a time, the rows being on the device already."""
    values = _VALUES if device.type == "cpu" else int(_GPU_SHARE * free_bytes(device)) // COLUMN_BYTES
    return max(1, values // n)


def free_bytes(device: torch.device) -> int:
    """Return what a GPU has free for tensors."""
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + unused


def gradient_at_zero(problem: Problem) -> Tensor:
    """Return the norms (K,) of the gradients at W = 0 for C = 1; others are proportional to C."""
    width = problem.rows.X.shape[1] + 1
    start = problem.costs.new_zeros(width, problem.costs.shape[1], dtype=torch.float64)
    norms: Tensor = Point.at(problem, start).pull.norm(dim=0)
    return norms


def stopping_norms(problem: Problem, tol: float) -> Tensor:
    """Return liblinear's stopping rule for C = 1: tol * min(positive, negative) / N * |gradient at 0|, as (K,)."""
    used = problem.costs > 0
    total = used.sum(0)
    positive = (used & (problem.signs > 0)).sum(0)
    share = torch.minimum(positive, total - positive).clamp(min=1) / total.clamp(min=1)
    return tol * share * gradient_at_zero(problem)


def line_search(
    cross: Tensor, square: Tensor, slack: Tensor, change: Tensor, costs: Tensor, slope: Tensor, C: float
) -> Tensor:
    """Find where in [0, 1] along a step the derivative of the objective is near 0; it grows piecewise linearly.

    Args:
        cross: (K,) float64, products of the weights with the step.
        square: (K,) float64, squared lengths of the step.
        slack: (N, K), where the columns are.
        change: (N, K), what the whole step takes off the slack.
        costs: (N, K), the weight of a row.
        slope: (K,) float64, the derivatives where the columns are, below 0.
        C: The weight of the losses.

    Returns:
        (K,) in [0, 1]; 0 where nothing lowers the objective.
    """
    slack = slack.double()
    pulled = costs * change * (-2 * C)
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
