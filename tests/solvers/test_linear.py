from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits, make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from featbench.solvers.linear import PrimalLinearSVC


@parametrize_with_checks([PrimalLinearSVC()])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_scikit_learns_contract(estimator: Any, check: Any) -> None:
    check(estimator)


def objective(model: Any, X: np.ndarray, y: np.ndarray, weights: Any = 1.0) -> np.ndarray:
    """liblinear's, of each class; weights are those of the rows, times C."""
    positive = model.classes_ if len(model.classes_) > 2 else model.classes_[1:]
    signs = np.where(y[:, None] == positive, 1.0, -1.0)
    values = X.astype(np.float64) @ model.coef_.T + model.intercept_
    losses = np.maximum(0, 1 - signs * values) ** 2 * np.reshape(weights * model.C, (-1, 1))
    bias = model.intercept_ / model.intercept_scaling
    return 0.5 * (model.coef_**2).sum(1) + 0.5 * bias**2 + losses.sum(0)


def check_against_scikit_learn(X: np.ndarray, y: np.ndarray, **params: Any) -> None:
    ours = PrimalLinearSVC(**params).fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # where it stops early, its objective is the higher one
        theirs = LinearSVC(dual=False, **{"tol": 1e-9, "max_iter": 2000} | params).fit(X, y)
    mine, expected = objective(ours, X, y), objective(theirs, X, y)
    assert (mine <= expected * (1 + 1e-4) + 1e-12).all(), (mine, expected)


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    X, y = load_digits(return_X_y=True)
    return StandardScaler().fit_transform(X), y


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("C", [1e-6, 1e-4, 1e-2, 1.0, 100.0])
def test_the_objective_on_digits(digits: tuple[np.ndarray, np.ndarray], C: float, dtype: type) -> None:
    check_against_scikit_learn(digits[0].astype(dtype), digits[1], C=C)


@pytest.mark.parametrize("C", [1e-4, 1e-2, 1.0])
def test_predictions_on_digits(digits: tuple[np.ndarray, np.ndarray], C: float) -> None:
    X, y = digits
    ours = PrimalLinearSVC(C=C).fit(X[:800], y[:800]).predict(X[800:])
    theirs = LinearSVC(C=C, dual=False, tol=1e-8, max_iter=10000).fit(X[:800], y[:800]).predict(X[800:])
    assert (ours == theirs).mean() >= 0.999


def random_rows(n: int, d: int, n_classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.arange(n_classes), rng.integers(0, n_classes, max(0, n - n_classes))])
    return rng.normal(size=(len(y), d)) @ rng.normal(size=(d, d)) / d**0.5 + rng.normal(size=(n_classes, d))[y], y


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(2, 60),
    d=st.integers(1, 80),
    n_classes=st.integers(2, 5),
    exponent=st.floats(-6, 3),
    scale=st.sampled_from([1.0, 1e-3, 1e3]),
    seed=st.integers(0, 10**6),
)
def test_the_objective_on_random_problems(
    n: int, d: int, n_classes: int, exponent: float, scale: float, seed: int
) -> None:
    X, y = random_rows(n, d, n_classes, seed)
    C = 10 ** min(exponent, 3 - 2 * np.log10(scale))  # beyond, it can stop short of the optimum
    check_against_scikit_learn(X * scale, y, C=C)


def test_what_breaks_solvers() -> None:
    X, y = random_rows(120, 6, 3, 0)
    twice = np.concatenate([X, X, np.ones((120, 2)), np.zeros((120, 1))], axis=1)
    check_against_scikit_learn(twice, y, C=1.0)
    check_against_scikit_learn(X * np.array([1e-4, 1, 1, 1e4, 1, 1]), y, C=1.0)
    check_against_scikit_learn(X[:3], y[:3], C=10.0)
    check_against_scikit_learn(X[[0, 1]], y[[0, 1]], C=1.0)
    check_against_scikit_learn(np.concatenate([X, X]), np.concatenate([y, (y + 1) % 3]), C=1.0)
    check_against_scikit_learn(np.zeros((10, 3)), np.arange(10) % 2, C=1.0)
    check_against_scikit_learn(X.astype(np.float16).astype(np.float32), y, C=1.0)


@pytest.mark.parametrize("C", [1e-6, 1e-2, 1.0, 1e4])
def test_one_of_a_thousand(C: float) -> None:
    rng = np.random.default_rng(0)
    y = (np.arange(4004) < 4).astype(int)
    X = rng.normal(size=(4004, 20)) + y[:, None]
    check_against_scikit_learn(X, y, C=C)
    check_against_scikit_learn(X.astype(np.float32), y, C=C)


@pytest.mark.parametrize("n", [30, 300])
def test_more_features_than_rows(n: int) -> None:
    X, y = random_rows(n, 1100, 3, 1)
    for C in (1e-4, 1.0):
        check_against_scikit_learn(X.astype(np.float32), y, C=C)


def test_leading_eigenvectors_do_as_well() -> None:
    X, y = make_classification(1100, 1100, n_informative=30, n_classes=3, random_state=0)
    check_against_scikit_learn(X.astype(np.float32), y, C=1e-3)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("class_weight", ["balanced", {0: 5.0, 1: 0.5}])
def test_weights_of_classes_and_rows(n_classes: int, class_weight: Any) -> None:
    X, y = random_rows(200, 5, n_classes, 3)
    rows = np.random.default_rng(0).integers(0, 3, 200).astype(float)
    for params in ({}, {"sample_weight": rows}):
        ours = PrimalLinearSVC(class_weight=class_weight, tol=1e-9).fit(X, y, **params)
        theirs = LinearSVC(class_weight=class_weight, dual=False, tol=1e-9).fit(X, y, **params)
        np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(ours.intercept_, theirs.intercept_, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("params", [{"fit_intercept": False}, {"intercept_scaling": 10.0}, {"intercept_scaling": 0.1}])
def test_the_intercept(params: dict[str, Any]) -> None:
    X, y = random_rows(200, 5, 3, 4)
    ours = PrimalLinearSVC(tol=1e-9, **params).fit(X + 1, y)
    theirs = LinearSVC(dual=False, tol=1e-9, **params).fit(X + 1, y)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, rtol=1e-4, atol=1e-6)


def test_non_convergence_is_said() -> None:
    X, y = random_rows(200, 5, 3, 5)
    with pytest.warns(ConvergenceWarning, match="raise max_iter"):
        ours = PrimalLinearSVC(max_iter=1).fit(X, y)
    assert ours.n_iter_ == 1


@pytest.mark.gpu
def test_on_a_gpu(digits: tuple[np.ndarray, np.ndarray]) -> None:
    here = PrimalLinearSVC(C=0.01).fit(*digits)
    there = PrimalLinearSVC(C=0.01, device="cuda").fit(*digits)
    np.testing.assert_allclose(here.coef_, there.coef_, rtol=1e-3, atol=1e-5)
