"""BCa's acceleration of each metric: how skewed it is by leaving out one test row at a time, in closed form.

Source: B. Efron and R. J. Tibshirani, An Introduction to the Bootstrap (1993), equation 15.36 for several samples,
as `scipy.stats.bootstrap` has it; the samples are the rows of each true class.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from featbench.stats.metrics import confusion_matrix, ratio
from featbench.stats.models import Predictions
from featbench.stats.scores import are_probabilities, calibration_gaps, row_losses

_NOTHING = 1e-24  # a sum of squares that rounding alone makes

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def accelerations(model: Predictions) -> dict[str, Floats]:
    """Return the acceleration of each metric of `resampled_metrics`: (1,) float64, (K,) for `f1`."""
    confusion = confusion_matrix(model.labels, model.predicted, len(model.classes))
    n_true = confusion.sum(axis=1)
    cells = np.nonzero(confusion)
    without = _macro_without_one(confusion, *cells)
    found = {name: _acceleration(values, cells[0], confusion[cells], n_true) for name, values in without.items()}
    if are_probabilities(model.scores):
        once = np.ones(len(model.labels), dtype=np.int64)
        for name, values in _scores_without_one(model).items():
            found[name] = _acceleration(values, model.labels, once, n_true)
    return found | {"f1": _of_class_f1(confusion)}


def _acceleration(values: Floats, label: Counts, times: Counts, n_true: Counts) -> Floats:
    """Return the acceleration, (1,), of a metric with these values without one row of a class.

    Args:
        values: (V,) float64.
        label: Class of the row left out, (V,) int64.
        times: Rows that are alike in this, (V,) int64.
        n_true: Rows of each class, (K,) int64.
    """
    n = n_true[label]
    mean = np.bincount(label, weights=times * values, minlength=len(n_true))[label] / n
    influence = (n - 1) / n * (mean - values)  # none of a class's only row, which every resample has
    return _ratio_of_moments((times * influence**2).sum(), (times * influence**3).sum())


def _ratio_of_moments(squares: npt.ArrayLike, cubes: npt.ArrayLike) -> Floats:
    squares, cubes = np.atleast_1d(squares), np.atleast_1d(cubes)
    return np.asarray(np.divide(cubes, 6 * squares**1.5, out=np.zeros(len(squares)), where=squares > _NOTHING))


def _macro_without_one(confusion: Counts, label: Counts, predicted: Counts) -> dict[str, Floats]:
    """Measure the rows without one of a cell, for each cell (label, predicted): metric -> (cells,).

    Only terms of the row's two classes change. A class that no row has and one was predicted as stops to occur.
    """
    hits, n_true, n_predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    own = label == predicted
    occurring = (n_true + n_predicted > 0).sum() - (n_true + n_predicted == 1)[predicted]

    recall = ratio(hits, n_true)
    recall_sum = recall.sum() - recall[label] + ratio(hits[label] - own, n_true[label] - 1)
    precision = ratio(hits, n_predicted)
    changed = ratio(hits[predicted] - own, n_predicted[predicted] - 1)
    f1 = ratio(2 * hits, n_true + n_predicted)
    of_label = ratio(2 * (hits[label] - own), (n_true + n_predicted)[label] - 1 - own)
    of_predicted = ratio(2 * hits[predicted], (n_true + n_predicted)[predicted] - 1)
    both = np.where(own, of_label - f1[label], of_label - f1[label] + of_predicted - f1[predicted])
    return {
        "balanced_accuracy": recall_sum / (n_true > 0).sum(),
        "macro_precision": (precision.sum() - precision[predicted] + changed) / np.maximum(occurring, 1),
        "macro_recall": recall_sum / np.maximum(occurring, 1),
        "macro_f1": (f1.sum() + both) / np.maximum(occurring, 1),
    }


def _scores_without_one(model: Predictions) -> dict[str, Floats]:
    """Measure the rows without each row: metric -> (N,)."""
    losses = row_losses(model.labels, model.scores)
    bins, gaps = calibration_gaps(model.labels, model.scores)
    of_bins = np.bincount(bins, weights=gaps)
    error = np.abs(of_bins).sum() - np.abs(of_bins)[bins] + np.abs(of_bins[bins] - gaps)
    n_left = max(len(losses) - 1, 1)
    return {"log_loss": (losses.sum() - losses) / n_left, "expected_calibration_error": error / n_left}


def _of_class_f1(confusion: Counts) -> Floats:
    """Return the acceleration of each class's F1, (K,).

    Rows of one true class change it in two ways at most: those predicted as the class, and the others. So the moments
    are those of a coin; `change` is the step between its sides.
    """
    hits, n_true = np.diag(confusion), confusion.sum(axis=1)
    total = n_true + confusion.sum(axis=0)
    f1 = ratio(2 * hits, total)
    without_false_positive = ratio(2 * hits, total - 1)  # or without a false negative
    change = np.broadcast_to(without_false_positive - f1, confusion.shape).copy()  # (true class, class of the F1)
    np.fill_diagonal(change, ratio(2 * (hits - 1), total - 2) - without_false_positive)
    n = np.maximum(n_true, 1)[:, None]
    share = confusion / n
    step = change * (n - 1) / n
    squares = step**2 * n * share * (1 - share)
    cubes = step**3 * n * share * (1 - share) * (2 * share - 1)
    return _ratio_of_moments(squares.sum(axis=0), cubes.sum(axis=0))
