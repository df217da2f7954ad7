"""Bootstrap intervals of metrics that are no plain proportions: averages over classes, F1, log-loss, calibration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from featbench.stats.models import Predictions
from featbench.stats.resamples import measured_metrics, metrics_without_groups, resampled_metrics

N_RESAMPLES = 2_000
_N_GROUPS = 50  # that are left out in turn; more change no end by what a reader could see
_ROUNDING = 1e-12  # of a sum: far below the step of any of these metrics
_GROUP_BYTES = 2**28  # of resampled values

Floats = npt.NDArray[np.float64]
Ends = tuple[Floats, Floats]


def bootstrap_intervals(
    models: Sequence[Predictions],
    confidence: float = 0.95,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    *,
    group_bytes: int = _GROUP_BYTES,
) -> list[dict[str, Ends]]:
    """Return bias-corrected and accelerated (BCa) intervals of the metrics of `resampled_metrics`.

    BCa, because plain percentiles are too narrow near 1, where these metrics live. There is no interval, but NaN, where

    - every resample gives the same value, as for a model without an error on the test rows: nothing can be drawn;
    - it would not hold the measured value. Resampling adds noise, and noise alone raises a calibration error: that of a
      well calibrated model on few rows is below nearly all of its resampled values, which then tell nothing of it.

    Source: B. Efron, "Better bootstrap confidence intervals", JASA 82 (1987).

    Args:
        models: The models; those with the same test labels are measured on the same resamples.
        confidence: Of the two-sided interval, in (0, 1).
        n_resamples: Number of resamples.
        seed: Of the draws.
        group_bytes: Memory for resampled values; models that do not fit together are resampled one after the other.

    Returns:
        For each model metric -> lower and upper ends, (1,) float64 each, (K,) for `f1` of each class.
    """
    found: dict[int, dict[str, Ends]] = {}
    for places in _groups(models, n_resamples, group_bytes):
        group = [models[place] for place in places]
        for place, values in zip(places, resampled_metrics(group, n_resamples, seed), strict=True):
            measured, without = measured_metrics(models[place]), metrics_without_groups(models[place], _N_GROUPS)
            found[place] = {
                name: _bca(values[name], measured[name][0], _acceleration(without[name]), confidence) for name in values
            }
    return [found[place] for place in range(len(models))]


def _groups(models: Sequence[Predictions], n_resamples: int, group_bytes: int) -> Iterator[list[int]]:
    """Yield places of models that are measured on the same resamples, as many as fit in memory."""
    families: dict[tuple[bytes, int], list[int]] = {}
    for place, model in enumerate(models):
        families.setdefault((model.labels.tobytes(), len(model.classes)), []).append(place)
    for (_, n_classes), places in families.items():
        step = max(1, group_bytes // (8 * n_resamples * (n_classes + 6)))
        for start in range(0, len(places), step):
            yield places[start : start + step]


def _bca(values: Floats, measured: Floats, acceleration: Floats, confidence: float) -> Ends:
    """Return the ends, (M,) each, of M metrics from their resampled values, (R, M)."""
    n_resamples = len(values)
    values = np.sort(values, axis=0)
    below = ((values < measured - _ROUNDING).mean(axis=0) + (values < measured + _ROUNDING).mean(axis=0)) / 2
    smallest = 0.5 / n_resamples
    bias = ndtri(np.clip(below, smallest, 1 - smallest))
    low, high = (
        _quantiles(values, ndtr(bias + z / (1 - acceleration * z)))
        for z in (bias + ndtri(0.5 - confidence / 2), bias + ndtri(0.5 + confidence / 2))
    )
    usable = (high - low >= _ROUNDING) & (low < measured + _ROUNDING) & (measured - _ROUNDING < high)
    return np.where(usable, low, np.nan), np.where(usable, high, np.nan)


def _acceleration(without: Floats) -> Floats:
    """Return BCa's acceleration of M metrics, (M,), from their values without each group of rows, (groups, M).

    Source: B. Efron and R. J. Tibshirani, An Introduction to the Bootstrap (1993), equation 14.15.
    """
    influence = without.mean(axis=0) - without
    squares, cubes = (influence**2).sum(axis=0), (influence**3).sum(axis=0)
    return np.asarray(np.divide(cubes, 6 * squares**1.5, out=np.zeros(len(squares)), where=squares > _ROUNDING**2))


def _quantiles(ascending: Floats, shares: Floats) -> Floats:
    """Return a quantile of each column, interpolated as `np.quantile` does."""
    place = shares * (len(ascending) - 1)
    before = np.minimum(place.astype(np.int64), len(ascending) - 2)
    lower, upper = (np.take_along_axis(ascending, row[None], axis=0)[0] for row in (before, before + 1))
    return np.asarray(lower + (place - before) * (upper - lower))
