"""Bootstrap intervals of metrics that are no plain proportions: averages over classes, F1, log-loss, calibration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from featbench.stats.jackknife import accelerations
from featbench.stats.models import Predictions
from featbench.stats.resamples import measured_metrics, resampled_metrics

N_RESAMPLES = 2_000
_SAME = 1e-12  # rounding of a sum, far below the step of any of these metrics
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
            measured, acceleration = measured_metrics(models[place]), accelerations(models[place])
            found[place] = {
                name: _bca(values[name], measured[name][0], acceleration[name], confidence) for name in values
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
    below = ((values < measured - _SAME).mean(axis=0) + (values < measured + _SAME).mean(axis=0)) / 2
    smallest = 0.5 / n_resamples
    bias = ndtri(np.clip(below, smallest, 1 - smallest))
    low, high = (
        _quantiles(values, ndtr(bias + z / (1 - acceleration * z)))
        for z in (bias + ndtri(0.5 - confidence / 2), bias + ndtri(0.5 + confidence / 2))
    )
    told = (high - low >= _SAME) & (low < measured + _SAME) & (measured - _SAME < high)
    return np.where(told, low, np.nan), np.where(told, high, np.nan)


def _quantiles(ascending: Floats, shares: Floats) -> Floats:
    """Return a quantile of each column, interpolated as `np.quantile` does."""
    place = shares * (len(ascending) - 1)
    before = np.minimum(place.astype(np.int64), len(ascending) - 2)
    lower, upper = (np.take_along_axis(ascending, row[None], axis=0)[0] for row in (before, before + 1))
    return np.asarray(lower + (place - before) * (upper - lower))
