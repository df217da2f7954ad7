"""Metrics of a test set, and the interval of an accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from featbench.errors import DataError


@dataclass(frozen=True)
class Metrics:
    """Metrics of one set of predictions, each in [0, 1]; the fields are columns of results.csv."""

    accuracy: float
    balanced_accuracy: float
    macro_precision: float
    macro_recall: float
    macro_f1: float


def classification_metrics(labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], n_classes: int) -> Metrics:
    """Compute the metrics of results.csv as scikit-learn defines them (zero_division=0).

    Macro averages run over the classes that occur among labels or predictions, balanced accuracy over those that occur
    among labels. A class that is never predicted has precision 0.

    Args:
        labels: True classes, (N,) int64 in [0, n_classes).
        predicted: Predicted classes, (N,) int64 in [0, n_classes).
        n_classes: Number of classes.

    Raises:
        DataError: There are no rows.
    """
    if labels.size == 0:
        raise DataError("there are no test rows to measure on; the test split is empty")
    confusion = np.bincount(labels * n_classes + predicted, minlength=n_classes**2).reshape(n_classes, n_classes)
    hits = np.diag(confusion)
    n_true, n_predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    occurs = n_true + n_predicted > 0
    recall = _ratio(hits, n_true)
    return Metrics(
        accuracy=float(hits.sum() / labels.size),
        balanced_accuracy=float(recall[n_true > 0].mean()),
        macro_precision=float(_ratio(hits, n_predicted)[occurs].mean()),
        macro_recall=float(recall[occurs].mean()),
        macro_f1=float(_ratio(2 * hits, n_true + n_predicted)[occurs].mean()),
    )


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
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = correct / total
    middle = share + z**2 / (2 * total)
    half = z * sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    scale = 1 + z**2 / total
    low = (middle - half) / scale if correct > 0 else 0.0  # exact at the ends, where rounding would miss them
    high = (middle + half) / scale if correct < total else 1.0
    return low, high


def _ratio(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
