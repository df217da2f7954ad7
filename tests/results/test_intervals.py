from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap

from featbench.results.intervals import bootstrap_intervals
from featbench.results.metrics import confusion_matrix, macro_metrics, wilson_interval

METRICS = {"balanced_accuracy", "macro_precision", "macro_recall", "macro_f1"}
CONFUSION = np.array([[33, 4, 3], [2, 17, 1], [0, 3, 12]])


def by_hand(*predicted: np.ndarray) -> float:
    """Macro F1 of the predictions of each true class, one array a class."""
    labels = np.repeat(np.arange(3), [len(part) for part in predicted])
    together = np.concatenate(predicted)
    f1 = [2 * ((labels == k) & (together == k)).sum() / ((labels == k).sum() + (together == k).sum()) for k in range(3)]
    return float(np.mean(f1))


def test_the_interval_is_scipys() -> None:
    samples = [np.repeat(np.arange(3), counts) for counts in CONFUSION]
    theirs = bootstrap(samples, by_hand, method="BCa", n_resamples=4000, vectorized=False, rng=0).confidence_interval
    ours = bootstrap_intervals(CONFUSION, n_resamples=4000)["macro_f1"]
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.012)  # two draws of 4000 resamples


def test_the_metric_is_inside_and_the_draws_are_seeded() -> None:
    intervals = bootstrap_intervals(CONFUSION)
    assert set(intervals) == METRICS
    assert intervals == bootstrap_intervals(CONFUSION)
    assert intervals != bootstrap_intervals(CONFUSION, seed=1)
    measured = macro_metrics(np.diag(CONFUSION), CONFUSION.sum(axis=1), CONFUSION.sum(axis=0))
    for name, (low, high) in intervals.items():
        assert 0 < low < float(measured[name]) < high < 1
    narrow = bootstrap_intervals(CONFUSION, confidence=0.5)["macro_f1"]
    assert intervals["macro_f1"][0] < narrow[0] < narrow[1] < intervals["macro_f1"][1]


def test_with_few_errors_it_is_near_wilsons() -> None:
    # Of balanced classes the balanced accuracy is the accuracy: 97 of 100.
    low, high = bootstrap_intervals(np.array([[49, 1], [2, 48]]))["balanced_accuracy"]
    assert (low, high) == pytest.approx(wilson_interval(97, 100), abs=0.021)


@pytest.mark.parametrize("true_recall", [(0.9, 0.7, 0.8), (0.97, 0.98, 0.96)])
def test_the_interval_covers_the_truth(true_recall: tuple[float, ...]) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), [100, 60, 40])
    covered = 0
    for _ in range(400):
        right = rng.random(len(labels)) < np.array(true_recall)[labels]
        confusion = confusion_matrix(labels, np.where(right, labels, (labels + 1) % 3), 3)
        low, high = bootstrap_intervals(confusion, n_resamples=500)["balanced_accuracy"]
        covered += low <= np.mean(true_recall) <= high
    assert 0.91 < covered / 400 < 0.98


@pytest.mark.parametrize(
    "confusion",
    [np.diag([5, 5]), np.array([[1, 0], [0, 0]]), np.array([[0, 1], [1, 0]])],
    ids=["no error", "one row", "one row a class"],
)
def test_where_every_resample_is_the_same_there_is_no_interval(confusion: np.ndarray) -> None:
    assert all(np.isnan(interval).all() for interval in bootstrap_intervals(confusion).values())


def test_classes_that_do_not_occur_change_nothing() -> None:
    wider = np.zeros((5, 5), dtype=np.int64)
    wider[:3, :3] = CONFUSION
    expected = bootstrap_intervals(CONFUSION)
    for name, interval in bootstrap_intervals(wider).items():
        assert interval == pytest.approx(expected[name])
