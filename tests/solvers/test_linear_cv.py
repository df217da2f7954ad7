from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from featbench import solvers
from featbench.solvers import LinearSVCCV, SoftmaxRegressionCV

CS = [1e-4, 1e-2, 1.0]
PEERS = [
    (LinearSVCCV, LinearSVC(dual=False, tol=1e-8)),
    (SoftmaxRegressionCV, LogisticRegression(tol=1e-8, max_iter=5000)),
]


@parametrize_with_checks([LinearSVCCV(Cs=[0.1, 1.0], cv=2), SoftmaxRegressionCV(Cs=[0.1, 1.0], cv=2)])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.filterwarnings("ignore:The least populated class:UserWarning")  # in a check with five rows and cv=3
def test_scikit_learns_contract(estimator: Any, check: Any) -> None:
    check(estimator)


def test_public_names_load_when_they_are_used() -> None:
    assert all(callable(getattr(solvers, name)) for name in solvers.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'LinearSVCV'; it has RBFSVCCV, LinearSVCCV"):
        _ = solvers.LinearSVCV


def rows(n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    X, y = load_digits(return_X_y=True)
    kept = np.flatnonzero(y < n_classes)[:400]
    return X[kept] * 3 + 5, np.array([f"digit {label}" for label in y[kept]])


@pytest.mark.parametrize(("ours", "theirs"), PEERS)
@pytest.mark.parametrize("n_classes", [2, 5])
@pytest.mark.parametrize("standardize", [True, False])
def test_the_search_is_that_of_grid_search(ours: Any, theirs: Any, n_classes: int, standardize: bool) -> None:
    X, y = rows(n_classes)
    if not standardize:
        X = X / 100
    cv = StratifiedKFold(3, shuffle=True, random_state=0)
    mine = ours(Cs=CS, cv=cv, standardize=standardize).fit(X, y)
    pipeline = make_pipeline(StandardScaler() if standardize else "passthrough", theirs)
    step = type(theirs).__name__.lower()
    search = GridSearchCV(pipeline, {f"{step}__C": CS}, cv=cv).fit(X, y)
    expected = [[search.cv_results_[f"split{split}_test_score"][place] for place in range(3)] for split in range(3)]
    np.testing.assert_allclose(mine.scores_, expected, atol=1 / 130)  # one row
    assert search.best_params_[f"{step}__C"] == mine.C_
    np.testing.assert_allclose(mine.decision_function(X), search.decision_function(X), rtol=0.02, atol=0.02)
    assert (mine.coef_.shape, mine.intercept_.shape) == (search.best_estimator_[-1].coef_.shape, (len(mine.coef_),))
    assert (mine.classes_.tolist(), mine.n_features_in_) == (search.classes_.tolist(), 64)
    assert mine.n_iter_ > 0
    if ours is SoftmaxRegressionCV:
        np.testing.assert_allclose(mine.predict_proba(X), search.predict_proba(X), atol=5e-3)
        np.testing.assert_allclose(np.exp(mine.predict_log_proba(X)), mine.predict_proba(X))


@pytest.mark.parametrize("ours", [LinearSVCCV, SoftmaxRegressionCV])
def test_splits_can_be_a_number_or_given(ours: Any) -> None:
    X, y = rows(3)
    splits = list(StratifiedKFold(4).split(X, y))
    by_number, given = ours(Cs=CS, cv=4).fit(X, y), ours(Cs=CS, cv=iter(splits)).fit(X, y)
    np.testing.assert_array_equal(by_number.scores_, given.scores_)
    assert ours(Cs=CS).fit(X, y).scores_.shape == (5, 3)
    assert cross_val_score(ours(Cs=CS, cv=2), X, y, cv=2).mean() > 0.9


def test_equals_choose_the_smallest_c() -> None:
    X = np.array([[-2.0], [-1.9], [-2.1], [2.0], [1.9], [2.1]])
    assert LinearSVCCV(Cs=[1.0, 0.1], cv=3).fit(X, [0, 0, 0, 1, 1, 1]).C_ == 0.1


@pytest.mark.parametrize("class_weight", ["balanced", {"digit 0": 20.0, "digit 3": 0.1}])
def test_class_weights_are_those_of_the_labels(class_weight: Any) -> None:
    X, y = rows(4)
    mine = LinearSVCCV(Cs=[1e-3], cv=2, class_weight=class_weight, tol=1e-8).fit(X, y)
    theirs = LinearSVC(C=1e-3, dual=False, class_weight=class_weight, tol=1e-8)
    expected = make_pipeline(StandardScaler(), theirs).fit(X, y).decision_function(X)
    np.testing.assert_allclose(mine.decision_function(X), expected, rtol=1e-2, atol=2e-3)


@pytest.mark.parametrize("Cs", [[], [1.0, 0.0], [[1.0]]])
def test_values_of_c_that_cannot_be(Cs: Any) -> None:
    with pytest.raises(ValueError, match="Cs must be a sequence of numbers above 0"):
        LinearSVCCV(Cs=Cs).fit(*rows(2))


@pytest.mark.parametrize("ours", [LinearSVCCV, SoftmaxRegressionCV])
def test_too_few_steps_are_a_warning(ours: Any) -> None:
    with pytest.warns(ConvergenceWarning, match="raise max_iter"):
        ours(Cs=[1.0], cv=2, max_iter=1).fit(*rows(3))
