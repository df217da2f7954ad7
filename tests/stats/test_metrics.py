from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics

from featbench.errors import DataError
from featbench.stats.metrics import classification_metrics, wilson_interval

CASES = {
    "random": (np.random.default_rng(0).integers(0, 5, 200), np.random.default_rng(1).integers(0, 5, 200), 5),
    "all right": (np.array([0, 1, 2]), np.array([0, 1, 2]), 3),
    "never predicted": (np.array([0, 0, 1, 2]), np.array([0, 0, 0, 0]), 3),
    "only predicted": (np.array([0, 0, 1, 1]), np.array([0, 2, 1, 2]), 3),
    "absent": (np.array([0, 0, 3]), np.array([0, 3, 3]), 5),
    "one row": (np.array([1]), np.array([0]), 2),
}


@pytest.mark.parametrize("case", CASES)
def test_metrics_are_those_of_scikit_learn(case: str) -> None:
    labels, predicted, n_classes = CASES[case]
    ours = classification_metrics(labels, predicted, n_classes)
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        labels, predicted, average="macro", zero_division=0
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "y_pred contains classes not in y_true")
        warnings.filterwarnings("ignore", "A single label was found")
        balanced = metrics.balanced_accuracy_score(labels, predicted)
    assert ours.accuracy == pytest.approx(metrics.accuracy_score(labels, predicted))
    assert ours.balanced_accuracy == pytest.approx(balanced)
    assert ours.macro_precision == pytest.approx(precision)
    assert ours.macro_recall == pytest.approx(recall)
    assert ours.macro_f1 == pytest.approx(f1)


def test_metrics_by_hand() -> None:
    # Class 0: 3 of 4 found, 3 of 4 right. Class 1: 1 of 2 found, 1 of 2 right.
    ours = classification_metrics(np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 1, 1, 0]), 2)
    assert ours.accuracy == pytest.approx(4 / 6)
    assert ours.balanced_accuracy == ours.macro_recall == ours.macro_precision == pytest.approx(0.625)


@pytest.mark.parametrize(
    ("n_images", "predicted_once", "expected"), [(5, False, 1), (4, False, 0), (5, True, 0), (100, False, 1)]
)
def test_a_class_is_never_predicted_where_five_images_could_show_it(
    n_images: int, predicted_once: bool, expected: int
) -> None:
    labels = np.array([0] * 10 + [2] * n_images)
    predicted = np.zeros(len(labels), dtype=np.int64)
    predicted[0] = 2 if predicted_once else 1  # a wrong answer, but one of that class; class 1 has no test image
    assert classification_metrics(labels, predicted, 3).never_predicted == expected


@pytest.mark.parametrize(("correct", "total"), [(0, 10), (10, 10), (7, 10), (1, 1), (9123, 10_000)])
@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_the_interval_is_scipys(correct: int, total: int, confidence: float) -> None:
    theirs = binomtest(correct, total).proportion_ci(confidence, method="wilson")
    assert wilson_interval(correct, total, confidence) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@pytest.mark.parametrize("measure", [lambda: wilson_interval(0, 0), lambda: classification_metrics(*EMPTY, 2)])
def test_no_rows_are_an_error(measure: object) -> None:
    with pytest.raises(DataError, match="the test split is empty"):
        measure()  # type: ignore[operator]


EMPTY = (np.array([], dtype=np.int64), np.array([], dtype=np.int64))
