"""Squared-hinge problems in the space of the rows: for few rows, and for a large C on wide features.

The optimum of a problem is W = X'A with A (N,), 0 for the rows outside the margin. A Newton step solves

    (K_ss + 1 / (2C cost)) A_s = sign_s

for the rows s inside the margin, where K = XX' (Chapelle, Training a Support Vector Machine in the Primal, 2007). That
costs |s|^3 / 3 whatever the condition is, where conjugate gradients on W (`newton`) take more and more steps the larger
C is. The loop is separate from that of `newton` because steps are Cholesky solves instead of conjugate gradients
and optimality is measured by the duality gap; the loss and the line search are shared. Softmax has no such sparse form:
`row_features` turns its few rows into as few features for `newton`.

Only the factors are in single precision: they solve for the distance to the optimum, which is measured in float64, so
that rounding costs at most one more step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from featbench.solvers.losses import SquaredHinge
from featbench.solvers.newton import ROUNDING, line_search
from featbench.solvers.products import with_bias

_ARMIJO = 0.01
_SMALLEST = 1e-300  # cost: alpha is 0 for unused rows
_ROUNDING = ROUNDING[torch.float64]
DOUBLE_UP_TO = 1024  # rows: products of so few are computed in float64


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
    def of(cls, rows: Tensor, double_up_to: int = DOUBLE_UP_TO) -> Gram:
        """Multiply rows (N, D) float64 with each other, in float64 up to so many."""
        used = rows if len(rows) <= double_up_to else rows.float()
        return cls(rows, used @ used.T, rows.norm(dim=1))

    def decisions(self, A: Tensor) -> Tensor:
        """Return XX'A (N, K) float64 of A (N, K) float64."""
        return self.products @ A if self.products.dtype == A.dtype else self.rows @ self.weights(A)

    def weights(self, A: Tensor) -> Tensor:
        """Return X'A (D, K) float64 of A (N, K) float64."""
        return self.rows.T @ A

    def solve(self, rows: Tensor, ridge: Tensor, wanted: Tensor) -> Tensor | None:
        """Solve (products + diag(ridge)) x = wanted for some rows by a Cholesky factor.

        Returns:
            (n,) float64, of a factor in float64 where the products' own precision has none; None where none has.
        """
        for dtype in dict.fromkeys((self.products.dtype, torch.float64)):
            equations = self.products[rows[:, None], rows].to(dtype)
            equations.diagonal().add_(ridge.to(dtype))
            solution = _solve_in_place(equations, wanted.to(dtype))
            if solution is not None:
                return solution.double()
        return None


def _solve_in_place(equations: Tensor, wanted: Tensor) -> Tensor | None:
    """Solve symmetric equations, which are overwritten; None where they have no factor."""
    if equations.device.type != "cpu":
        factor, info = torch.linalg.cholesky_ex(equations)
        return None if int(info) else torch.cholesky_solve(wanted[:, None], factor)[:, 0]
    try:
        upper = scipy.linalg.cho_factor(equations.numpy().T, overwrite_a=True, check_finite=False)
    except np.linalg.LinAlgError:
        return None
    return torch.from_numpy(scipy.linalg.cho_solve(upper, wanted.numpy(), check_finite=False))


@dataclass(frozen=True, eq=False)
class RowPoint:
    """Where problems are.

    Attributes:
        A: (N, P) float64; the weights are X'A.
        values: (N, P) float64, the decision values XX'A.
    """

    A: Tensor
    values: Tensor

    def take(self, problems: Tensor) -> RowPoint:
        """Return the problems with these indices."""
        return RowPoint(self.A[:, problems], self.values[:, problems])


@dataclass(frozen=True, eq=False)
class RowProblems:
    """Problems on the same rows.

    Attributes:
        gram: Of the rows.
        loss: (N, P) float64.
        C: The weight of the losses.
        stop: (P,) float64, as in `Problems`.
    """

    gram: Gram
    loss: SquaredHinge
    C: float
    stop: Tensor

    def take(self, problems: Tensor) -> RowProblems:
        """Return the problems with these indices."""
        return replace(self, loss=self.loss.take(problems), stop=self.stop[problems])

    def objective(self, point: RowPoint) -> Tensor:
        """Return the objectives (P,)."""
        return (point.A * point.values).sum(0) / 2 + self.C * self.loss.evaluate(slice(None), point.values)[0]

    def gradient_norm(self, point: RowPoint) -> Tensor:
        """Return the lengths (P,) of the gradients."""
        gradient = point.A + self.C * self.loss.evaluate(slice(None), point.values)[1]
        return (gradient * self.gram.decisions(gradient)).sum(0).clamp(min=0).sqrt()

    def gap(self, point: RowPoint) -> Tensor:
        """Bound (P,) from above how far objectives are from their minima: by the dual objective at max(0, sign A)."""
        signed = self.loss.signs * point.A
        alpha = signed.clamp(min=0)
        clipped = alpha - signed
        # |w + X'(sign clipped)|^2 by Cauchy and Schwarz: the clipped part is tiny near the optimum.
        square = ((point.A + 2 * self.loss.signs * clipped) * point.values).sum(0)
        square = square + (self.gram.lengths @ clipped) ** 2
        dual = (alpha - alpha**2 / (4 * self.C * self.loss.costs.clamp(min=_SMALLEST))).sum(0) - square / 2
        return self.objective(point) - dual

    def start(self, inside: Tensor) -> RowPoint:
        """Solve for the rows (N, P) bool taken to be inside the margin."""
        origin = RowPoint(torch.zeros_like(self.loss.signs), torch.zeros_like(self.loss.signs))
        step = self._newton_steps(origin, inside & (self.loss.costs > 0))
        return RowPoint(step, self.gram.decisions(step))

    def advance(self, point: RowPoint) -> tuple[RowPoint, Tensor, Tensor]:
        """Take a Newton step, or the best part of it.

        Returns:
            The point there, and (P,) bool: exhausted: float64 cannot improve it; stuck: no step
            lowers the objective.
        """
        _, derivative, curvature = self.loss.evaluate(slice(None), point.values)
        step = self._newton_steps(point, curvature > 0)
        change = self.gram.decisions(step)
        cross, square = (point.A * change).sum(0), (step * change).sum(0)
        objective, slope = self.objective(point), cross + self.C * (derivative * change).sum(0)
        exhausted = (slope.abs() / 2 <= _ROUNDING * objective) & (step != 0).any(0)
        after = RowPoint(point.A + step, point.values + change)
        length = torch.ones_like(slope)
        bad = ~(self.objective(after) <= objective * (1 + _ROUNDING) + _ARMIJO * slope)
        if bad.any():
            some = bad.nonzero()[:, 0]
            C = torch.full_like(slope[some], self.C)
            parts = cross[some], square[some], point.values[:, some], change[:, some], slope[some]
            length[some] = line_search(self.loss.take(some), C, *parts)
            after = RowPoint(point.A + length * step, point.values + length * change)
        return after, exhausted, ~exhausted & ((length == 0) | (step == 0).all(0))

    def _newton_steps(self, point: RowPoint, inside: Tensor) -> Tensor:
        """Return how A (N, P) changes by Newton steps from where these rows (N, P) bool are inside the margin.

        A problem whose equations have no factor does not change.
        """
        step = torch.zeros_like(point.A)
        for number in range(step.shape[1]):
            parts = self.loss.signs, self.loss.costs, point.A, point.values
            sign, cost, A, values = (part[:, number] for part in parts)
            rows, leaving = inside[:, number].nonzero()[:, 0], (~inside[:, number] & (A != 0)).nonzero()[:, 0]
            ridge = 1 / (2 * self.C * cost[rows])
            products = self.gram.products[rows[:, None], leaving]
            removed = (products @ A[leaving].to(products.dtype)).double()
            change = self.gram.solve(rows, ridge, sign[rows] - values[rows] - ridge * A[rows] + removed)
            if change is not None:
                step[leaving, number] = -A[leaving]
                step[rows, number] = change
        return step


def minimise_rows(problems: RowProblems, point: RowPoint, max_iter: int, gap: float) -> tuple[RowPoint, Tensor, Tensor]:
    """Fit all problems.

    Args:
        problems: The problems.
        point: Where to begin.
        max_iter: Newton steps allowed.
        gap: Allowed distance to the minimum, as a share of the objective.

    Returns:
        The point there, (P,) int64 Newton steps, and (P,) bool whether they converged.
    """
    active = torch.arange(point.A.shape[1], device=point.A.device)
    fitted = point.take(active)
    n_iter, converged = torch.full_like(active, max_iter), torch.zeros_like(active, dtype=torch.bool)
    exhausted = stuck = torch.zeros_like(converged)
    for iteration in range(max_iter + 1):
        done = problems.gap(point) <= gap * problems.objective(point)
        near = done.nonzero()[:, 0]
        if len(near):
            some = problems.take(near)
            done[near] = some.gradient_norm(point.take(near)) <= problems.C * some.stop
        done |= exhausted
        converged[active[done]] = True
        n_iter[active] = iteration
        fitted.A[:, active], fitted.values[:, active] = point.A, point.values
        kept = (~(done | stuck)).nonzero()[:, 0]
        if iteration == max_iter or not len(kept):
            break
        problems, active = problems.take(kept), active[kept]
        point, exhausted, stuck = problems.advance(point.take(kept))
    return fitted, n_iter, converged


def row_features(X: Tensor, bias: float) -> tuple[Tensor, Tensor]:
    """Turn rows X (N, D) with their bias feature into N features.

    Optimal weights are sums of rows, so they lie in the space that the rows span.

    Returns:
        The rows (N, N) float64, and (D + 1, N) float64, the map from their weights to those of X and the bias feature.
    """
    basis, triangle = torch.linalg.qr(with_bias(X.double(), bias).T)
    return triangle.T.contiguous(), basis
