"""Splits of the rows as columns of one problem of linear models, each with its own standardisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_class_weight

from featbench.solvers.losses import SquaredHinge
from featbench.solvers.newton import Solution
from featbench.solvers.problem import Problems, svc_problems
from featbench.solvers.products import ScaledRows, SharedRows
from featbench.solvers.streamed import FeatureRows, StreamedRows, blocks, read_rows

Rows = npt.NDArray[np.intp]
Floats = npt.NDArray[np.float64]
# float32 keeps the digits of a fold's own scaled features while its scaling is not far from that of all rows.
_SINGLE_UP_TO = 100.0


@dataclass(frozen=True)
class LinearSettings:
    """The parameters of a linear classifier besides C, by scikit-learn's names and with LinearSVC's defaults.

    Softmax regression has only `max_iter`.
    """

    loss: Literal["squared_hinge", "softmax"] = "squared_hinge"
    tol: float = 1e-4
    fit_intercept: bool = True
    intercept_scaling: float = 1.0
    class_weight: Mapping[Any, float] | str | None = None
    max_iter: int = 1000

    @classmethod
    def of(cls, estimator: Any, **changes: Any) -> LinearSettings:
        """Take over those parameters that an estimator has; `changes` replace them."""
        names = [field.name for field in fields(cls) if hasattr(estimator, field.name)]
        return cls(**{name: getattr(estimator, name) for name in names} | changes)

    @property
    def bias(self) -> float:
        """The value of the feature that carries the bias; 0 for none."""
        return float(self.intercept_scaling) if self.fit_intercept else 0.0


@dataclass(frozen=True)
class Scaling:
    """Standardises features: x becomes (x - mean) * inverse.

    Attributes:
        mean: (D,) float64.
        inverse: (D,) float64, one over the deviation; 0 for a constant feature.
    """

    mean: Floats
    inverse: Floats

    @classmethod
    def of(cls, scaler: StandardScaler) -> Scaling:
        """Take over what a scaler was fitted to."""
        constant = scaler.scale_ != np.sqrt(scaler.var_)  # scikit-learn puts 1 for their deviation
        return cls(scaler.mean_, np.where(constant, 0.0, 1 / scaler.scale_))

    @classmethod
    def identity(cls, width: int) -> Scaling:
        """Leave features as they are."""
        return cls(np.zeros(width), np.ones(width))

    def apply(self, X: npt.NDArray[Any]) -> Floats:
        """Standardise (n, D)."""
        return (X.astype(np.float64) - self.mean) * self.inverse

    def is_near(self, other: Scaling) -> bool:
        """Whether float32 keeps the digits of this scaling on features that the other has standardised."""
        varies = self.inverse > 0
        closer = self.inverse[varies] / other.inverse[varies]
        shift = np.abs(self.mean - other.mean)[varies] * self.inverse[varies]
        return bool((closer < _SINGLE_UP_TO).all() and (shift < _SINGLE_UP_TO).all())

    def to_raw(self, W: Floats, bias: float) -> tuple[Floats, Floats]:
        """Turn weights (D + 1, K) of scaled features into (K, D) of raw ones, and their intercepts (K,)."""
        coef = np.ascontiguousarray((W[:-1] * self.inverse[:, None]).T)
        return coef, W[-1] * bias - coef @ self.mean


@dataclass(frozen=True, eq=False)
class Fold:
    """One split, ready to fit.

    Attributes:
        train: Rows to fit on.
        held_out: Rows to score on.
        scaling: Of the training rows.
        classes: Labels among the training rows, ascending.
        positive: (K,) the label of each column.
        class_weights: (2, K), of the losses of the other classes' rows, and of the column's own class.
    """

    train: Rows
    held_out: Rows
    scaling: Scaling
    classes: npt.NDArray[np.int64]
    positive: npt.NDArray[np.int64]
    class_weights: Floats


@dataclass(frozen=True, eq=False)
class FittedColumns:
    """Fitted columns of a fold.

    Attributes:
        W: (D + 1, K) float64, weights of the features as the fold standardises them; the last row is of the bias.
        n_iter: (K,) int64, Newton steps; (1,) where the columns were fitted together.
        converged: (K,) or (1,) bool.
    """

    W: Floats
    n_iter: npt.NDArray[np.int64]
    converged: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, solution: Solution, problems: slice, width: int = 1) -> FittedColumns:
        """Take problems of so many columns each out of a solution."""
        W = solution.W[:, problems.start * width : problems.stop * width]
        return cls(*(part.cpu().numpy() for part in (W, solution.n_iter[problems], solution.converged[problems])))


def make_fold(
    y: npt.NDArray[np.int64],
    train: Rows,
    held_out: Rows,
    scaling: Scaling,
    class_weight: Mapping[Any, float] | str | None = None,
) -> Fold:
    """Make a split ready.

    Raises:
        ValueError: The training rows are of one class.
    """
    classes = np.unique(y[train])
    if len(classes) < 2:
        raise ValueError(f"the rows to fit on hold only one class: {classes}")
    factors = compute_class_weight(class_weight, classes=classes, y=y[train])
    # As liblinear: with more than two classes, a class weight is that of the class's own rows in its own column.
    weights = factors[:, None] if len(classes) == 2 else np.stack([np.ones(len(classes)), factors])
    return Fold(train, held_out, scaling, classes, classes[1:] if len(classes) == 2 else classes, weights)


def fit_scaler(X: FeatureRows, rows: Rows, scaler: StandardScaler | None = None) -> StandardScaler:
    """Fit a scaler, else scikit-learn's default one, on some rows, block by block."""
    scaler = scaler or StandardScaler()
    for part in blocks(len(rows), X.shape[1]):
        scaler.partial_fit(read_rows(X, rows[part]))
    return scaler


def fold_scaling(X: FeatureRows, train: Rows, standardize: bool = True) -> Scaling:
    """Return the scaling of a fold: by the mean and deviation of its training rows, or none."""
    return Scaling.of(fit_scaler(X, train)) if standardize else Scaling.identity(X.shape[1])


def shared_rows(
    X: FeatureRows, folds: Sequence[Fold], device: torch.device
) -> tuple[Rows, Scaling, torch.Tensor | ScaledRows]:
    """Standardise the rows of all folds once, in float32 if that keeps their digits.

    Returns:
        The numbers of the rows, their scaling, and the scaled rows; those on disk are scaled whenever they are read.
    """
    used = np.unique(np.concatenate([fold.train for fold in folds]))
    same = all(fold.scaling is folds[0].scaling for fold in folds)
    scaling = folds[0].scaling if same else Scaling.of(fit_scaler(X, used))
    single = X.dtype == np.float32 and all(fold.scaling.is_near(scaling) for fold in folds)
    if isinstance(X, StreamedRows):
        mean, inverse = (torch.from_numpy(part).to(device) for part in (scaling.mean, scaling.inverse))
        return used, scaling, ScaledRows(X[used], mean, inverse, torch.float32 if single else torch.float64)
    scaled = np.empty((len(used), X.shape[1]), np.float32 if single else np.float64)
    for part in blocks(*scaled.shape):
        scaled[part] = scaling.apply(X[used[part]])
    return used, scaling, torch.from_numpy(scaled).to(device)


def make_svc_problems(
    rows: SharedRows,
    labels: npt.NDArray[np.int64],
    used: Rows,
    folds: Sequence[Fold],
    columns: Sequence[tuple[int, int]],
    tol: float,
    sample_weight: Floats | None = None,
) -> Problems:
    """Make a problem of each of some columns of folds.

    Args:
        rows: N rows, as the columns see them (`seen_by`).
        labels: (N,) int64.
        used: (N,) their numbers, as folds name rows.
        folds: The folds.
        columns: A fold's number and a column's number there.
        tol: Of liblinear's stopping rule.
        sample_weight: (N,) float64, factors of the losses; all 1 where None.
    """
    device, weight = rows.X.device, np.ones(len(used)) if sample_weight is None else sample_weight
    target = torch.from_numpy(labels).to(device)
    row_weights = {
        number: torch.from_numpy(weight * np.isin(used, folds[number].train)).to(device)
        for number in {number for number, _ in columns}
    }
    signs = torch.empty(len(labels), len(columns), dtype=rows.X.dtype, device=device)
    costs = torch.empty_like(signs)
    for place, (number, column) in enumerate(columns):
        is_positive = target == int(folds[number].positive[column])
        others, own = folds[number].class_weights[:, column].tolist()
        signs[:, place] = torch.where(is_positive, 1.0, -1.0)
        costs[:, place] = torch.where(is_positive, own, others) * row_weights[number]
    class_ids = torch.tensor([int(folds[number].positive[column]) for number, column in columns], device=device)
    return svc_problems(rows, SquaredHinge(signs, costs), class_ids, tol)


def seen_by(rows: torch.Tensor | ScaledRows, folds: Sequence[Fold], scaling: Scaling, bias: float) -> SharedRows:
    """Give each column the scaling of its fold, on rows (N, D) that `scaling` has standardised already."""
    if all(fold.scaling is scaling for fold in folds):
        return SharedRows(rows, None, None, bias)
    deviation = np.where(scaling.inverse > 0, 1 / np.where(scaling.inverse > 0, scaling.inverse, 1), 0)
    means = np.stack([(fold.scaling.mean - scaling.mean) * scaling.inverse for fold in folds], axis=1)
    inverses = np.stack([deviation * fold.scaling.inverse for fold in folds], axis=1)
    mean, inverse = (torch.from_numpy(part).to(rows.device) for part in (means, inverses))
    return SharedRows(rows, mean, inverse, bias)


def score_fold(
    X: FeatureRows,
    y: npt.NDArray[np.int64],
    fold: Fold,
    fitted: Sequence[FittedColumns],
    bias: float,
    device: str = "cpu",
) -> list[tuple[float, bool]]:
    """Score a fold's columns, of one parameter after the other, on the rows held out; and say whether all converged."""
    right = np.zeros(len(fitted))
    weights = [torch.from_numpy(columns.W).to(device) for columns in fitted]
    for part in blocks(len(fold.held_out), X.shape[1]):
        rows = fold.held_out[part]
        scaled = torch.from_numpy(fold.scaling.apply(read_rows(X, rows))).to(device)
        for number, W in enumerate(weights):
            values = scaled @ W[:-1] + W[-1] * bias
            chosen = (values[:, 0] > 0).long() if len(fold.classes) == 2 else values.argmax(dim=1)
            right[number] += (fold.classes[chosen.cpu().numpy()] == y[rows]).sum()
    return [
        (float(count / len(fold.held_out)), bool(columns.converged.all()))
        for count, columns in zip(right, fitted, strict=True)
    ]
