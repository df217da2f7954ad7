from __future__ import annotations

import numpy as np
import pytest

from featbench.stats.jackknife import accelerations
from featbench.stats.metrics import classification_metrics
from featbench.stats.models import Predictions
from featbench.stats.scores import expected_calibration_error, log_loss
from tests.predictions import MACRO, of_counts, of_rows, with_probabilities


def by_hand(model: Predictions, measure: object) -> float:
    """Leave out every row in turn, and apply equation 15.36."""
    squares = cubes = 0.0
    for label in np.unique(model.labels):
        rows = np.flatnonzero(model.labels == label)
        if len(rows) == 1:
            continue  # every resample has it
        values = np.array([measure(np.delete(np.arange(len(model.labels)), row)) for row in rows])  # type: ignore[operator]
        influence = (len(rows) - 1) * (values.mean() - values)
        squares += (influence**2).sum() / len(rows) ** 2
        cubes += (influence**3).sum() / len(rows) ** 3
    return cubes / (6 * squares**1.5) if squares > 1e-24 else 0.0


@pytest.mark.parametrize(
    "model",
    [
        with_probabilities(40),
        of_counts(np.array([[9, 2, 0], [1, 5, 0], [0, 3, 4]])),
        of_counts(np.array([[9, 2, 1], [1, 5, 0], [0, 0, 0]])),  # a class that was only predicted, once
        of_counts(np.array([[9, 2, 0], [1, 5, 0], [1, 0, 0]])),  # a class of one row
        of_counts(np.diag([3, 4, 5])),
    ],
    ids=["probabilities", "counts", "only predicted", "one row", "no error"],
)
def test_the_closed_form_is_that_of_leaving_out_each_row(model: Predictions) -> None:
    found = accelerations(model)

    def macro(name: str, rows: np.ndarray) -> float:
        return float(getattr(classification_metrics(model.labels[rows], model.predicted[rows], 3), name))

    for name in MACRO:
        assert found[name] == pytest.approx([by_hand(model, lambda rows, name=name: macro(name, rows))], abs=1e-9)

    def f1(k: int, rows: np.ndarray) -> float:
        label, predicted = model.labels[rows] == k, model.predicted[rows] == k
        return 2 * float((label & predicted).sum()) / max(1, label.sum() + predicted.sum())

    expected = [by_hand(model, lambda rows, k=k: f1(k, rows)) for k in range(3)]
    assert found["f1"] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("metric", [log_loss, expected_calibration_error])
def test_of_scores_too(metric: object) -> None:
    model = with_probabilities(40)
    expected = by_hand(model, lambda rows: metric(model.labels[rows], model.scores[rows]))  # type: ignore[operator]
    assert accelerations(model)[metric.__name__] == pytest.approx([expected])  # type: ignore[attr-defined]


def test_decision_values_have_no_log_loss() -> None:
    assert set(accelerations(of_rows(np.arange(3), np.array([0, 1, 1])))) == {*MACRO, "f1"}
