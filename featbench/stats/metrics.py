"""Metrics of a test set, and the intervals of accuracies and other proportions.

A class counts as never predicted where the test has five images of it or more, and none is predicted as it. A model
that finds half of a class misses all of five images with a chance of 3%; of two images with 25%, which means little.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from featbench.errors import DataError

MIN_TEST_IMAGES = 5  # of a class that can count as never predicted


@dataclass(frozen=True)
class Metrics:
    """Metrics of one set of predictions, in [0, 1], and a count; the fields are columns of results.csv."""

    accuracy: float
    balanced_accuracy: float
    macro_precision: float
    macro_recall: float
    macro_f1: float
    never_predicted: int


def classification_metrics(labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], n_classes: int) -> Metrics:
    """Compute the metrics of results.csv as scikit-learn defines them (zero_division=0).

    Macro averages run over the classes that occur among labels or predictions, balanced accuracy over those that occur
    among labels. A class that no row is predicted as has precision 0.

    Args:
        labels: True classes, (N,) int64 in [0, n_classes).
        predicted: Predicted classes, (N,) int64 in [0, n_classes).
        n_classes: Number of classes.

    Raises:
        DataError: There are no rows.
    """
    if labels.size == 0:
        raise DataError("there are no test rows to measure on; the test split is empty")
    confusion = confusion_matrix(labels, predicted, n_classes)
    hits, n_true, n_predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    return Metrics(
        accuracy=float(hits.sum() / labels.size),
        **{name: float(value[()]) for name, value in macro_metrics(hits, n_true, n_predicted).items()},
        never_predicted=int(never_predicted(n_true, n_predicted).sum()),
    )


def never_predicted(n_true: npt.NDArray[np.int64], n_predicted: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Say which classes are never predicted, though they have enough test images to tell: (K,) bool.

    Args:
        n_true: Test images of each class, (K,) int64.
        n_predicted: Test images predicted as each class, (K,) int64.
    """
    return np.asarray((n_true >= MIN_TEST_IMAGES) & (n_predicted == 0))


def confusion_matrix(
    labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], n_classes: int
) -> npt.NDArray[np.int64]:
    """Count rows by true class (rows of the matrix) and predicted class: (n_classes, n_classes) int64."""
    counts = np.bincount(labels * n_classes + predicted, minlength=n_classes**2)
    return counts.reshape(n_classes, n_classes).astype(np.int64)


def macro_metrics(
    hits: npt.NDArray[np.int64], n_true: npt.NDArray[np.int64], n_predicted: npt.NDArray[np.int64]
) -> dict[str, npt.NDArray[np.float64]]:
    """Compute balanced accuracy and the macro averages from counts; many sets of predictions at once.

    Args:
        hits: Rows of each class that were predicted right, (..., K) int64.
        n_true: Rows of each class, (..., K) int64 or what broadcasts to it.
        n_predicted: Rows predicted as each class, (..., K) int64.

    Returns:
        A field of `Metrics` -> (...) float64 in [0, 1].
    """
    n_true = np.broadcast_to(n_true, hits.shape)
    occurs = n_true + n_predicted > 0
    recall = ratio(hits, n_true)
    return {
        "balanced_accuracy": _mean_where(recall, n_true > 0),
        "macro_precision": _mean_where(ratio(hits, n_predicted), occurs),
        "macro_recall": _mean_where(recall, occurs),
        "macro_f1": _mean_where(ratio(2 * hits, n_true + n_predicted), occurs),
    }


def wilson_interval(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion, without continuity correction.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).

    Args:
        correct: Number of successes, 0 to total.
        total: Number of trials.
        confidence: Of the two-sided interval, in (0, 1).

    Returns:
        Its lower and upper end, in [0, 1].

    Raises:
        DataError: There are no trials.
    """
    if total == 0:
        raise DataError("there are no test rows to measure on; the test split is empty")
    low, high = wilson_intervals(np.array([correct]), np.array([total]), confidence)
    return float(low[0]), float(high[0])


def wilson_intervals(
    correct: npt.NDArray[np.int64], total: npt.NDArray[np.int64], confidence: float = 0.95
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return `wilson_interval` of many proportions: lower and upper ends, (P,) float64, NaN without trials."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    trials = np.where(total > 0, total, np.nan)
    share = correct / trials
    middle = share + z**2 / (2 * trials)
    half = z * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    scale = 1 + z**2 / trials
    low = np.where((correct > 0) | (total == 0), (middle - half) / scale, 0.0)  # exact where rounding would miss them
    high = np.where((correct < total) | (total == 0), (middle + half) / scale, 1.0)
    return low, high


def ratio(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Divide counts of the same shape, float64; 0 where there is nothing to divide by."""
    return np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)


def _mean_where(values: npt.NDArray[np.float64], counted: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    return np.asarray((values * counted).sum(axis=-1) / counted.sum(axis=-1))
