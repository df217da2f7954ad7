from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from featbench.stats.intervals import bootstrap_intervals
from featbench.stats.measures import CONFUSION_COLUMNS, METRIC_COLUMNS, confusion_table, metric_table
from featbench.stats.metrics import wilson_interval
from featbench.stats.models import Predictions

CLASSES = tuple("abcdefgh")
MACRO = ["balanced_accuracy", "macro_precision", "macro_recall", "macro_f1"]


def answers(n_classes: int = 8, *, probabilities: bool = True, n_test: int = 200) -> Predictions:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, n_classes, n_test)
    scores = rng.normal(size=(n_test, n_classes)) + 2 * np.eye(n_classes)[labels]
    if probabilities:
        scores = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return Predictions(
        fingerprint="f0",
        name="svm/resnet18",
        dataset="pets",
        classes=CLASSES[:n_classes],
        ids=np.array([f"{i:03d}" for i in range(n_test)], dtype=object),
        labels=labels,
        predicted=scores.argmax(axis=1),
        scores=scores,
    )


def overall(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["class"].isna()].set_index("metric")


def test_the_metrics_are_scikit_learns() -> None:
    model = answers()
    table = metric_table([model])
    assert tuple(table.columns) == METRIC_COLUMNS
    y, predicted, p = model.labels, model.predicted, model.scores
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(y, predicted, average="macro")
    expected = {
        "accuracy": metrics.accuracy_score(y, predicted),
        "balanced_accuracy": metrics.balanced_accuracy_score(y, predicted),
        "macro_precision": precision,
        "macro_recall": recall,
        "macro_f1": f1,
        "top5_accuracy": metrics.top_k_accuracy_score(y, p, k=5),
        "log_loss": metrics.log_loss(y, p),
    }
    values = overall(table)["value"]
    assert list(values.index) == [*expected, "expected_calibration_error"]
    assert values.drop("expected_calibration_error").to_dict() == pytest.approx(expected)
    by_class = metrics.precision_recall_fscore_support(y, predicted, average=None)
    for name, theirs in zip(("precision", "recall", "f1", "support"), by_class, strict=True):
        ours = table[(table["metric"] == name) & table["class"].notna()]
        assert ours["class"].tolist() == list(CLASSES)
        assert ours["value"].tolist() == pytest.approx(theirs.tolist())


def test_the_intervals_are_those_of_their_methods() -> None:
    model = answers()
    table = metric_table([model])
    rows = overall(table)
    n_right = int((model.labels == model.predicted).sum())
    assert (rows.low["accuracy"], rows.high["accuracy"]) == pytest.approx(wilson_interval(n_right, 200))
    (theirs,) = bootstrap_intervals([model])
    for name in (*MACRO, "log_loss", "expected_calibration_error"):
        assert (rows.low[name], rows.high[name]) == theirs[name]
        assert rows.low[name] < rows.value[name] < rows.high[name]
    assert rows.low["top5_accuracy"] < rows.value["top5_accuracy"] < rows.high["top5_accuracy"]
    of_classes = table[table["metric"] == "f1"]
    assert np.array_equal(of_classes[["low", "high"]].to_numpy().T, theirs["f1"])
    assert (of_classes["low"] < of_classes["value"]).all()
    assert (of_classes["value"] < of_classes["high"]).all()
    assert table.loc[table["metric"] == "support", ["low", "high"]].isna().all(axis=None)
    first = table[(table["class"] == "a") & (table["metric"] == "recall")].iloc[0]
    of_class = model.labels == 0
    hits = int((model.predicted[of_class] == 0).sum())
    assert (first.low, first.high) == pytest.approx(wilson_interval(hits, int(of_class.sum())))


@pytest.mark.parametrize(("n_classes", "probabilities"), [(5, True), (8, False)])
def test_a_metric_that_does_not_apply_is_left_out(n_classes: int, probabilities: bool) -> None:
    names = set(overall(metric_table([answers(n_classes, probabilities=probabilities)])).index)
    assert ("top5_accuracy" in names) is (n_classes > 5)
    assert ("log_loss" in names) is ("expected_calibration_error" in names) is probabilities


def test_the_confusion_matrix_is_scikit_learns() -> None:
    model = answers()
    table = confusion_table([model])
    assert tuple(table.columns) == CONFUSION_COLUMNS
    assert (table["count"] > 0).all()
    wide = table.pivot_table("count", "label", "predicted", fill_value=0).reindex(
        index=list(CLASSES), columns=list(CLASSES), fill_value=0
    )
    assert np.array_equal(wide.to_numpy(), metrics.confusion_matrix(model.labels, model.predicted))


def test_without_models_there_are_empty_tables() -> None:
    assert (len(metric_table([])), len(confusion_table([]))) == (0, 0)
    assert tuple(metric_table([]).columns) == METRIC_COLUMNS
