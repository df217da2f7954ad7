from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from featbench.classifiers.calibrate import CALIBRATION_ROWS, calibrate, fit_temperature


def drawn(n_rows: int, n_classes: int, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Draw labels from the probabilities that scores stand for at a temperature."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(n_rows, n_classes))
    edges = softmax(scores / temperature, axis=1).cumsum(axis=1)
    return scores, (rng.random((n_rows, 1)) > edges).sum(axis=1)


@pytest.mark.parametrize("n_classes", [2, 10])
@pytest.mark.parametrize("temperature", [0.2, 1.0, 5.0])
def test_the_temperature_that_labels_were_drawn_with_is_found(n_classes: int, temperature: float) -> None:
    found = fit_temperature(*drawn(40_000, n_classes, temperature))
    assert found == pytest.approx(temperature, rel=0.1)


def test_two_classes_are_a_logistic_regression_without_intercept() -> None:
    scores, labels = drawn(5_000, 2, 0.7)
    margin = (scores[:, 1] - scores[:, 0])[:, None]
    slope = LogisticRegression(C=np.inf, fit_intercept=False).fit(margin, labels).coef_[0, 0]
    assert fit_temperature(scores, labels) == pytest.approx(1 / slope, rel=0.01)


def test_scaling_the_scores_scales_the_temperature() -> None:
    scores, labels = drawn(500, 3, 1.0)
    once = fit_temperature(scores, labels)
    assert once is not None
    assert fit_temperature(scores * 1e-3, labels) == pytest.approx(once * 1e-3, rel=1e-3)


def test_rows_without_a_mistake_do_not_ask_for_certainty() -> None:
    labels = np.arange(40) % 2
    scores = np.where(np.arange(2) == labels[:, None], 1.0, -1.0)
    temperature = fit_temperature(scores, labels)
    assert temperature is not None
    assert softmax(scores / temperature, axis=1).max() == pytest.approx(
        40.5 / 41, abs=1e-3
    )  # half a mistake in 41 rows


def test_a_class_that_was_not_trained_is_left_aside() -> None:
    scores, labels = drawn(2_000, 3, 0.5)
    wider = np.concatenate([scores, np.full((2_000, 1), -np.inf)], axis=1)
    assert fit_temperature(wider, labels) == pytest.approx(fit_temperature(scores, labels), rel=1e-6)
    with_lost = np.where(np.arange(2_000) < 100, 3, labels)
    assert fit_temperature(wider, with_lost) == pytest.approx(fit_temperature(scores[100:], labels[100:]), rel=1e-6)


def test_scores_that_say_nothing_have_no_temperature() -> None:
    assert fit_temperature(np.zeros((5, 2)), np.zeros(5, np.int64)) is None
    assert fit_temperature(np.full((5, 2), -np.inf), np.zeros(5, np.int64)) is None


def test_splits_are_used_until_there_are_enough_rows() -> None:
    rows = np.arange(1_500)
    scores, labels = drawn(1_500, 3, 1.0)
    asked: list[int] = []

    def score_split(kept: np.ndarray, held_out: np.ndarray) -> np.ndarray:
        assert not set(kept) & set(held_out)
        asked.extend(held_out)
        return scores[held_out]

    splits = [(np.setdiff1d(rows, held), held) for held in np.split(rows, 5)]
    assert calibrate(score_split, labels, splits) == fit_temperature(scores[:600], labels[:600])
    assert len(asked) == 600 >= CALIBRATION_ROWS
    assert calibrate(score_split, labels, []) is None
