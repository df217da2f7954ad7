"""Multinomial logistic regression, many problems at once, as scikit-learn's LogisticRegression defines it.

The weights W of a problem, a column a class (one column for two classes), minimise

    C sum_i -log p_i(y_i) + 1/2 |W|^2,    p_i = softmax(x_i W + b)

where the biases b are not regularised. All columns of all problems share the products with the rows (`products`). The
method is a truncated Newton method (Lin, Weng and Keerthi 2008): conjugate gradients on the Hessian, preconditioned by
the eigenvectors of X'X, which all problems share, then a line search. Problems that have converged leave the batch.

Rows of float32 are multiplied in float32 at first. Whatever then seems to have converged is measured again in float64,
and goes on in float64 where it has not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from featbench.solvers.linear_folds import Columns, Fold, Rows
from featbench.solvers.products import Preconditioner, SharedRows

SINGLE_GAP = 1e-6  # the least that float32 is good for
_SINGLE_STEPS = 50  # Newton steps after which what has not converged goes on in float64
_MAX_STEPS = 200  # of conjugate gradients
_TOLERANCE = 0.01  # of the squared length of the residual, as the preconditioner measures it
_LAST = 1e-4  # a step from which so much is left to go is taken to the end
_TINY = 1e-30
_ARMIJO = 1e-4
_HALVINGS = 30
_ROUNDING = {torch.float32: 1e-7, torch.float64: 1e-14}  # of an objective


@dataclass(frozen=True, eq=False)
class Problems:
    """P problems of K columns each.

    Attributes:
        rows: The rows, and how each column sees them, one problem after the other.
        labels: (N, P, 1) int64, the number of each row's class; any where the row is left out.
        used: (N, P, 1) float, 1 for rows to fit on, else 0. Its dtype is that of the computation.
        C: (P,) float64.
        width: K, the number of classes, or 1 for two.
    """

    rows: SharedRows
    labels: Tensor
    used: Tensor
    C: Tensor
    width: int

    @classmethod
    def of(
        cls,
        rows: SharedRows,
        labels: npt.NDArray[np.int64],
        numbers: Rows,
        folds: Sequence[Fold],
        Cs: Sequence[float],
    ) -> Problems:
        """Make a problem of each fold and C; `numbers` are the rows' own, as folds name them."""
        targets = [np.searchsorted(fold.classes, labels).clip(max=len(fold.classes) - 1) for fold in folds]
        used = torch.from_numpy(np.stack([np.isin(numbers, fold.kept) for fold in folds], axis=1)[..., None])
        C = torch.tensor(list(Cs), dtype=torch.float64)
        target = torch.from_numpy(np.stack(targets, axis=1)[..., None])
        return cls(rows, target, used.to(rows.X.dtype), C, len(folds[0].positive))

    def take(self, problems: Tensor) -> Problems:
        """Return the problems with these indices."""
        columns = (problems[:, None] * self.width + torch.arange(self.width)).flatten()
        labels, used = self.labels[:, problems], self.used[:, problems]
        return Problems(self.rows.take(columns), labels, used, self.C[problems], self.width)

    def with_others(self, values: Tensor) -> Tensor:
        """Turn (n, P * K) into (n, P, classes): of two classes, the first has the decision value 0."""
        values = values.reshape(len(values), -1, self.width)
        return torch.nn.functional.pad(values, (1, 0)) if self.width == 1 else values


@dataclass(frozen=True, eq=False)
class _Point:
    """Where problems are.

    Attributes:
        W: (D + 1, P, K) float64; the last row is of the biases.
        objective: (P,) float64.
        gradient: (D + 1, P, K) float64.
        shares: (N, P, classes) probabilities; 0 for rows left out.
        spread: (P, K) float64, the sum of p (1 - p).
    """

    W: Tensor
    objective: Tensor
    gradient: Tensor
    shares: Tensor
    spread: Tensor

    @classmethod
    def at(cls, problems: Problems, W: Tensor) -> _Point:
        """Go to W, in one pass over the rows."""
        n, count, width = len(problems.labels), len(problems.C), problems.width
        shares = problems.used.new_empty(n, count, max(width, 2))
        loss, spread = W.new_zeros(count), W.new_zeros(count, width)

        def residuals(rows: slice, values: Tensor) -> Tensor:
            here, labels, used = shares[rows], problems.labels[rows], problems.used[rows]
            logits = problems.with_others(values)
            logits = logits - logits.amax(2, keepdim=True)
            torch.exp(logits, out=here)
            total = here.sum(2, keepdim=True)
            loss.add_(((total.log() - logits.gather(2, labels)) * used).sum((0, 2)))
            here.mul_(used / total)
            own = here[..., -width:]
            spread.add_((own - own * own).sum(0))
            return here.scatter_add(2, labels, -used)[..., -width:].flatten(1)

        G = problems.rows.through(W.flatten(1).to(shares.dtype), residuals)
        weights = W.clone()
        weights[-1] = 0
        gradient = weights + problems.C[:, None] * G.double().reshape(W.shape)
        return cls(W, problems.C * loss + _dot(weights, weights) / 2, gradient, shares, spread)

    def take(self, problems: Tensor) -> _Point:
        """Return the problems with these indices."""
        W, gradient, shares = (part[:, problems] for part in (self.W, self.gradient, self.shares))
        return _Point(W, self.objective[problems], gradient, shares, self.spread[problems])

    def curvature(self, problems: Problems, V: Tensor) -> Tensor:
        """Multiply V (D + 1, P, K) by the Hessians."""

        def through_softmax(rows: slice, values: Tensor) -> Tensor:
            shares = self.shares[rows]
            product = shares * problems.with_others(values)
            product -= shares * product.sum(2, keepdim=True)
            return product[..., -problems.width :].flatten(1)

        G = problems.rows.through(V.flatten(1), through_softmax).reshape(V.shape)
        product = G * problems.C[:, None].to(V.dtype)
        product[:-1] += V[:-1]
        return product

    def above(self, problems: Problems) -> Tensor:
        """Return (P,) about how far the objective is above its minimum at most.

        That is half the squared gradient over the curvature, which is at least 1 but for the biases.
        """
        weights, biases = self.gradient[:-1], self.gradient[-1]
        square = biases**2 / (problems.C[:, None] * self.spread).clamp(min=_TINY)
        return (_dot(weights, weights) + square.sum(1)) / 2

    def enough(self, gap: float) -> Tensor:
        """Return (P,) how far it may be: a share of |W|^2 / 2, which is the smaller part of it for a small C."""
        return gap * (_dot(self.W[:-1], self.W[:-1]) / 2 + 1e-9 * self.objective)


def _dot(A: Tensor, B: Tensor) -> Tensor:
    return (A * B).sum((0, 2))


def minimise(problems: Problems, preconditioner: Preconditioner, max_iter: int, gap: float) -> list[Columns]:
    """Fit all problems.

    Args:
        problems: The problems.
        preconditioner: Of the rows, without a bias.
        max_iter: Newton steps allowed.
        gap: How far the objective may be above its minimum, as a share of |W|^2 / 2: W is then off by at most the root
            of this share of its length.

    Returns:
        The columns of each problem; `n_iter` and `converged` are of length 1.
    """
    count, width = len(problems.C), problems.width
    W = torch.zeros(problems.rows.X.shape[1] + 1, count, width, dtype=torch.float64)
    n_iter = torch.zeros(count, dtype=torch.int64)
    if problems.used.dtype == torch.float32:
        W, n_iter = _descend(problems, W, min(max_iter, _SINGLE_STEPS), preconditioner, max(gap, SINGLE_GAP))
    problems = replace(problems, used=problems.used.double())
    point = _Point.at(problems, W)
    converged = point.above(problems) <= point.enough(gap)
    open_ = (~converged & (n_iter < max_iter)).nonzero()[:, 0]
    if len(open_):
        rest, left = problems.take(open_), max_iter - int(n_iter[open_].max())
        W[:, open_], further = _descend(rest, W[:, open_], left, preconditioner, gap)
        point = _Point.at(rest, W[:, open_])
        converged[open_] = point.above(rest) <= point.enough(gap)
        n_iter[open_] += further
    if width > 1:
        W = W - W.mean(2, keepdim=True)  # the same probabilities with the least weights, and biases as scikit-learn's
    each = (slice(problem, problem + 1) for problem in range(count))
    return [Columns(W[:, one].flatten(1).numpy(), n_iter[one].numpy(), converged[one].numpy()) for one in each]


def _descend(
    problems: Problems, W: Tensor, max_iter: int, preconditioner: Preconditioner, gap: float
) -> tuple[Tensor, Tensor]:
    """Fit all problems, computing in their precision, as far as that goes; return W, and (P,) int64 Newton steps."""
    W, n_iter = W.clone(), torch.zeros(W.shape[1], dtype=torch.int64)
    alive, point = torch.arange(W.shape[1]), _Point.at(problems, W.clone())
    moved = torch.ones_like(alive, dtype=torch.bool)
    for iteration in range(max_iter + 1):
        W[:, alive], n_iter[alive] = point.W, iteration
        going = (moved & (point.above(problems) > point.enough(gap))).nonzero()[:, 0]
        if iteration == max_iter or not len(going):
            break
        if len(going) < len(alive):
            alive, problems, point = alive[going], problems.take(going), point.take(going)
        step = _direction(problems, point, preconditioner, gap)
        point, moved = _advance(problems, point, step)
    return W, n_iter


def _advance(problems: Problems, before: _Point, step: Tensor) -> tuple[_Point, Tensor]:
    """Go along the steps, halved until the objective falls enough.

    Returns:
        The point, and (P,) bool, whether there may be more to gain in this precision.
    """
    slope, rounding = _dot(before.gradient, step), _ROUNDING[before.shares.dtype] * before.objective
    length = torch.ones_like(slope)
    for _ in range(_HALVINGS):
        after = _Point.at(problems, before.W + length[:, None] * step)
        fall = after.objective - before.objective
        # Of a convex function whose values have no digits left, the slope still tells (Hager and Zhang 2005).
        flat = (fall <= 10 * rounding) & (_dot(after.gradient, step) <= -0.5 * slope)
        good = (fall <= _ARMIJO * length * slope) | flat
        if good.all():
            break
        length = torch.where(good, length, length / 2)
    return after, good & (-slope > rounding)


def _direction(problems: Problems, point: _Point, preconditioner: Preconditioner, gap: float) -> Tensor:
    """Solve Hessian s = -gradient (D + 1, P, K) roughly, by preconditioned conjugate gradients."""
    norm = _dot(point.gradient, point.gradient).sqrt()[:, None]
    residual = (-point.gradient / norm).to(point.shares.dtype)  # of length 1, which keeps float32 in its range
    weights = (problems.C[:, None] * point.spread).to(residual.dtype).clamp(min=_TINY)
    alive = torch.arange(len(problems.C))
    s = solution = torch.zeros_like(residual)
    p = z = _precondition(preconditioner, problems, weights, residual)
    rz = _dot(residual, z)
    left = point.enough(gap) / point.above(problems) / 4
    stop = rz * torch.where(left < _LAST, _TOLERANCE, left.clamp(max=0.5)).to(rz.dtype)
    for _ in range(_MAX_STEPS):
        curved = point.curvature(problems, p)
        alpha = (rz / _dot(p, curved))[:, None]
        s = s + alpha * p
        residual = residual - alpha * curved
        z = _precondition(preconditioner, problems, weights, residual)
        previous, rz = rz, _dot(residual, z)
        going = rz > stop
        if not going.all():
            solution[:, alive] = s
            kept = going.nonzero()[:, 0]
            if not len(kept):
                break
            alive, problems, point = alive[kept], problems.take(kept), point.take(kept)
            weights, stop, previous, rz = weights[kept], stop[kept], previous[kept], rz[kept]
            s, residual, z, p = s[:, kept], residual[:, kept], z[:, kept], p[:, kept]
        p = z + (rz / previous)[:, None] * p
    solution[:, alive] = s
    return solution.double() * norm


def _precondition(preconditioner: Preconditioner, problems: Problems, weights: Tensor, R: Tensor) -> Tensor:
    Z = preconditioner.apply(R.flatten(1), (weights / len(problems.labels)).flatten()).view_as(R)
    Z[-1] = R[-1] / weights  # the biases are not regularised
    return Z
