from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featbench.classifiers.fast_solvers import LOGISTIC
from featbench.classifiers.fit_and_test import fit_and_test
from featbench.classifiers.registry import CLASSIFIERS
from featbench.classifiers.rows import LabelledFeatures
from featbench.classifiers.select import select
from featbench.config import EvaluateConfig
from featbench.solvers.linear_folds import LinearSettings
from featbench.solvers.linear_grid import linear_grid

SETTINGS = LinearSettings(loss="softmax", max_iter=100)
Digits = Callable[[int, int], LabelledFeatures]


def objective(model: LogisticRegression, X: np.ndarray, y: np.ndarray) -> float:
    return float(model.C * log_loss(y, model.predict_proba(X), normalize=False) + (model.coef_**2).sum() / 2)


def check_against_scikit_learn(X: np.ndarray, y: np.ndarray, C: float) -> None:
    scaler, ours = LOGISTIC.fit(make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=500)), X, y, "cpu")
    scaled = StandardScaler().fit_transform(X.astype(np.float64))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # where it stops early, its objective is the higher one
        theirs = LogisticRegression(C=C, tol=1e-10, max_iter=20_000).fit(scaled, y)
    assert ours.n_iter_[0] < 500
    assert objective(ours, scaled, y) == pytest.approx(objective(theirs, scaled, y), rel=1e-4)
    np.testing.assert_allclose(scaler.scale_, StandardScaler().fit(X).scale_, rtol=1e-6)
    np.testing.assert_allclose(ours.predict_proba(scaled), theirs.predict_proba(scaled), atol=1e-3)
    assert (ours.predict(scaled) == theirs.predict(scaled)).mean() >= 0.999
    assert (ours.coef_.shape, ours.intercept_.shape) == (theirs.coef_.shape, theirs.intercept_.shape)
    # With C grows what a gap of the objective means for the weights, the free biases above all.
    near = {"rtol": 0.01, "atol": 0.005 * np.abs(theirs.coef_).max()}
    np.testing.assert_allclose(ours.coef_, theirs.coef_, **near)


@pytest.mark.parametrize("n_classes", [2, 10])
@pytest.mark.parametrize("C", [1e-5, 1e-2, 1.0, 100.0])
def test_digits(C: float, n_classes: int) -> None:
    X, y = load_digits(return_X_y=True)
    kept = y < n_classes
    check_against_scikit_learn(X[kept].astype(np.float32), y[kept], C)


def random_rows(n: int, d: int, n_classes: int, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = np.arange(n) % n_classes
    return spread * rng.normal(size=(n, d)) + rng.normal(size=(n_classes, d))[y] + 3, y


@pytest.mark.parametrize("C", [1e-5, 1e-2, 100.0])
def test_what_breaks_solvers(C: float) -> None:
    X, y = random_rows(150, 6, 3)
    check_against_scikit_learn(np.concatenate([X, X, np.ones((150, 2)), 1e4 * X[:, :1]], axis=1), y, C)
    check_against_scikit_learn(np.concatenate([X, X]), np.concatenate([y, (y + 1) % 3]), C)
    check_against_scikit_learn(np.zeros((10, 3)), np.arange(10) % 2, C)
    check_against_scikit_learn(X.astype(np.float16), y, C)
    check_against_scikit_learn(*random_rows(60, 200, 3), C)  # more features than rows
    check_against_scikit_learn(*random_rows(60, 4, 2, spread=0.01), C)  # far apart
    check_against_scikit_learn(X[[0, 1]], y[[0, 1]], C)


@pytest.mark.parametrize("C", [1e-5, 1e-2, 100.0])
@pytest.mark.parametrize("rare", [1, 2])
def test_one_of_five_hundred(C: float, rare: int) -> None:
    X, _ = random_rows(1000, 5, 2)
    y = np.where(np.arange(1000) < 4, np.arange(1000) % rare + 1, 0)
    check_against_scikit_learn((X + y[:, None]).astype(np.float32), y, C)


@pytest.mark.parametrize("width", [20, 150])  # 150: more features than rows
def test_a_grid_scores_as_the_loop(width: int) -> None:
    X, y = random_rows(120, width, 3, spread=3.0)
    X[:, 5] = 1.0
    splits = list(StratifiedKFold(3, shuffle=True, random_state=0).split(X, y))
    two = np.flatnonzero(y < 2)
    splits += [(two, np.arange(120)), (np.flatnonzero(y != 1), two)]  # a class is missing
    Cs = [1.0, 1e-4, 1e-2]
    for C, found in zip(Cs, linear_grid(X.astype(np.float32), y, splits, Cs, SETTINGS), strict=True):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=C, tol=1e-8, max_iter=5000))
        expected = [model.fit(X[kept], y[kept]).score(X[out], y[out]) for kept, out in splits]
        assert [accuracy for accuracy, _ in found] == pytest.approx(expected, abs=1e-12)
        assert all(converged for _, converged in found)


def test_a_held_out_row_far_away_changes_nothing_of_the_fit() -> None:
    X, y = random_rows(80, 3, 2, spread=0.7)
    X[-1] = 1e6
    X[:40, 2] = 5.0  # constant where the first split is fitted, not where it is scored
    splits = [(np.arange(40), np.arange(40, 80)), (np.arange(40, 80), np.arange(40))]
    (found,) = linear_grid(X.astype(np.float32), y, splits, [0.1], SETTINGS)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, tol=1e-8))
    expected = [model.fit(X[kept], y[kept]).score(X[out], y[out]) for kept, out in splits]
    assert [accuracy for accuracy, _ in found] == pytest.approx(expected, abs=1e-12)


def test_the_same_is_chosen_as_by_grid_search(digits: Digits) -> None:
    rows = digits(0, 600)
    config = EvaluateConfig(classifiers=("logistic_regression",), selection="cv", folds=3)
    chosen = select(CLASSIFIERS["logistic_regression"], rows.X, rows.y, 600, config, 0)
    theirs = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        {"logisticregression__C": [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0]},
        cv=StratifiedKFold(3, shuffle=True, random_state=0),
    ).fit(rows.X, rows.y)
    assert chosen.params["C"] == theirs.best_params_["logisticregression__C"]
    assert chosen.val_accuracy == pytest.approx(theirs.best_score_, abs=2 / 600)
    assert (chosen.engine, chosen.n_not_converged) == ("featbench", 0)


def test_what_the_solver_does_not_know_goes_to_scikit_learn(digits: Digits) -> None:
    grids = {"logistic_regression": {"C": (0.01,), "class_weight": ("balanced",), "max_iter": (1000,)}}
    config = EvaluateConfig(classifiers=("logistic_regression",), selection="holdout", grids=grids)
    fitted = fit_and_test(CLASSIFIERS["logistic_regression"], digits(0, 200), None, digits(200, 300), config, 0, 10)
    assert (fitted.engine, fitted.converged, fitted.params["class_weight"]) == ("scikit-learn", True, "balanced")


def test_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match="only one class"):
        LOGISTIC.fit(
            make_pipeline(StandardScaler(), LogisticRegression()), np.eye(3), np.zeros(3, dtype=np.int64), "cpu"
        )
