"""What models said about made-up test rows."""

from __future__ import annotations

import numpy as np

from featbench.stats.models import Predictions

MACRO = ("balanced_accuracy", "macro_precision", "macro_recall", "macro_f1")


def of_rows(
    labels: np.ndarray, predicted: np.ndarray, scores: np.ndarray | None = None, n_classes: int = 3
) -> Predictions:
    return Predictions(
        fingerprint="f0",
        name="svm/resnet18",
        dataset="pets",
        classes=tuple(f"class {k}" for k in range(n_classes)),
        ids=np.arange(len(labels)).astype(str).astype(object),
        labels=labels,
        predicted=predicted,
        scores=np.eye(n_classes)[predicted] - 0.5 if scores is None else scores,  # decision values
    )


def of_counts(confusion: np.ndarray) -> Predictions:
    labels, predicted = (np.repeat(side.ravel(), confusion.ravel()) for side in np.indices(confusion.shape))
    return of_rows(labels, predicted, n_classes=len(confusion))


def with_probabilities(n_rows: int = 90, seed: int = 3) -> Predictions:
    rng = np.random.default_rng(seed)
    labels = np.sort(rng.integers(0, 3, n_rows))
    scores = np.exp(rng.normal(size=(n_rows, 3)) + 1.5 * np.eye(3)[labels])
    probabilities = scores / scores.sum(axis=1, keepdims=True)
    return of_rows(labels, probabilities.argmax(axis=1), probabilities)
