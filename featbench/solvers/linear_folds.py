"""Splits of the rows as columns of one problem of linear models, each with its own standardisation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_class_weight

from featbench.solvers.newton import Solution
from featbench.solvers.problem import Problem
from featbench.solvers.products import ScaledRows, SharedRows
from featbench.solvers.streamed import FeatureRows, StreamedRows, blocks, read_rows

Rows = npt.NDArray[np.intp]
Floats = npt.NDArray[np.float64]
# float32 keeps the digits of a fold's own scaled features while its scaling is not far from that of all rows.
_SINGLE_UP_TO = 100.0


@dataclass(frozen=True)
class LinearSettings:
    """The parameters of `sklearn.svm.LinearSVC` beside C, with its defaults."""

    tol: float = 1e-4
    fit_intercept: bool = True
    intercept_scaling: float = 1.0
    class_weight: Mapping[Any, float] | str | None = None
    max_iter: int = 1000

    @property
    def bias(self) -> float:
        """The value of the feature that carries the bias; 0 for none."""
        return float(self.intercept_scaling) if self.fit_intercept else 0.0


@dataclass(frozen=True)
class Scaling:
    """What standardises features: x becomes (x - mean) * inverse.

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

    def apply(self, X: npt.NDArray[Any]) -> Floats:
        """Standardise (n, D)."""
        return (X.astype(np.float64) - self.mean) * self.inverse

    def near(self, other: Scaling) -> bool:
        """Say whether float32 keeps the digits of features that the other has standardised."""
        varies = self.inverse > 0
        closer = self.inverse[varies] / other.inverse[varies]
        shift = np.abs(self.mean - other.mean)[varies] * self.inverse[varies]
        return bool((closer < _SINGLE_UP_TO).all() and (shift < _SINGLE_UP_TO).all())


@dataclass(frozen=True, eq=False)
class Fold:
    """One split, ready to fit.

    Attributes:
        kept: Rows to fit on.
        held_out: Rows to score on.
        scaling: Of the rows to fit on.
        classes: Labels among the rows to fit on, ascending.
        positive: (K,) the label of each column.
        weights: (2, K), the weight of the losses of the other classes' rows, and of the column's own class.
    """

    kept: Rows
    held_out: Rows
    scaling: Scaling
    classes: npt.NDArray[np.int64]
    positive: npt.NDArray[np.int64]
    weights: Floats

    def narrow(self, columns: slice) -> Fold:
        """Return some of the columns."""
        return replace(self, positive=self.positive[columns], weights=self.weights[:, columns])


@dataclass(frozen=True, eq=False)
class Columns:
    """Fitted columns of a fold.

    Attributes:
        W: (D + 1, K) float64, weights of the features as the fold standardises them; the last row is of the bias.
        n_iter: (K,) int64, Newton steps.
        converged: (K,) bool.
    """

    W: Floats
    n_iter: npt.NDArray[np.int64]
    converged: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, solution: Solution, columns: slice) -> Columns:
        """Take some columns out of a solution."""
        parts = solution.W[:, columns], solution.n_iter[columns], solution.converged[columns]
        return cls(*(part.cpu().numpy() for part in parts))

    def beside(self, other: Columns) -> Columns:
        """Put columns beside these."""
        return Columns(
            np.concatenate([self.W, other.W], axis=1),
            np.concatenate([self.n_iter, other.n_iter]),
            np.concatenate([self.converged, other.converged]),
        )


def make_fold(y: npt.NDArray[np.int64], kept: Rows, held_out: Rows, scaling: Scaling, settings: LinearSettings) -> Fold:
    """Make a split ready.

    Raises:
        ValueError: The rows to fit on are of one class.
    """
    classes = np.unique(y[kept])
    if len(classes) < 2:
        raise ValueError(f"the rows to fit on hold only one class: {classes}")
    factors = compute_class_weight(settings.class_weight, classes=classes, y=y[kept])
    # As liblinear: with more than two classes, a class weight is that of the class's own rows in its own column.
    weights = factors[:, None] if len(classes) == 2 else np.stack([np.ones(len(classes)), factors])
    return Fold(kept, held_out, scaling, classes, classes[1:] if len(classes) == 2 else classes, weights)


def fit_scaler(X: FeatureRows, rows: Rows, scaler: StandardScaler | None = None) -> StandardScaler:
    """Fit a scaler, else scikit-learn's default one, on some rows, block by block."""
    scaler = scaler or StandardScaler()
    for part in blocks(len(rows), X.shape[1]):
        scaler.partial_fit(read_rows(X, rows[part]))
    return scaler


def scaled_rows(
    X: FeatureRows, used: Rows, scaling: Scaling, dtype: npt.DTypeLike, device: torch.device
) -> torch.Tensor | ScaledRows:
    """Standardise some rows for all columns: at once, or those on disk whenever they are read."""
    if isinstance(X, StreamedRows):
        mean, inverse = (torch.from_numpy(part).to(device) for part in (scaling.mean, scaling.inverse))
        return ScaledRows(X[used], mean, inverse, torch.from_numpy(np.empty(0, dtype)).dtype)
    scaled = np.empty((len(used), X.shape[1]), dtype)
    for part in blocks(*scaled.shape):
        scaled[part] = scaling.apply(X[used[part]])
    return torch.from_numpy(scaled).to(device)


def shared_rows(
    X: FeatureRows, folds: Sequence[Fold], device: torch.device
) -> tuple[Rows, Scaling, torch.Tensor | ScaledRows]:
    """Standardise the rows of all folds once: their numbers, the scaling, and the rows in what keeps their digits."""
    used = np.unique(np.concatenate([fold.kept for fold in folds]))
    scaling = folds[0].scaling if len(folds) == 1 else Scaling.of(fit_scaler(X, used))
    single = X.dtype == np.float32 and all(fold.scaling.near(scaling) for fold in folds)
    return used, scaling, scaled_rows(X, used, scaling, np.float32 if single else np.float64, device)


def in_batches(folds: Sequence[Fold], most: int) -> Iterator[list[tuple[int, Fold]]]:
    """Divide the columns of folds into batches of at most so many; each part has the number of its fold."""
    batch: list[tuple[int, Fold]] = []
    room = most
    for number, fold in enumerate(folds):
        start, width = 0, len(fold.positive)
        while start < width:
            columns = slice(start, min(start + room, width))
            batch.append((number, fold.narrow(columns)))
            room -= columns.stop - columns.start
            start = columns.stop
            if not room:
                yield batch
                batch, room = [], most
    if batch:
        yield batch


def make_problem(
    rows: torch.Tensor | ScaledRows,
    labels: npt.NDArray[np.int64],
    used: Rows,
    folds: Sequence[Fold],
    scaling: Scaling,
    bias: float,
) -> Problem:
    """Make a problem of the columns of folds.

    Args:
        rows: (N, D), standardised by `scaling`.
        labels: (N,) int64.
        used: (N,) their numbers, as folds name rows.
        folds: One after the other.
        scaling: Of all rows.
        bias: The value of the feature that carries the bias.
    """
    target = torch.from_numpy(labels).to(rows.device)[:, None]
    kin = torch.from_numpy(np.concatenate([fold.positive for fold in folds])).to(rows.device)
    signs = torch.empty(len(labels), len(kin), dtype=rows.dtype, device=rows.device)
    costs = torch.empty_like(signs)
    start = 0
    for fold in folds:
        columns = slice(start, start + len(fold.positive))
        is_positive = target == kin[columns]
        others, own = torch.from_numpy(fold.weights).to(rows.device, rows.dtype)
        is_kept = torch.from_numpy(np.isin(used, fold.kept)).to(rows.device)[:, None]
        signs[:, columns] = torch.where(is_positive, 1.0, -1.0)
        costs[:, columns] = torch.where(is_positive, own, others) * is_kept
        start = columns.stop
    return Problem(seen_by(rows, folds, scaling, bias), signs, costs, kin)


def seen_by(rows: torch.Tensor | ScaledRows, folds: Sequence[Fold], scaling: Scaling, bias: float) -> SharedRows:
    """Let each column of folds see rows (N, D), which are standardised by `scaling`, as its fold standardises them."""
    deviation = np.where(scaling.inverse > 0, 1 / np.where(scaling.inverse > 0, scaling.inverse, 1), 0)
    columns = [len(fold.positive) for fold in folds]
    means = np.stack([(fold.scaling.mean - scaling.mean) * scaling.inverse for fold in folds], axis=1)
    inverses = np.stack([deviation * fold.scaling.inverse for fold in folds], axis=1)
    mean, inverse = (torch.from_numpy(part.repeat(columns, axis=1)).to(rows.device) for part in (means, inverses))
    return SharedRows(rows, mean, inverse, bias)


def score_fold(
    X: FeatureRows,
    y: npt.NDArray[np.int64],
    fold: Fold,
    fitted: Sequence[Columns],
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
