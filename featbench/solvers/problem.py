"""Linear models to fit, many at once: objectives, gradients and Hessians of rows, a loss and a C.

Problem p minimises 1/2 |W_p|^2 + C_p loss_p(X W_p), where X ends in a feature that carries the bias; the loss
says whether the bias is penalised (`losses`). All columns of all problems share the products with X (`products`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from featbench.solvers.losses import Loss, SquaredHinge
from featbench.solvers.products import SharedRows

_SMALLEST = 1e-30  # curvature of a bias; that of saturated losses is 0


def sums(A: Tensor, B: Tensor, n_problems: int) -> Tensor:
    """Return the scalar products (P,) of the columns (n, P * width) of each problem."""
    return (A * B).sum(0).view(n_problems, -1).sum(1)


def to_columns(values: Tensor, width: int) -> Tensor:
    """Repeat a value of each problem (P,) for its columns: (P * width,)."""
    return values if width == 1 else values.repeat_interleave(width)


def columns_of(problems: Tensor, width: int) -> Tensor:
    """Return the indices of the columns of problems (P,): (P * width,)."""
    return (problems[:, None] * width + torch.arange(width, device=problems.device)).flatten()


@dataclass(frozen=True, eq=False)
class Point:
    """Weights, and the losses and derivatives there.

    Attributes:
        W: (D + 1, P * width) float64.
        values: (N, P * width), decision values.
        loss: (P,) float64, for C = 1.
        loss_gradient: (D + 1, P * width) float64, the gradient of `loss`.
        curvature: (N, P, ...), second derivatives of the loss, as `Loss.curve` takes them.
        curvature_sums: (P * width,) float64, sums over rows of those on the diagonal.
    """

    W: Tensor
    values: Tensor
    loss: Tensor
    loss_gradient: Tensor
    curvature: Tensor
    curvature_sums: Tensor

    def take(self, problems: Tensor) -> Point:
        """Return the problems with these indices."""
        own = columns_of(problems, self.W.shape[1] // len(self.loss))
        W, values, gradient = self.W[:, own], self.values[:, own], self.loss_gradient[:, own]
        return Point(W, values, self.loss[problems], gradient, self.curvature[:, problems], self.curvature_sums[own])


@dataclass(frozen=True, eq=False)
class Hessian:
    """The Hessians of P problems at a point, in the precision of the computation.

    Attributes:
        rows: The rows, and how each column sees them.
        loss: Its `curve` is used; any of the problems will do.
        C: (P * width,), the weight of the losses.
        curvature: As in `Point`.
        totals: (P * width,), C times the sums of second derivatives on the diagonal, above 0.
        class_ids: As in `Problems`.
    """

    rows: SharedRows
    loss: Loss
    C: Tensor
    curvature: Tensor
    totals: Tensor
    class_ids: Tensor | None

    def take(self, problems: Tensor) -> Hessian:
        """Return the problems with these indices."""
        own = columns_of(problems, self.loss.width)
        ids = None if self.class_ids is None else self.class_ids[problems]
        parts = self.C[own], self.curvature[:, problems], self.totals[own]
        return Hessian(self.rows.take(own), self.loss, *parts, ids)

    def product(self, V: Tensor) -> Tensor:
        """Multiply V (D + 1, P * width), in one pass over the rows."""
        curved = self.rows.blockwise_product(V, lambda part, values: self.loss.curve(self.curvature[part], values))
        curved *= self.C
        return _add_penalised(curved, V, self.loss)

    def bound(self, R: Tensor) -> Tensor:
        """Bound (P,) how far quadratic models with gradients R (D + 1, P * width) are from their minima.

        Half the squared gradient over the curvature, which is at least 1 but for biases that are not penalised.
        """
        squares = R * R
        if not self.loss.penalise_bias:
            squares[-1] /= self.totals
        return squares.sum(0).view(-1, self.loss.width).sum(1) / 2


@dataclass(frozen=True, eq=False)
class Problems:
    """P problems.

    Attributes:
        rows: The rows, and how each column sees them.
        loss: Of their decision values.
        C: (P,) float64, the weight of the losses.
        class_ids: (P,) int64, or None; columns of one id have Hessians alike, as those of one class in several folds.
        stop: (P,) float64, or None; a converged gradient is at most C times this long.
    """

    rows: SharedRows
    loss: Loss
    C: Tensor
    class_ids: Tensor | None = None
    stop: Tensor | None = None

    def take(self, problems: Tensor) -> Problems:
        """Return the problems with these indices."""
        ids, stop = (None if part is None else part[problems] for part in (self.class_ids, self.stop))
        rows = self.rows.take(columns_of(problems, self.loss.width))
        return Problems(rows, self.loss.take(problems), self.C[problems], ids, stop)

    def double(self) -> Problems:
        """Return the same in float64."""
        return replace(self, loss=self.loss.double())

    def zeros(self) -> Tensor:
        """Return weights (D + 1, P * width) float64 of 0."""
        size = self.rows.X.shape[1] + 1, len(self.C) * self.loss.width
        return torch.zeros(size, dtype=torch.float64, device=self.C.device)

    def at(self, W: Tensor) -> Point:
        """Evaluate at W (D + 1, P * width), in one pass over the rows."""
        return self._evaluate(W, W, None)

    def move(self, point: Point, step: Tensor) -> Point:
        """Evaluate a step (D + 1, P * width) further, in one pass over the rows."""
        return self._evaluate(point.W + step, step, point.values)

    def _evaluate(self, W: Tensor, change: Tensor, before: Tensor | None) -> Point:
        loss, curvature_sums = W.new_zeros(len(self.C)), W.new_zeros(W.shape[1])
        values = torch.empty(self.rows.X.shape[0], W.shape[1], dtype=self.loss.dtype, device=W.device)
        curvatures: list[Tensor] = []  # one, made with the first block, which tells its shape

        def derivatives(part: slice, product: Tensor) -> Tensor:
            values[part] = product if before is None else product.add_(before[part])
            block_loss, derivative, curvature = self.loss.evaluate(part, values[part])
            loss.add_(block_loss)
            curvature_sums.add_(self.loss.diagonal(curvature))
            if not curvatures:
                curvatures.append(curvature.new_empty(len(values), *curvature.shape[1:]))
            curvatures[0][part] = curvature
            return derivative

        gradient = self.rows.blockwise_product(change.to(values.dtype), derivatives)
        return Point(W, values, loss, gradient.double(), curvatures[0], curvature_sums)

    def penalty(self, point: Point) -> Tensor:
        """Return half the squared lengths (P,) of the penalised weights."""
        W = point.W if self.loss.penalise_bias else point.W[:-1]
        return sums(W, W, len(self.C)) / 2

    def objective(self, point: Point) -> Tensor:
        """Return the objectives (P,)."""
        return self.C * point.loss + self.penalty(point)

    def gradient(self, point: Point) -> Tensor:
        """Return the gradients (D + 1, P * width)."""
        gradient = to_columns(self.C, self.loss.width) * point.loss_gradient
        return _add_penalised(gradient, point.W, self.loss)

    def hessian(self, point: Point) -> Hessian:
        """Return the Hessians at a point."""
        C = to_columns(self.C, self.loss.width)
        totals = (C * point.curvature_sums).clamp(min=_SMALLEST)
        dtype = self.loss.dtype
        return Hessian(self.rows, self.loss, C.to(dtype), point.curvature, totals.to(dtype), self.class_ids)


def _add_penalised(gradient: Tensor, W: Tensor, loss: Loss) -> Tensor:
    """Add the penalty's part for weights W to a gradient, in place."""
    if loss.penalise_bias:
        return gradient.add_(W)
    gradient[:-1] += W[:-1]
    return gradient


def svc_problems(rows: SharedRows, loss: SquaredHinge, class_ids: Tensor, tol: float) -> Problems:
    """Make problems of squared hinges with liblinear's stopping rule; their C is 1.

    It is |gradient| <= tol * min(positive, negative) / N * |gradient at 0|, which are proportional to C.
    """
    used = loss.used_rows()
    total = used.sum(0)
    positive = (used & (loss.signs > 0)).sum(0)
    share = torch.minimum(positive, total - positive).clamp(min=1) / total.clamp(min=1)
    problems = Problems(rows, loss, torch.ones_like(share, dtype=torch.float64), class_ids)
    return replace(problems, stop=tol * share * problems.at(problems.zeros()).loss_gradient.norm(dim=0))
