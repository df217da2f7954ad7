"""Probabilities for classifiers that only have decision values: one temperature, fitted on rows held out of training.

A softmax of the decision values, divided by the temperature, keeps their order, so that probabilities never change
which class is predicted. The rows are those that the selection held out: training and validation rows, never test rows.

Source: C. Guo et al., "On calibration of modern neural networks", ICML 2017, section 4.2 (temperature scaling). Targets
are smoothed, as J. Platt did for two classes ("Probabilistic outputs for support vector machines", 1999, section 2.2),
so that rows without a mistake do not drive probabilities to 1: as if one more row belonged equally to every class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

Rows = npt.NDArray[np.intp]
CALIBRATION_ROWS = 500  # held-out rows; one number needs no more, and each split costs a fit


def calibrate(
    score_split: Callable[[Rows, Rows], npt.NDArray[np.float64]],
    y: npt.NDArray[np.int64],
    splits: Sequence[tuple[Rows, Rows]],
) -> float | None:
    """Find the temperature of a classifier with chosen hyper-parameters.

    Args:
        score_split: Fits on some rows and returns the decision values of others, (M, K) float64; -inf for a class that
            was not trained.
        y: Labels of all rows, (N,) int64 in [0, K).
        splits: (rows to fit on, rows held out); as many are used as it takes to have `CALIBRATION_ROWS` held-out rows.

    Returns:
        The temperature; None where nothing was held out.
    """
    scores: list[npt.NDArray[np.float64]] = []
    labels: list[npt.NDArray[np.int64]] = []
    for rows, held_out in splits:
        scores.append(score_split(rows, held_out))
        labels.append(y[held_out])
        if sum(map(len, labels)) >= CALIBRATION_ROWS:
            break
    return fit_temperature(np.concatenate(scores), np.concatenate(labels)) if labels else None


def fit_temperature(scores: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> float | None:
    """Find the temperature with the smallest cross-entropy to smoothed targets.

    Args:
        scores: Decision values, (N, K) float64; -inf for a class that was not trained.
        labels: True classes, (N,) int64 in [0, K); rows whose class was not trained are ignored.

    Returns:
        The temperature, above 0; None where no row remains or the scores do not differ.
    """
    has_score = np.isfinite(np.take_along_axis(scores, labels[:, None], axis=1)[:, 0])
    scores, labels = scores[has_score], labels[has_score]
    trained = np.isfinite(scores)
    spread = float(np.std(scores[trained])) if len(scores) else 0.0
    if not spread > 0:
        return None
    n_classes = trained.sum(axis=1)
    smoothing = 1 / (len(labels) + 1)

    def loss(log_temperature: float) -> float:
        log_p: npt.NDArray[Any] = log_softmax(scores / (spread * np.exp(log_temperature)), axis=1)
        true = np.take_along_axis(log_p, labels[:, None], axis=1)[:, 0]
        mean = np.where(trained, log_p, 0.0).sum(axis=1) / n_classes
        return -float(((1 - smoothing) * true + smoothing * mean).mean())

    # convex in 1 / temperature, so that there is one minimum
    found = minimize_scalar(loss, bounds=(-8.0, 8.0), method="bounded", options={"xatol": 1e-4})
    return float(spread * np.exp(found.x))
