from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import bootstrap
from sklearn import metrics

from featbench.stats.intervals import bootstrap_intervals
from featbench.stats.metrics import classification_metrics, wilson_interval
from featbench.stats.models import Predictions
from featbench.stats.scores import expected_calibration_error
from tests.predictions import MACRO, of_counts, of_rows, with_probabilities

CALIBRATION = "expected_calibration_error"
CONFUSION = np.array([[33, 4, 3], [2, 17, 1], [0, 3, 12]])


def ends(model: Predictions, metric: str, k: int = 0, **settings: float) -> tuple[float, float]:
    low, high = bootstrap_intervals([model], **settings)[0][metric]  # type: ignore[arg-type]
    return float(low[k]), float(high[k])


def f1_of_classes(model: Predictions, rows: np.ndarray) -> np.ndarray:
    label, predicted = model.labels[rows], model.predicted[rows]
    right = [((label == k) & (predicted == k)).sum() for k in range(3)]
    return np.array([2 * right[k] / ((label == k).sum() + (predicted == k).sum()) for k in range(3)])


MODEL = with_probabilities()


@pytest.mark.parametrize(
    ("metric", "k", "measure", "close"),
    [
        ("macro_f1", 0, lambda rows: f1_of_classes(MODEL, rows).mean(), 0.012),
        ("f1", 1, lambda rows: f1_of_classes(MODEL, rows)[1], 0.015),
        ("log_loss", 0, lambda rows: -np.log(MODEL.scores[rows, MODEL.labels[rows]]).mean(), 0.025),
        (CALIBRATION, 0, lambda rows: expected_calibration_error(MODEL.labels[rows], MODEL.scores[rows]), 0.012),
    ],
)
def test_the_interval_is_scipys(metric: str, k: int, measure: Callable[[np.ndarray], float], close: float) -> None:
    samples = [np.flatnonzero(MODEL.labels == label) for label in range(3)]
    theirs = bootstrap(
        samples,
        lambda *rows: measure(np.concatenate(rows)),
        method="BCa",
        n_resamples=2000,
        vectorized=False,
        rng=0,
    ).confidence_interval
    ours = ends(MODEL, metric, k, n_resamples=4000)
    assert ours == pytest.approx((theirs.low, theirs.high), abs=close)  # two draws of resamples


def test_the_metrics_are_inside_and_the_draws_are_seeded() -> None:
    (intervals,) = bootstrap_intervals([MODEL])
    assert set(intervals) == {*MACRO, "f1", "log_loss", CALIBRATION}
    measured = vars(classification_metrics(MODEL.labels, MODEL.predicted, 3))
    measured |= {"f1": metrics.f1_score(MODEL.labels, MODEL.predicted, average=None)}
    measured |= {"log_loss": metrics.log_loss(MODEL.labels, MODEL.scores)}
    again, other = bootstrap_intervals([MODEL])[0], bootstrap_intervals([MODEL], seed=1)[0]
    for name in (*MACRO, "f1", "log_loss"):
        low, high = intervals[name]
        assert (low > 0).all()
        assert (low < measured[name]).all()
        assert (measured[name] < high).all()
        assert np.array_equal(intervals[name], again[name])
        assert not np.array_equal(intervals[name], other[name])
    narrow, wide = ends(MODEL, "macro_f1", confidence=0.5), ends(MODEL, "macro_f1")
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_models_with_the_same_labels_share_the_draws_and_change_nothing() -> None:
    models = [MODEL, of_counts(CONFUSION), of_rows(MODEL.labels, MODEL.labels[::-1].copy()), with_probabilities(seed=4)]
    alone = [bootstrap_intervals([model])[0] for model in models]
    together = bootstrap_intervals(models)
    apart = bootstrap_intervals(models, group_bytes=1)
    for expected, *others in zip(alone, together, apart, strict=True):
        for found in others:
            assert found.keys() == expected.keys()
            for name in expected:
                assert np.allclose(found[name], expected[name], rtol=1e-12, equal_nan=True)


def test_the_order_of_rows_does_not_matter_to_counts() -> None:
    model = of_counts(CONFUSION)
    order = np.random.default_rng(0).permutation(len(model.labels))
    shuffled = of_rows(model.labels[order], model.predicted[order])
    assert ends(shuffled, "macro_f1") == pytest.approx(ends(model, "macro_f1"), abs=0.012)


def test_with_few_errors_it_is_near_wilsons() -> None:
    # Of balanced classes the balanced accuracy is the accuracy: 97 of 100.
    found = ends(of_counts(np.array([[49, 1], [2, 48]])), "balanced_accuracy")
    assert found == pytest.approx(wilson_interval(97, 100), abs=0.021)


@pytest.mark.parametrize("true_recall", [(0.9, 0.7, 0.8), (0.97, 0.98, 0.96)])
def test_the_interval_covers_the_truth(true_recall: tuple[float, ...]) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), [100, 60, 40])
    n_predicted = [  # of the class itself, and of the class before it
        n * recall + before * (1 - of_before)
        for n, recall, before, of_before in zip(
            (100, 60, 40), true_recall, (40, 100, 60), (true_recall[-1], *true_recall[:2]), strict=True
        )
    ]
    truth = {"balanced_accuracy": np.mean(true_recall), "f1": 2 * 60 * true_recall[1] / (60 + n_predicted[1])}
    models = []
    for _ in range(400):
        right = rng.random(len(labels)) < np.array(true_recall)[labels]
        models.append(of_rows(labels, np.where(right, labels, (labels + 1) % 3)))
    found = bootstrap_intervals(models, n_resamples=500)
    for name, k in (("balanced_accuracy", 0), ("f1", 1)):
        low, high = np.array([[end[k] for end in intervals[name]] for intervals in found]).T
        below, above = np.mean(truth[name] < low), np.mean(high < truth[name])
        assert 0.02 < below + above + np.mean(np.isnan(low)) < 0.09
        assert max(below, above) < 0.045  # without the acceleration 0.0575 of the higher recalls


def test_the_interval_of_the_log_loss_covers_the_truth() -> None:
    rng = np.random.default_rng(0)
    labels, certain = np.arange(300) % 2, np.array([0.55, 0.65, 0.75, 0.85, 0.95])
    accuracy = certain - 0.1
    models = []
    for _ in range(300):
        which = rng.integers(0, 5, 300)
        top = np.where(rng.random(300) < accuracy[which], labels, 1 - labels)
        p = np.where(top == 1, certain[which], 1 - certain[which])
        models.append(of_rows(labels, top, np.stack([1 - p, p], axis=1), n_classes=2))
    truth = -(accuracy * np.log(certain) + (1 - accuracy) * np.log(1 - certain)).mean()
    found = [intervals["log_loss"] for intervals in bootstrap_intervals(models, n_resamples=500)]
    assert 0.91 < np.mean([low[0] <= truth <= high[0] for low, high in found]) < 0.98


@pytest.mark.parametrize(
    "confusion",
    [np.diag([5, 5]), np.array([[1, 0], [0, 0]]), np.array([[0, 1], [1, 0]])],
    ids=["no error", "one row", "one row a class"],
)
def test_where_every_resample_is_the_same_there_is_no_interval(confusion: np.ndarray) -> None:
    (intervals,) = bootstrap_intervals([of_counts(confusion)])
    assert all(np.isnan(interval).all() for interval in intervals.values())


def test_one_row_and_rows_that_are_all_alike_have_no_interval() -> None:
    sure = of_rows(np.array([0, 1, 2]), np.array([0, 1, 2]), np.eye(3))
    one = of_rows(np.array([1]), np.array([1]), np.array([[0.2, 0.7, 0.1]]))
    for intervals in bootstrap_intervals([sure, one]):
        assert all(np.isnan(interval).all() for interval in intervals.values())


def test_a_calibration_error_that_is_noise_alone_has_no_interval() -> None:
    certain = np.repeat([0.6, 0.9], 100)
    labels = np.repeat([0, 1, 0, 1], [60, 40, 90, 10])  # 60% and 90% right: an error of 0, below all that is drawn
    model = of_rows(labels, np.zeros(200, dtype=np.int64), np.stack([certain, 1 - certain], axis=1), n_classes=2)
    (intervals,) = bootstrap_intervals([model])
    assert np.isnan(intervals[CALIBRATION]).all()
    assert not np.isnan(intervals["log_loss"]).any()


def test_a_class_that_is_always_right_has_no_interval_of_its_f1() -> None:
    low, high = bootstrap_intervals([of_counts(np.array([[20, 0, 0], [0, 15, 5], [0, 2, 8]]))])[0]["f1"]
    assert np.isnan(low).tolist() == np.isnan(high).tolist() == [True, False, False]


def test_classes_that_do_not_occur_change_nothing() -> None:
    wider = np.zeros((5, 5), dtype=np.int64)
    wider[:3, :3] = CONFUSION
    (expected,), (found,) = bootstrap_intervals([of_counts(CONFUSION)]), bootstrap_intervals([of_counts(wider)])
    for name in (*MACRO, "f1"):
        for end in range(2):
            assert found[name][end][:3] == pytest.approx(expected[name][end])
    assert np.isnan(found["f1"][0][3:]).all()


def test_without_models_there_are_no_intervals() -> None:
    assert bootstrap_intervals([]) == []
