from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.base import clone
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from featbench.classifiers.fit_and_test import fit_and_test
from featbench.classifiers.registry import CLASSIFIERS
from featbench.classifiers.rows import LabelledFeatures
from featbench.config import EvaluateConfig
from featbench.errors import DataError

Digits = Callable[[int, int], LabelledFeatures]
SMALL: dict[str, dict[str, tuple[Any, ...]]] = {
    "linear_svc": {"C": (1e-3, 1e-2)},
    "svm_rbf": {"C": (1.0, 10.0)},
    "random_forest": {"n_estimators": (50,), "min_samples_leaf": (1, 3)},
    "logistic_regression": {"C": (1e-3, 1e-2), "max_iter": (1000,)},
    "knn": {"metric": ("cosine", "euclidean"), "n_neighbors": (1, 5)},
    "ridge": {"alpha": (1.0, 100.0)},
    "lda": {"shrinkage": ("auto", 0.1)},
    "gaussian_nb": {"var_smoothing": (1e-2, 1e-1)},
    "gradient_boosting": {"max_iter": (5,), "max_leaf_nodes": (4, 8)},
}
BY_HAND: dict[str, Any] = {
    "linear_svc": make_pipeline(StandardScaler(), LinearSVC(dual=False)),
    "svm_rbf": make_pipeline(StandardScaler(), SVC(break_ties=True)),
    "random_forest": RandomForestClassifier(random_state=5),
    "logistic_regression": make_pipeline(StandardScaler(), LogisticRegression(tol=1e-6, max_iter=5000)),
    "knn": make_pipeline(KNeighborsClassifier(algorithm="brute")),
    "ridge": make_pipeline(StandardScaler(), RidgeClassifier(solver="svd")),
    "lda": make_pipeline(StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr")),
    "gaussian_nb": make_pipeline(StandardScaler(), GaussianNB()),
    "gradient_boosting": make_pipeline(HistGradientBoostingClassifier(random_state=5)),
}
FEATBENCH = ("linear_svc", "svm_rbf", "logistic_regression", "knn", "ridge")  # searched by solvers of our own
WITH_PROBABILITIES = ("random_forest", "logistic_regression", "knn", "lda", "gaussian_nb", "gradient_boosting")
CONVERGING = ("linear_svc", "svm_rbf", "logistic_regression")


def config_of(name: str, **settings: Any) -> EvaluateConfig:
    return EvaluateConfig(classifiers=(name,), grids={name: SMALL[name]}, **({"folds": 3} | settings))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_chosen_model_is_refitted_and_tested_as_by_hand(digits: Digits, name: str) -> None:
    train, test = digits(0, 300), digits(1000, 1400)
    ours = fit_and_test(CLASSIFIERS[name], train, None, test, config_of(name), seed=5, n_classes=10)
    folds = StratifiedKFold(3, shuffle=True, random_state=5)
    if name == "random_forest":
        theirs: Any = RandomForestClassifier(50, min_samples_leaf=ours.params["min_samples_leaf"], random_state=5)
    else:
        prefix = BY_HAND[name].steps[-1][0]
        grid = {f"{prefix}__{key}": list(values) for key, values in SMALL[name].items()}
        theirs = GridSearchCV(BY_HAND[name], grid, cv=folds)
    expected = theirs.fit(train.X, train.y).predict(test.X)
    assert np.array_equal(ours.predicted, expected)
    if name != "random_forest":
        assert ours.val_accuracy == pytest.approx(theirs.best_score_, abs=1e-12)
    engine = "featbench" if name in FEATBENCH else "scikit-learn"
    assert (ours.n_train, ours.n_val, ours.engine) == (300, 300, engine)
    assert ours.converged is (True if name in CONVERGING else None)
    assert ours.fit_s > 0
    assert ours.predict_s > 0
    json.dumps(ours.params, allow_nan=False)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_highest_score_is_the_prediction_of_the_model(digits: Digits, name: str) -> None:
    train, test = digits(0, 200), digits(1000, 1400)
    ours = fit_and_test(CLASSIFIERS[name], train, digits(200, 300), test, config_of(name), seed=0, n_classes=10)
    assert ours.scores.shape == (400, 10)
    assert np.array_equal(ours.scores.argmax(axis=1), ours.predicted)
    assert np.array_equal(ours.model.predict(test.X), ours.predicted)
    assert (ours.selection, ours.n_train, ours.n_val) == ("holdout", 300, 100)


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("labels", [(2, 5), (1, 3, 4)])
def test_classes_without_training_rows_keep_their_column(digits: Digits, name: str, labels: tuple[int, ...]) -> None:
    rows = digits(0, 400)
    train = rows.take(np.flatnonzero(np.isin(rows.y, labels)))
    test = digits(1000, 1100)
    ours = fit_and_test(CLASSIFIERS[name], train, None, test, config_of(name), seed=0, n_classes=10)
    missing = [label for label in range(10) if label not in labels]
    assert ours.scores.shape == (100, 10)
    assert (ours.scores[:, missing] == (0 if name in WITH_PROBABILITIES else -np.inf)).all()
    assert np.isfinite(ours.scores[:, labels]).all()
    assert set(ours.predicted) <= set(labels)
    if len(labels) == 2 and name not in WITH_PROBABILITIES:
        decision = ours.model.decision_function(test.X)
        np.testing.assert_allclose(ours.scores[:, labels], np.stack([-decision, decision], axis=1), rtol=1e-9)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_nothing_is_chosen_on_test(digits: Digits, name: str) -> None:
    train, test = digits(0, 200), digits(1000, 1100)
    wrong = replace(test, y=(test.y + 1) % 10)
    first, second = (
        fit_and_test(CLASSIFIERS[name], train, None, t, config_of(name), seed=0, n_classes=10) for t in (test, wrong)
    )
    assert first.params == second.params
    assert first.val_accuracy == second.val_accuracy
    assert np.array_equal(first.scores, second.scores)
    assert accuracy_score(wrong.y, second.predicted) < 0.2 < accuracy_score(test.y, first.predicted)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_feature_that_gives_the_test_labels_away_changes_nothing_that_is_chosen(digits: Digits, name: str) -> None:
    train, test = digits(0, 200), digits(1000, 1100)

    def with_column(rows: LabelledFeatures, values: Any) -> LabelledFeatures:
        return replace(rows, X=np.column_stack([rows.X, np.broadcast_to(values, len(rows.y))]).astype(np.float32))

    plain, given_away = (
        fit_and_test(CLASSIFIERS[name], with_column(train, 0), None, with_column(test, values), config_of(name), 0, 10)
        for values in (0, test.y)
    )
    assert plain.params == given_away.params
    assert (plain.selection, plain.val_accuracy) == (given_away.selection, given_away.val_accuracy)
    unseen = with_column(digits(1100, 1200), 0)  # what was trained is the same too
    assert np.array_equal(plain.model.predict(unseen.X), given_away.model.predict(unseen.X))
    assert accuracy_score(test.y, given_away.predicted) <= accuracy_score(test.y, plain.predicted)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_shuffled_labels_give_chance(digits: Digits, name: str) -> None:
    rng = np.random.default_rng(0)
    rows = digits(0, 1700)
    halves = rows.y < 5
    # Two classes of nearly equal size, which the images say nothing about.
    shuffled = replace(rows, y=rng.permutation(halves.astype(np.int64)))
    train, test = shuffled.take(np.arange(300)), shuffled.take(np.arange(300, 1700))
    ours = fit_and_test(CLASSIFIERS[name], train, None, test, config_of(name), seed=0, n_classes=2)
    correct = int((ours.predicted == test.y).sum())
    assert binomtest(correct, 1400, 0.5).pvalue > 0.001
    assert ours.val_accuracy is not None
    assert abs(ours.val_accuracy - 0.5) < 0.1


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_defaults_of_the_library(digits: Digits, name: str) -> None:
    train, test = digits(0, 200), digits(1000, 1200)
    config = EvaluateConfig(classifiers=(name,), selection="none")
    ours = fit_and_test(CLASSIFIERS[name], train, None, test, config, seed=0, n_classes=10)
    defaults = clone(BY_HAND[name])
    if "random_state" in defaults.get_params():
        defaults.set_params(random_state=0)
    assert np.array_equal(ours.predicted, defaults.fit(train.X, train.y).predict(test.X))
    assert (ours.selection, ours.val_accuracy, ours.n_val) == ("none", None, 0)


@pytest.mark.parametrize("name", CONVERGING)
def test_non_convergence_is_recorded(digits: Digits, name: str) -> None:
    config = EvaluateConfig(classifiers=(name,), grids={name: {"max_iter": (1,)}}, folds=2)
    ours = fit_and_test(CLASSIFIERS[name], digits(0, 200), None, digits(1000, 1100), config, seed=0, n_classes=10)
    assert ours.converged is False
    assert ours.n_not_converged == 1
    assert ours.params["max_iter"] == 1


def test_the_val_split_is_trained_on_in_the_end(digits: Digits) -> None:
    test = digits(1000, 1100)
    ours = fit_and_test(
        CLASSIFIERS["linear_svc"], digits(0, 200), digits(200, 300), test, config_of("linear_svc"), 0, 10
    )
    by_hand = make_pipeline(StandardScaler(), LinearSVC(dual=False, C=ours.params["C"]))
    both = digits(0, 300)
    expected = by_hand.fit(both.X, both.y).decision_function(test.X)
    np.testing.assert_allclose(ours.scores, expected, rtol=1e-3, atol=1e-4)


def test_a_learning_curve_is_fitted_on_its_own_rows(digits: Digits) -> None:
    config = config_of("linear_svc", train_sizes=(10,))
    ours = fit_and_test(CLASSIFIERS["linear_svc"], digits(0, 100), digits(100, 300), digits(1000, 1100), config, 0, 10)
    alone = make_pipeline(StandardScaler(), LinearSVC(dual=False, C=ours.params["C"]))
    train = digits(0, 100)
    assert (ours.selection, ours.n_train, ours.n_val) == ("holdout", 100, 200)
    assert np.array_equal(ours.predicted, alone.fit(train.X, train.y).predict(digits(1000, 1100).X))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_float16_features_count_as_float32(digits: Digits, name: str) -> None:
    full = [digits(0, 100), digits(100, 150), digits(1000, 1100)]  # pixels from 0 to 16 are exact in float16
    half = [replace(rows, X=rows.X.astype(np.float16)) for rows in full]
    expected, ours = (
        fit_and_test(CLASSIFIERS[name], *rows, config_of(name), seed=0, n_classes=10) for rows in (full, half)
    )
    assert np.array_equal(expected.scores, ours.scores)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_features_that_are_not_finite(digits: Digits, split: str) -> None:
    rows = {"train": digits(0, 100), "val": digits(100, 150), "test": digits(1000, 1100)}
    X = rows[split].X.astype(np.float16)
    X[[3, 3, 7], [0, 1, 2]] = [np.inf, np.nan, -np.inf]
    rows[split] = replace(rows[split], X=X)
    with pytest.raises(DataError, match=rf'2 of \d+ {split} rows hold features .* store = "float32"'):
        fit_and_test(CLASSIFIERS["random_forest"], *rows.values(), config_of("random_forest"), seed=0, n_classes=10)


def test_too_few_rows_and_no_test_rows(digits: Digits) -> None:
    train, test = digits(0, 100), digits(1000, 1100)
    with pytest.raises(DataError, match=r"too few for evaluate\.folds = 50"):
        fit_and_test(CLASSIFIERS["linear_svc"], train, None, test, config_of("linear_svc", folds=50), 0, 10)
    config = EvaluateConfig(selection="none")
    with pytest.raises(DataError, match="the test split has no rows"):
        fit_and_test(CLASSIFIERS["linear_svc"], train, None, digits(0, 0), config, 0, 10)
