"""Losses of linear models: squared hinge and softmax, of decision values, for many problems at once.

A loss holds labels and row weights; features, weights and C are added by `problem`, and `newton` minimises the sum.
P problems have `width` columns of decision values each, one problem after the other: (N, P * width).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class SquaredHinge:
    """cost * max(0, 1 - sign * value)^2, one column a problem. The bias is penalised like a weight, as in liblinear.

    Attributes:
        signs: (N, P) float, 1 for the column's class and -1 for the others.
        costs: (N, P) float, the weight of a row; 0 for unused rows.
    """

    signs: Tensor
    costs: Tensor
    penalise_bias: ClassVar[bool] = True
    width: ClassVar[int] = 1

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the computation."""
        return self.costs.dtype

    def used_rows(self) -> Tensor:
        """Return the training rows of each problem, (N, P) bool."""
        return self.costs > 0

    def take(self, problems: Tensor) -> SquaredHinge:
        """Return the problems with these indices."""
        return SquaredHinge(self.signs[:, problems], self.costs[:, problems])

    def double(self) -> SquaredHinge:
        """Return the same in float64."""
        return SquaredHinge(self.signs.double(), self.costs.double())

    def evaluate(self, rows: slice, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Evaluate at decision values (n, P) of some rows.

        Returns:
            The losses (P,), summed over the rows, their derivatives (n, P), and their second derivatives (n, P).
        """
        signs, costs = self.signs[rows], self.costs[rows]
        hinge = torch.addcmul(values.new_ones(()), values, signs, value=-1).clamp_(min=0)
        weighted = hinge * costs
        loss = (hinge * weighted).sum(0)
        return loss, weighted.mul_(signs).mul_(-2), ((hinge > 0) * costs).mul_(2)

    def curve(self, curvature: Tensor, values: Tensor) -> Tensor:
        """Multiply values (n, P) by the second derivatives, in place."""
        return values.mul_(curvature)

    def diagonal(self, curvature: Tensor) -> Tensor:
        """Return the sums (P,) of the second derivatives."""
        return curvature.sum(0)

    def allowed_gap(self, gap: float, penalty: Tensor, objective: Tensor) -> Tensor:
        """Return the allowed distance (P,) to the minimum: a share of the objective."""
        return gap * objective


@dataclass(frozen=True, eq=False)
class Softmax:
    """-log of the class's probability, a column a class (one column for two); the bias is free, as in scikit-learn.

    Attributes:
        labels: (N, P, 1) int64, the number of each row's class; arbitrary for unused rows.
        used: (N, P, 1) float, 1 for training rows, else 0.
        width: Number of classes, or 1 for two.
    """

    labels: Tensor
    used: Tensor
    width: int
    penalise_bias: ClassVar[bool] = False

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the computation."""
        return self.used.dtype

    def used_rows(self) -> Tensor:
        """Return the training rows of each problem, (N, P) bool."""
        return self.used[..., 0] > 0

    def take(self, problems: Tensor) -> Softmax:
        """Return the problems with these indices."""
        return Softmax(self.labels[:, problems], self.used[:, problems], self.width)

    def double(self) -> Softmax:
        """Return the same in float64."""
        return replace(self, used=self.used.double())

    def evaluate(self, rows: slice, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Evaluate at decision values (n, P * width) of some rows.

        Returns:
            The losses (P,), summed over the rows, their derivatives (n, P * width), and the probabilities (n, P,
            classes), 0 for unused rows; `curve` takes them.
        """
        labels, used = self.labels[rows], self.used[rows].to(values.dtype)
        logits = self._with_reference(values)
        logits = logits - logits.amax(2, keepdim=True)
        shares = logits.exp()
        total = shares.sum(2, keepdim=True)
        loss = ((total.log() - logits.gather(2, labels)) * used).sum((0, 2))
        shares.mul_(used / total)
        return loss, shares.scatter_add(2, labels, -used)[..., -self.width :].flatten(1), shares

    def curve(self, curvature: Tensor, values: Tensor) -> Tensor:
        """Multiply values (n, P * width) by the second derivatives, diag(p) - pp' for each row."""
        product = curvature * self._with_reference(values)
        product -= curvature * product.sum(2, keepdim=True)
        return product[..., -self.width :].flatten(1)

    def diagonal(self, curvature: Tensor) -> Tensor:
        """Return the sums (P * width,) of p (1 - p)."""
        own = curvature[..., -self.width :]
        return (own - own * own).sum(0).flatten()

    def allowed_gap(self, gap: float, penalty: Tensor, objective: Tensor) -> Tensor:
        """Return a share of |W|^2 / 2, which is the smaller part of the objective for a small C.

        The weights, and so the probabilities, are then off by at most the root of this share of their length.
        """
        return gap * (penalty + 1e-9 * objective)

    def _with_reference(self, values: Tensor) -> Tensor:
        """Turn (n, P * width) into (n, P, classes): of two classes, the first has the decision value 0."""
        values = values.reshape(len(values), -1, self.width)
        return torch.nn.functional.pad(values, (1, 0)) if self.width == 1 else values


Loss = SquaredHinge | Softmax
