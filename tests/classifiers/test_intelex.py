from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from featbench.classifiers.fast_solvers import INTELEX, rbf_solver
from featbench.classifiers.fit_and_test import fit_and_test
from featbench.classifiers.registry import CLASSIFIERS
from featbench.classifiers.rows import LabelledFeatures
from featbench.config import EvaluateConfig

pytest.importorskip("sklearnex", reason="scikit-learn-intelex is not installed")


@pytest.mark.parametrize("n_classes", [2, 10])
def test_a_grid_scores_as_scikit_learn(n_classes: int) -> None:
    X, y = load_digits(return_X_y=True)
    X, y = X[y < n_classes], y[y < n_classes]
    machines = [SVC(C=1.0), SVC(C=10.0, gamma=0.01), SVC(class_weight="balanced")]
    splits = list(StratifiedKFold(3, shuffle=True, random_state=0).split(X, y))
    for machine, found in zip(machines, INTELEX.search(X, y, splits, machines, "cpu"), strict=True):
        pipeline = make_pipeline(StandardScaler(), machine)
        expected = [pipeline.fit(X[kept], y[kept]).score(X[out], y[out]) for kept, out in splits]
        assert [accuracy for accuracy, _ in found] == expected


def test_it_takes_over_beyond_the_kernels_budget(digits: Callable[[int, int], LabelledFeatures]) -> None:
    train, test = digits(0, 600), digits(600, 900)
    config = EvaluateConfig(classifiers=("svm_rbf",))
    within = fit_and_test(CLASSIFIERS["svm_rbf"], train, None, test, config, 0, 10)
    without_room = replace(CLASSIFIERS["svm_rbf"], solver=rbf_solver(memory_bytes=0))
    beyond = fit_and_test(without_room, train, None, test, config, 0, 10)
    assert (within.engine, beyond.engine) == ("featbench", "scikit-learn-intelex")
    assert beyond.params == within.params
    assert beyond.val_accuracy == pytest.approx(within.val_accuracy, abs=1e-9)
    assert type(beyond.model[-1]) is SVC
    assert np.array_equal(beyond.predicted, within.predicted)
