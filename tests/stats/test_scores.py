from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics

from featbench.stats.scores import are_probabilities, expected_calibration_error, log_loss, top_k_hits

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 8, 300)
SCORES = RNG.normal(size=(300, 8))
PROBABILITIES = np.exp(SCORES) / np.exp(SCORES).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("k", [1, 3, 5, 8])
def test_top_k_is_scikit_learns(k: int) -> None:
    if k == 8:
        assert top_k_hits(LABELS, SCORES, k) == 300
    else:
        expected = metrics.top_k_accuracy_score(LABELS, SCORES, k=k, normalize=False)
        assert top_k_hits(LABELS, SCORES, k) == expected


def test_of_equal_scores_the_first_class_comes_first_as_in_argmax() -> None:
    scores = np.array([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [-np.inf, -np.inf, 1.0]])
    assert [top_k_hits(np.array([label]), scores[:1], 1) for label in range(3)] == [1, 0, 0]
    assert top_k_hits(np.array([0, 1, 1]), scores, 2) == 2


def test_log_loss_is_scikit_learns() -> None:
    expected = metrics.log_loss(LABELS, PROBABILITIES)
    assert log_loss(LABELS, PROBABILITIES) == pytest.approx(expected)
    rounded = np.array([[float(f"{value:.6g}") for value in row] for row in PROBABILITIES])
    assert log_loss(LABELS, rounded) == pytest.approx(expected, abs=1e-6)


def test_no_vote_for_the_true_class_costs_what_it_does_in_scikit_learn() -> None:
    labels, votes = np.array([0, 1]), np.array([[0.0, 1.0], [0.0, 1.0]])
    assert log_loss(labels, votes) == pytest.approx(metrics.log_loss(labels, votes))
    assert log_loss(labels[:1], votes[:1]) == pytest.approx(36.04, abs=0.01)


def test_calibration_error_by_hand() -> None:
    # Bins of 1/15: two rows at 0.9 (one right), one at 0.62 (right), one at 0.61 (wrong): |1 - 1.8|, |1 - 1.23|.
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.62, 0.38], [0.61, 0.39]])
    labels = np.array([0, 1, 0, 1])
    assert expected_calibration_error(labels, probabilities) == pytest.approx((0.8 + 0.23) / 4)


def test_calibration_error_of_extremes() -> None:
    sure = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert expected_calibration_error(np.array([0, 1]), sure) == 0.0
    assert expected_calibration_error(np.array([1, 0]), sure) == 1.0
    even = np.full((4, 2), 0.5)
    assert expected_calibration_error(np.array([0, 0, 1, 1]), even) == 0.0


def test_calibration_error_of_drawn_labels_is_small() -> None:
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.5, 1.0, 20_000)
    labels = (rng.random(20_000) >= confidence).astype(np.int64)
    assert expected_calibration_error(labels, np.stack([confidence, 1 - confidence], axis=1)) < 0.02


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        (PROBABILITIES, True),
        (np.array([[0.333333, 0.333333, 0.333333]]), True),
        (SCORES, False),
        (np.array([[0.2, 0.2]]), False),
        (np.array([[-0.5, 1.5]]), False),
        (np.array([[math.nan, math.nan]]), False),
        (np.array([[-math.inf, 1.0]]), False),
        (np.zeros((0, 3)), False),
    ],
)
def test_what_counts_as_probabilities(scores: np.ndarray, expected: bool) -> None:
    assert are_probabilities(scores) is expected
