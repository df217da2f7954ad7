"""k nearest neighbours: for each block of rows a matrix product and a top-k, for one k or a whole grid of them."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

Rows = npt.NDArray[np.intp]
Floats = npt.NDArray[np.float64]
_BLOCK_VALUES = 2**24  # similarities held at a time: 64 MB of float32


class NearestNeighbours(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """k nearest neighbours by exhaustive search.

    The parameters and their meaning are those of `sklearn.neighbors.KNeighborsClassifier(algorithm="brute")`. Which
    rows are nearest is decided in the precision of X; their distances are then computed in float64.

    Args:
        n_neighbors: k.
        metric: "euclidean", or "cosine": 1 - the cosine of the angle; a row of zeros is at distance 1 from all others.
        weights: Of the votes: "uniform", or "distance" for the inverse of the distance; if rows are at distance 0, only
            they vote.
        device: Where torch computes, as in "cpu" or "cuda".

    Attributes:
        classes_: (n_classes,), the labels.
        X_: (N, D) float, the training rows; minus their mean for "euclidean", scaled to length 1 for "cosine".
        y_: (N,) intp, their indices in `classes_`.
        mean_: (D,) float, the mean subtracted; zeros for "cosine".

    Examples:
        >>> from sklearn.datasets import load_digits
        >>> from featbench.solvers import NearestNeighbours
        >>> X, y = load_digits(return_X_y=True)
        >>> model = NearestNeighbours(3, metric="cosine", weights="distance").fit(X[:1000], y[:1000])
        >>> distances, rows = model.kneighbors(X[1000:1002])
        >>> rows.shape
        (2, 3)
        >>> round(model.score(X[1000:], y[1000:]), 2)
        0.96
    """

    _parameter_constraints: dict[str, Any] = {  # noqa: RUF012 (the name and the type are scikit-learn's)
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "metric": [StrOptions({"cosine", "euclidean"})],
        "weights": [StrOptions({"uniform", "distance"})],
        "device": [str],
    }

    def __init__(
        self, n_neighbors: int = 5, *, metric: str = "euclidean", weights: str = "uniform", device: str = "cpu"
    ) -> None:
        self.n_neighbors = n_neighbors
        self.metric = metric
        self.weights = weights
        self.device = device

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any) -> Self:
        """Keep the rows.

        Args:
            X: (N, D) float, finite.
            y: (N,) labels.

        Raises:
            ValueError: A parameter or an array is invalid.
        """
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], order="C")
        check_classification_targets(y)
        self.classes_, self.y_ = np.unique(y, return_inverse=True)
        # Far from the origin |a|^2 - 2ab + |b|^2 cancels; distances stay the same when all rows move.
        self.mean_ = X.mean(axis=0, dtype=np.float64).astype(X.dtype) * (self.metric == "euclidean")
        self.X_ = self._centred(X)
        return self

    def kneighbors(
        self, X: Any, n_neighbors: int | None = None, *, block_values: int = _BLOCK_VALUES
    ) -> tuple[Floats, Rows]:
        """Find the nearest training rows.

        Args:
            X: (M, D) float, finite.
            n_neighbors: Replaces the parameter.
            block_values: Similarities held at a time.

        Returns:
            (M, k) float64 distances, ascending, and (M, k) indices of rows of `X_`.

        Raises:
            ValueError: There are fewer training rows than neighbours, or X is invalid.
        """
        check_is_fitted(self)
        k = self.n_neighbors if n_neighbors is None else n_neighbors
        if k > len(self.X_):
            raise ValueError(
                f"Expected n_neighbors <= n_samples_fit, but n_neighbors = {k}, n_samples_fit = {len(self.X_)}"
            )
        X = self._centred(validate_data(self, X, dtype=[np.float64, np.float32], order="C", reset=False))
        size = max(1, block_values // len(self.X_))
        found = [self._nearest(X[start : start + size], k) for start in range(0, len(X), size)]
        return np.concatenate([d for d, _ in found]), np.concatenate([rows for _, rows in found])

    def predict_proba(self, X: Any) -> Floats:
        """Return each class's share of the votes, (M, n_classes) float64."""
        distances, rows = self.kneighbors(X)
        return vote(self.y_[rows], distances, len(self.classes_), self.weights)

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Return the class with the most votes, (M,); of equals the first."""
        chosen = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[chosen])

    def _centred(self, X: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if self.metric == "euclidean":
            return np.asarray(X - self.mean_)
        length = np.linalg.norm(X.astype(np.float64), axis=1, keepdims=True)
        return np.asarray(np.divide(X, length, out=np.zeros(X.shape), where=length > 0), dtype=X.dtype)

    def _nearest(self, queries: npt.NDArray[Any], k: int) -> tuple[Floats, Rows]:
        import torch

        dtype = np.promote_types(queries.dtype, self.X_.dtype)
        query, train = (torch.from_numpy(part.astype(dtype, copy=False)).to(self.device) for part in (queries, self.X_))
        similarity = query @ train.T
        if self.metric == "euclidean":
            similarity = similarity.mul_(2).sub_((train * train).sum(1))
        rows = similarity.topk(k, dim=1).indices.cpu().numpy()
        distances = np.empty(rows.shape)
        double = queries.astype(np.float64)
        for rank in range(k):
            neighbours = self.X_[rows[:, rank]].astype(np.float64)
            if self.metric == "euclidean":
                distances[:, rank] = np.linalg.norm(double - neighbours, axis=1)
            else:
                distances[:, rank] = np.clip(1 - np.einsum("ij,ij->i", double, neighbours), 0, 2)
        order = np.argsort(distances, axis=1, kind="stable")
        return np.take_along_axis(distances, order, axis=1), np.take_along_axis(rows, order, axis=1)


def vote(labels: Rows, distances: Floats, n_classes: int, weights: str) -> Floats:
    """Count the votes of neighbours.

    Args:
        labels: (M, k) classes of the neighbours, in [0, n_classes).
        distances: (M, k) float64.
        n_classes: Number of classes.
        weights: "uniform" or "distance".

    Returns:
        (M, n_classes) float64, rows of sum 1.
    """
    count = np.ones(distances.shape)
    if weights == "distance":
        zero = distances == 0
        with np.errstate(divide="ignore", over="ignore"):
            count = np.where(zero.any(axis=1, keepdims=True), zero, 1 / distances)
    votes = np.zeros((len(labels), n_classes))
    np.add.at(votes, (np.arange(len(labels))[:, None], labels), count)
    return np.asarray(votes / votes.sum(axis=1, keepdims=True))


def neighbours_grid(
    X: npt.NDArray[Any], y: npt.NDArray[np.int64], splits: Sequence[tuple[Rows, Rows]], machines: Sequence[Any]
) -> list[list[tuple[float, bool | None]]]:
    """Score every machine on every split; the neighbours of one metric are searched once for all k.

    Args:
        X: (N, D) float, finite.
        y: (N,) int64 labels.
        splits: (rows to fit on, rows to score on).
        machines: With the parameters of `NearestNeighbours`.

    Returns:
        For every machine and every split: the accuracy, and None, because nothing has to converge.

    Raises:
        ValueError: A machine has more neighbours than a split has rows.
    """
    results: list[list[tuple[float, bool | None]]] = [[] for _ in machines]
    for kept, held_out in splits:
        found = {}
        for metric in {machine.metric: None for machine in machines}:
            largest_k = max(machine.n_neighbors for machine in machines if machine.metric == metric)
            model = NearestNeighbours(largest_k, metric=metric).fit(X[kept], y[kept])
            distances, rows = model.kneighbors(X[held_out])
            found[metric] = model, distances, model.y_[rows]
        for machine, result in zip(machines, results, strict=True):
            model, distances, labels = found[machine.metric]
            k = machine.n_neighbors
            votes = vote(labels[:, :k], distances[:, :k], len(model.classes_), machine.weights)
            result.append((float((model.classes_[votes.argmax(axis=1)] == y[held_out]).mean()), None))
    return results
