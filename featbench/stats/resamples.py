"""The bootstrap: metrics of models on test rows that are drawn again and again, with replacement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from featbench.stats.metrics import macro_metrics, ratio
from featbench.stats.models import Predictions
from featbench.stats.scores import N_BINS, are_probabilities, calibration_gaps, row_losses

_BLOCK_BYTES = 2**22  # of the counts of drawn rows: near the size of a core's cache, whatever the number of test rows

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def resampled_metrics(models: Sequence[Predictions], n_resamples: int, seed: int) -> list[dict[str, Floats]]:
    """Measure models on resamples of their test rows, the same ones for all models.

    Rows are drawn with replacement within each true class, so that the classes keep the shares they have in the test
    split, which is stratified, and none is lost. Every metric follows from a few sums over rows (errors by class, gaps
    of calibration bins, losses), so that a resample is a column of how often each row was drawn, and many resamples of
    a model are a sparse matrix product: fast with many models, and with many classes.

    Args:
        models: Models with the same labels and number of classes.
        n_resamples: R.
        seed: Of the draws.

    Returns:
        For each model metric -> its values, (R, 1) float64, (R, K) for `f1`, which is that of each class;
        `log_loss` and `expected_calibration_error` for models with probabilities only.
    """
    n_true = _count(models[0])
    by_class = np.argsort(models[0].labels, kind="stable")
    sums = [_sums_of_rows(model) for model in models]
    sums = [(matrix[:, by_class], losses[by_class]) for matrix, losses in sums]
    all_losses = np.stack([losses for _, losses in sums])
    blocks: list[list[dict[str, Floats]]] = [[] for _ in models]
    for drawn in _draws(n_true, n_resamples, np.random.default_rng(seed)):
        for (matrix, _), losses, mine in zip(sums, all_losses @ drawn, blocks, strict=True):
            mine.append(_metrics(matrix @ drawn, losses, n_true))
    return [{name: np.concatenate([block[name] for block in mine]) for name in mine[0]} for mine in blocks]


def metrics_without_groups(model: Predictions, n_groups: int) -> dict[str, Floats]:
    """Measure a model without each group of its test rows in turn: metric -> (groups, 1) float64, (groups, K) for `f1`.

    Rows are dealt out to the groups one class after the other, so that each group has about its share of each class.
    The only row of a class is never left out, since every resample has it.

    Args:
        model: The model.
        n_groups: Number of groups; with as few test rows, each is a group.
    """
    n_true, n_rows = _count(model), len(model.labels)
    groups = np.empty(n_rows, dtype=np.int64)
    groups[np.argsort(model.labels, kind="stable")] = np.arange(n_rows) % n_groups
    left_out = groups[:, None] == np.arange(min(n_groups, n_rows))
    left_out &= (n_true[model.labels] > 1)[:, None]
    kept = (~left_out).astype(np.float64)
    n_left = np.stack([np.bincount(model.labels[rows], minlength=len(n_true)) for rows in kept.T > 0])
    matrix, losses = _sums_of_rows(model)
    return _metrics(matrix @ kept, losses @ kept, n_left)


def measured_metrics(model: Predictions) -> dict[str, Floats]:
    """Measure a model on its test rows as they are: metric -> (1, 1) float64, (1, K) for `f1`."""
    matrix, losses = _sums_of_rows(model)
    once = np.ones((len(losses), 1))
    return _metrics(matrix @ once, losses @ once, _count(model))


def _count(model: Predictions) -> Counts:
    return np.bincount(model.labels, minlength=len(model.classes))


def _draws(n_true: Counts, n_resamples: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Yield how often each row was drawn, (N, resamples) float64 in blocks; rows are in the order of their classes."""
    n_rows = int(n_true.sum())
    size, first = (np.repeat(values, n_true) for values in (n_true, np.cumsum(n_true) - n_true))
    step = max(1, _BLOCK_BYTES // (8 * n_rows))
    for start in range(0, n_resamples, step):
        n = min(step, n_resamples - start)
        rows = (rng.random((n, n_rows)) * size).astype(np.int64) + first + n_rows * np.arange(n)[:, None]
        drawn = np.bincount(rows.ravel(), minlength=n * n_rows).reshape(n, n_rows)
        yield np.ascontiguousarray(drawn.T, dtype=np.float64)


def _sums_of_rows(model: Predictions) -> tuple[csr_array, Floats]:
    """Return what makes the sums of drawn rows.

    Returns:
        The matrix of errors by label, errors by prediction and, where there are probabilities, gaps by bin,
        (2 K or 2 K + N_BINS, N); and the losses, (N,), NaN without probabilities.
    """
    n_rows, n_classes = len(model.labels), len(model.classes)
    wrong = np.flatnonzero(model.labels != model.predicted)
    parts = [(labels[wrong], wrong, np.ones(len(wrong))) for labels in (model.labels, n_classes + model.predicted)]
    if not are_probabilities(model.scores):
        return _sparse(parts, (2 * n_classes, n_rows)), np.full(n_rows, np.nan)
    bins, gaps = calibration_gaps(model.labels, model.scores)
    counted = np.flatnonzero(gaps)
    parts.append((2 * n_classes + bins[counted], counted, gaps[counted]))
    return _sparse(parts, (2 * n_classes + N_BINS, n_rows)), row_losses(model.labels, model.scores)


def _sparse(parts: Sequence[tuple[Counts, Counts, Floats]], shape: tuple[int, int]) -> csr_array:
    sums, rows, values = (np.concatenate(part) for part in zip(*parts, strict=True))
    return csr_array((values, (sums, rows)), shape=shape)


def _metrics(sums: Floats, losses: Floats, n_true: Counts) -> dict[str, Floats]:
    """Compute metrics of sums over rows, (sums, B), losses, (B,), and rows of each class, (K,) or (B, K).

    Returns:
        metric -> (B, 1), (B, K) for `f1`.
    """
    n_classes, n_rows = n_true.shape[-1], n_true.sum(axis=-1)
    missed, mistaken = (np.rint(sums[i * n_classes : (i + 1) * n_classes].T).astype(np.int64) for i in range(2))
    hits = n_true - missed
    n_predicted = hits + mistaken
    metrics = {name: values[:, None] for name, values in macro_metrics(hits, n_true, n_predicted).items()}
    if len(sums) > 2 * n_classes:
        metrics["log_loss"] = (losses / n_rows)[:, None]
        metrics["expected_calibration_error"] = (np.abs(sums[2 * n_classes :]).sum(axis=0) / n_rows)[:, None]
    return metrics | {"f1": ratio(2 * hits, n_true + n_predicted)}
