"""Metrics of scores: is the true class near the top, and can probabilities be believed?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

N_BINS = 15
_SUM_TOLERANCE = 1e-3  # predictions/ holds six digits a score
_SMALLEST = float(np.finfo(np.float64).eps)

Labels = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]


def are_probabilities(scores: Scores) -> bool:
    """Say whether every row of scores (N, K) is a distribution: none negative, and the sum 1."""
    if not scores.size or not np.isfinite(scores).all():
        return False
    return bool((scores >= 0).all() and (np.abs(scores.sum(axis=1) - 1) < _SUM_TOLERANCE).all())


def top_k_hits(labels: Labels, scores: Scores, k: int) -> int:
    """Count rows whose true class is among the k highest scores; of equal scores the first class comes first.

    Args:
        labels: True classes, (N,) int64 in [0, K).
        scores: (N, K) float64, not NaN.
        k: 1 to K.
    """
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    earlier = np.arange(scores.shape[1]) < labels[:, None]
    ahead = ((scores > own) | ((scores == own) & earlier)).sum(axis=1)
    return int((ahead < k).sum())


def log_loss(labels: Labels, probabilities: Scores) -> float:
    """Return the mean of -ln p(true class), in nats.

    p is kept at or above 2.2e-16, as scikit-learn's `log_loss` does: a forest that gives the true class no vote costs
    36 nats, not infinity, and a few such rows decide the mean.

    Args:
        labels: True classes, (N,) int64 in [0, K).
        probabilities: (N, K) float64; rows are divided by their sums, which rounding in files has changed.
    """
    return float(row_losses(labels, probabilities).mean())


def row_losses(labels: Labels, probabilities: Scores) -> Scores:
    """Return -ln p(true class) of each row, (N,) float64 in nats; see `log_loss`."""
    own = probabilities[np.arange(len(labels)), labels] / probabilities.sum(axis=1)
    return np.asarray(-np.log(np.maximum(own, _SMALLEST)))


def expected_calibration_error(labels: Labels, probabilities: Scores) -> float:
    """Return the expected calibration error of the predicted class, in [0, 1].

    Rows are put into 15 bins of equal width, (0, 1/15], ..., (14/15, 1], by the probability of their predicted
    class; the error is the mean over rows of |accuracy - mean probability| of their bin.

    Source: C. Guo et al., "On calibration of modern neural networks", ICML 2017, equation 3, with its 15 bins.

    Args:
        labels: True classes, (N,) int64 in [0, K).
        probabilities: (N, K) float64.
    """
    bins, gaps = calibration_gaps(labels, probabilities)
    return float(np.abs(np.bincount(bins, weights=gaps)).sum() / len(labels))


def calibration_gaps(labels: Labels, probabilities: Scores) -> tuple[Labels, Scores]:
    """Return of each row its bin, (N,) int64 in [0, 15), and right (0 or 1) minus confidence, (N,) float64.

    See `expected_calibration_error`; the sum over a bin is its number of rows times accuracy - mean probability.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    return np.clip(np.ceil(confidence * N_BINS).astype(np.int64) - 1, 0, N_BINS - 1), right - confidence
