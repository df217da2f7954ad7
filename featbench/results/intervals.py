"""Bootstrap intervals of metrics that are no plain proportions: balanced accuracy and the macro averages."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from featbench.results.metrics import macro_metrics

N_RESAMPLES = 2_000
_SAME = 1e-12  # rounding of a sum, far below the step of any of these metrics
_METRICS = ("balanced_accuracy", "macro_precision", "macro_recall", "macro_f1")
_NORMAL = NormalDist()

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def bootstrap_intervals(
    confusion: Counts, confidence: float = 0.95, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Return bias-corrected and accelerated (BCa) intervals of the metrics of `macro_metrics`.

    Test rows are drawn with replacement within each true class, so that the classes keep the shares they have in the
    test split, which is stratified, and none is lost. Rows of one cell of the confusion matrix are alike to these
    metrics, so cells are drawn (multinomial) in place of rows. BCa, because plain percentiles are too narrow near 1,
    where these metrics live. A model without an error on the test rows gives the bootstrap nothing to draw: its
    intervals are NaN, not of width 0.

    Sources: B. Efron, "Better bootstrap confidence intervals", JASA 82 (1987); for several samples B. Efron and
    R. J. Tibshirani, An Introduction to the Bootstrap (1993), equation 15.36, as `scipy.stats.bootstrap` has it.

    Args:
        confusion: Test rows by true (first axis) and predicted class, (K, K) int64.
        confidence: Of the two-sided interval, in (0, 1).
        n_resamples: Number of resamples.
        seed: Of the draws.

    Returns:
        Metric -> its lower and upper end.
    """
    n_true = confusion.sum(axis=1)
    measured = macro_metrics(np.diag(confusion), n_true, confusion.sum(axis=0))
    hits, n_predicted = _resample(confusion, n_resamples, np.random.default_rng(seed))
    accelerations = _accelerations(confusion)
    return {
        name: _bca(values, float(measured[name]), accelerations[name], confidence)
        for name, values in macro_metrics(hits, n_true, n_predicted).items()
    }


def _bca(values: Floats, measured: float, acceleration: float, confidence: float) -> tuple[float, float]:
    if np.ptp(values) < _SAME:
        return float("nan"), float("nan")
    below = float((values < measured - _SAME).mean() + (values < measured + _SAME).mean()) / 2
    smallest = 0.5 / len(values)
    bias = _NORMAL.inv_cdf(min(max(below, smallest), 1 - smallest))
    shares = []
    for share in (0.5 - confidence / 2, 0.5 + confidence / 2):
        z = bias + _NORMAL.inv_cdf(share)
        shares.append(_NORMAL.cdf(bias + z / (1 - acceleration * z)))
    low, high = np.quantile(values, shares)
    return float(low), float(high)


def _resample(confusion: Counts, n_resamples: int, rng: np.random.Generator) -> tuple[Counts, Counts]:
    """Draw (rows predicted right, rows predicted as the class), (n_resamples, K) int64 each."""
    hits, n_predicted = (np.zeros((n_resamples, len(confusion)), dtype=np.int64) for _ in range(2))
    for label, counts in enumerate(confusion):
        cells = np.flatnonzero(counts)
        if len(cells):
            total = counts.sum()
            drawn = rng.multinomial(total, counts[cells] / total, n_resamples)  # (n_resamples, cells)
            n_predicted[:, cells] += drawn
            hits[:, label] = drawn[:, cells == label].sum(axis=1)
    return hits, n_predicted


def _accelerations(confusion: Counts) -> dict[str, float]:
    """Return BCa's acceleration of each metric, from leaving out each row once: one of each cell, counted as often."""
    squares, cubes = (dict.fromkeys(_METRICS, 0.0) for _ in range(2))
    for label, counts in enumerate(confusion):
        total = int(counts.sum())
        if total < 2:
            continue  # without its only row the class is gone, and no metric is defined
        cells = np.flatnonzero(counts)
        for name, values in _without_one_row(confusion, label, cells).items():
            influence = (total - 1) * (np.average(values, weights=counts[cells]) - values)
            squares[name] += float((counts[cells] * influence**2).sum()) / total**2
            cubes[name] += float((counts[cells] * influence**3).sum()) / total**3
    return {name: cubes[name] / (6 * squares[name] ** 1.5) if squares[name] > _SAME**2 else 0.0 for name in _METRICS}


def _without_one_row(confusion: Counts, label: int, cells: npt.NDArray[np.intp]) -> dict[str, Floats]:
    """Measure the test rows without one row of a class, for each cell it may have been in: metric -> (cells,)."""
    removed = np.arange(len(confusion)) == cells[:, None]  # (cells, K)
    own = np.arange(len(confusion)) == label
    return macro_metrics(
        np.diag(confusion) - (removed & own), confusion.sum(axis=1) - own, confusion.sum(axis=0) - removed
    )
