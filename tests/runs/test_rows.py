from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn import metrics

import featbench
from featbench.data.splits import Dataset
from featbench.runs.rows import make_row

LABELS, PREDICTED = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 2, 2])
OTHERS = {"backbone": "pixels", "method": "ridge", "kind": "classifier", "seed": 3, "n_train": 9, "fingerprint": "f0"}


def dataset() -> Dataset:
    return Dataset(name="pets", classes=("ant", "bee", "cat"), splits={})


def test_the_metrics_of_a_row_are_those_of_its_predictions() -> None:
    row = make_row("mine", dataset(), LABELS, PREDICTED, params={"b": 1, "a": 2}, images_per_class=None, **OTHERS)
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(LABELS, PREDICTED, average="macro")
    assert (row.experiment, row.dataset, row.n_classes, row.n_test) == ("mine", "pets", 3, 6)
    assert row.accuracy == pytest.approx(4 / 6)
    assert (row.macro_precision, row.macro_recall, row.macro_f1) == pytest.approx((precision, recall, f1))
    assert row.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(LABELS, PREDICTED))
    assert (row.accuracy_low, row.accuracy_high) == pytest.approx((0.29999, 0.90323), abs=1e-5)  # Wilson's, of 4 in 6
    assert (row.params, row.images_per_class) == ('{"a": 2, "b": 1}', None)
    assert {name: getattr(row, name) for name in OTHERS} == OTHERS
    assert row.featbench_version == featbench.__version__


def test_the_size_of_a_learning_curve_is_a_column_and_a_parameter() -> None:
    row = make_row("mine", dataset(), LABELS, PREDICTED, params={"C": 1}, images_per_class=20, **OTHERS)
    assert row.images_per_class == 20
    assert json.loads(row.params) == {"C": 1, "images_per_class": 20}
